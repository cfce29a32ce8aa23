"""The training loop: contrastive steps, saved states, a log line a step."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from scripts.common.batching import plan_batches
from scripts.common.contract import Contract, Side
from scripts.common.encoder import CPU_TOKEN_BUDGET, pad
from scripts.common.errors import UserError
from scripts.common.files import atomic_path
from scripts.common.job import peak_memory_mb
from scripts.common.pooling import normalize, pool
from scripts.common.progress import progress
from scripts.finetune.examples import Example, Tokens, TrainingData, epoch_batches
from scripts.finetune.loss import batch_layout, info_nce
from scripts.finetune.schedule import TrainingPlan, learning_rate, make_optimizer
from scripts.finetune.state import StateFolder

GPU_TOKEN_BUDGET = 65_536
AfterValidation = Callable[[int], None]


class Trainer:
    """Trains one encoder on one device.

    Args:
        model: The transformer, float32.
        contract: Pooling, prefixes and lengths.
        tokens: Tokenized texts.
        data: Examples and passages.
        plan: Sizes and intervals.
        options: The ``finetune`` section by name.
        device: ``cpu`` or ``cuda``.
        states: Where states are saved.
        log_file: ``training.jsonl``.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        contract: Contract,
        tokens: Tokens,
        data: TrainingData,
        plan: TrainingPlan,
        options: dict[str, Any],
        device: str,
        states: StateFolder,
        log_file: Path,
    ) -> None:
        self.model, self.contract, self.tokens, self.data = model.to(device), contract, tokens, data
        self.plan, self.options, self.device, self.states, self.log_file = plan, options, device, states, log_file
        self.optimizer = make_optimizer(model, options, device)
        self.step = 0
        self.rows: list[dict[str, Any]] = []
        if options["gradient_checkpointing"]:
            model.gradient_checkpointing_enable()

    def run(self, examples: Sequence[Example], validate: AfterValidation) -> None:
        """Train all epochs; ``validate`` is called with the step after each epoch and interval.

        Raises:
            UserError: The loss is not finite, or memory runs out.
        """
        torch.manual_seed(self.options["seed"])
        self._resume()
        bar = progress(self.plan.total_steps, "train", "step", initial=self.step)
        for epoch in range(self.options["num_epochs"]):
            batches = epoch_batches(examples, self.plan.batch_size, self.options["seed"], epoch)
            for number, batch in enumerate(batches):
                if epoch * self.plan.steps_per_epoch + number < self.step:
                    continue
                self._one_step(batch, epoch)
                bar.set_postfix(loss=f"{self.rows[-1]['loss']:.3f}", refresh=False)
                bar.update()
                self._after_step(number + 1 == self.plan.steps_per_epoch, validate)
        bar.close()

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def encode(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors ``[len(tokens), dimension]`` with gradients, in length-sorted parts that need little padding."""
        budget = GPU_TOKEN_BUDGET if self.device == "cuda" else CPU_TOKEN_BUDGET
        order, parts = [], []
        for indices in plan_batches([len(row) for row in tokens], budget):
            ids, mask = (torch.from_numpy(array).to(self.device) for array in pad([tokens[i] for i in indices]))
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            parts.append(pool(hidden, mask, self.contract.pooling))
            order.extend(indices)
        vectors = torch.cat(parts)[torch.from_numpy(np.argsort(order)).to(self.device)]
        return normalize(vectors) if self.contract.l2_normalize else vectors

    def _one_step(self, batch: Sequence[Example], epoch: int) -> None:
        started = time.monotonic()
        self.model.train()
        rate = learning_rate(self.step, self.plan, self.options["learning_rate"], self.options["lr_decay_style"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        size, total = self.plan.micro_batch_size, 0.0
        try:
            for start in range(0, len(batch), size):
                part = batch[start : start + size]
                loss = self._loss(part) * (len(part) / len(batch))
                loss.backward()
                total += float(loss.detach())
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"memory ran out at step {self.step + 1}: halve finetune.local_batch_size (now {size}), or set "
                "finetune.gradient_checkpointing=true, or lower model.passage_max_length."
            ) from error
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options["max_grad_norm"]))
        if not math.isfinite(total) or not math.isfinite(norm):
            raise UserError(
                f"loss or gradient is not finite at step {self.step + 1} (loss {total}, gradient norm {norm}): lower "
                f"finetune.learning_rate (now {self.options['learning_rate']:g}) or raise finetune.temperature."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        row = {"step": self.step, "epoch": epoch, "loss": total, "grad_norm": norm, "lr": rate}
        self.rows.append({**row, "mem": self._memory_gb(), "time_per_step": round(time.monotonic() - started, 3)})

    def _loss(self, batch: Sequence[Example]) -> torch.Tensor:
        options = self.options
        names, target, allowed = batch_layout(
            batch, self.data, options["train_n_passages"], in_batch=options["in_batch_negatives"]
        )
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            queries = self.encode(self._tokens([example.question for example in batch], "query"))
            passages = self.encode(self._tokens([self.data.passages[name].text for name in names], "passage"))
        # the recipe divides by the temperature only where vectors are normalised
        temperature = options["temperature"] if self.contract.l2_normalize else 1.0
        scores = queries.float() @ passages.float().T
        return info_nce(scores, target.to(self.device), allowed.to(self.device), temperature)

    def _tokens(self, texts: Sequence[str], side: Side) -> list[list[int]]:
        return self.tokens.get(texts, side)

    def _after_step(self, epoch_ends: bool, validate: AfterValidation) -> None:
        due = epoch_ends or self.step % self.plan.validate_every == 0
        if due:
            with atomic_path(self.states.weights_file(f"step_{self.step:08d}")) as temporary:
                save_file({name: value.contiguous() for name, value in self.weights().items()}, temporary)
        if due or self.step % self.plan.checkpoint_every == 0:
            self._save()
        if due:
            validate(self.step)
        with atomic_path(self.log_file) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def _save(self) -> None:
        self.states.save(
            self.step,
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if self.device == "cuda" else [],
                "rows": self.rows,
            },
        )

    def _resume(self) -> None:
        state = self.states.load()
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if self.device == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.step, self.rows = state["step"], state["rows"]

    def _memory_gb(self) -> float:
        if self.device == "cuda":
            return round(torch.cuda.max_memory_allocated() / 2**30, 3)
        return round(peak_memory_mb() / 1024, 3)
