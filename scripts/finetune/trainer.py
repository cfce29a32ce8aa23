"""The training loop: contrastive steps, saved states, a log row a step."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors.torch import save_file

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import atomic_path
from scripts.common.job import peak_memory_mb
from scripts.finetune.adapters import plain_weights
from scripts.finetune.examples import Example, Tokens, TrainingData, epoch_batches
from scripts.finetune.gradient_cache import Student
from scripts.finetune.layout import BaseScores, batch_layout
from scripts.finetune.loss import LossOptions, batch_loss, teacher_matrix
from scripts.finetune.schedule import TrainingPlan, learning_rate, make_optimizer
from scripts.finetune.state import StateFolder
from scripts.finetune.watch import Watch
from scripts.finetune.world import World

# Sound training moves the norm of all weights by a few per cent; this is far beyond and still before NaN
BLOWN_UP = 3.0
# Called with the step after each validation interval and epoch; true ends training
AfterValidation = Callable[[int], bool]
# A teacher's scores by passage id, for each example and the passages of its batch
Teacher = Callable[[Sequence[Example], Sequence[str]], list[dict[str, float]]]


class Trainer:
    """Trains one encoder, in this process or together with others.

    Args:
        model: The transformer with the base's weights, float32.
        contract: Pooling, prefixes and lengths.
        tokens: Tokenized texts.
        data: Examples and passages.
        plan: Sizes and intervals.
        options: The ``finetune`` section by name.
        device: ``cpu`` or ``cuda``.
        states: Where states are saved.
        watch: Where the log rows go.
        base: The base model's similarities, for the margin mask.
        teacher: Scores to learn from besides the examples.
        world: The processes that train together.
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
        watch: Watch,
        base: BaseScores | None = None,
        teacher: Teacher | None = None,
        world: World | None = None,
    ) -> None:
        self.model, self.contract, self.tokens, self.data = model.to(device), contract, tokens, data
        self.plan, self.options, self.device, self.states, self.watch = plan, options, device, states, watch
        self.base, self.teacher, self.world = base, teacher, world or World()
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(model, options, device)
        self.step = 0
        self.rows: list[dict[str, Any]] = []
        self._first_norm = float(torch.nn.utils.get_total_norm(self.parameters))
        self.loss_options = LossOptions(
            options["temperature"],
            contract.l2_normalize,
            tuple(options["matryoshka_dimensions"]),
            options["distill_weight"],
            options["distill_temperature"],
        )
        one = contract.query_max_length + options["train_n_passages"] * contract.passage_max_length
        self.student = Student(
            torch.compile(model, dynamic=True) if options["compile"] else model,
            contract,
            device,
            held_tokens=plan.micro_batch_size * one,
            seed=options["seed"],
            world=self.world,
        )
        if options["gradient_checkpointing"]:
            model.gradient_checkpointing_enable()

    def run(self, examples: Sequence[Example], validate: AfterValidation) -> None:
        """Train all epochs, or until ``validate`` says that it is enough.

        Raises:
            UserError: The numbers are no longer finite or sound, or memory runs out.
        """
        self._check_weights()
        self._resume()
        if self.world.first:
            self.watch.start(self.rows, self.plan.total_steps)
        # a kill may have come between the saved state and its validation
        enough = self.step > 0 and self._due() and self._validate(validate)
        while self.step < self.plan.total_steps and not enough:
            epoch, number = divmod(self.step, self.plan.steps_per_epoch)
            batches = epoch_batches(examples, self.plan.batch_size, self.options["seed"], epoch)
            left = self.plan.total_steps - self.step
            for batch in list(batches)[number : number + left]:
                self._one_step(batch, epoch)
                enough = self._after_step(validate)
                if enough:
                    break

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights in the base model's layout, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in plain_weights(self.model).items()}

    def _one_step(self, batch: Sequence[Example], epoch: int) -> None:
        started = time.monotonic()
        self.model.train()
        rate = learning_rate(self.step, self.plan, self.options["learning_rate"], self.options["lr_decay_style"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = tokens = padded = 0.0
        try:
            for number, part in enumerate(self._parts(batch)):
                total += self._backward(part, len(part) / len(batch), epoch, f"{self.step}:{number}")
                tokens, padded = tokens + self.student.tokens, padded + self.student.padded
            self.world.sum_gradients(self.parameters)
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.options["max_grad_norm"]))
            if not math.isfinite(norm):
                raise FloatingPointError(norm)
            self.optimizer.step()
        except FloatingPointError as error:
            raise self._unsound(f"loss or gradient is not finite ({error})") from None
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise self._out_of_memory() from error
            raise
        self.optimizer.zero_grad(set_to_none=True)
        growth = float(torch.nn.utils.get_total_norm(self.parameters)) / self._first_norm
        if not growth < BLOWN_UP:
            raise self._unsound(f"the weights have grown to {growth:.1f} times their size")
        self.step += 1
        row = {"step": self.step, "epoch": epoch, "loss": total, "grad_norm": norm, "lr": rate}
        self.rows.append(
            {
                **row,
                "mem": self._memory_gb(),
                "time_per_step": round(time.monotonic() - started, 3),
                "tokens": int(tokens),
                "padding": round(1 - tokens / padded, 3),
            }
        )

    def _parts(self, batch: Sequence[Example]) -> list[Sequence[Example]]:
        """The batch as one where its questions meet each other's passages, else in parts that fit in memory."""
        if self.options["in_batch_negatives"]:
            return [batch]
        size = self.plan.micro_batch_size * self.world.size
        return [batch[start : start + size] for start in range(0, len(batch), size)]

    def _backward(self, batch: Sequence[Example], weight: float, epoch: int, name: str) -> float:
        layout = batch_layout(batch, self.data, self.options, epoch, self.base)
        rows = self.tokens.get([example.question for example in batch], "query")
        rows += self.tokens.get([self.data.passages[name].text for name in layout.names], "passage")
        target, allowed = layout.target.to(self.device), layout.allowed.to(self.device)
        teacher = None
        if self.teacher is not None and self.options["distill_weight"]:
            teacher = teacher_matrix(self.teacher(batch, layout.names), layout.names, self.device)

        def loss_of(vectors: torch.Tensor) -> torch.Tensor:
            queries, passages = vectors[: len(batch)], vectors[len(batch) :]
            return batch_loss(queries, passages, target, allowed, self.loss_options, teacher) * weight

        return self.student.backward(rows, loss_of, name)

    def _due(self) -> bool:
        left, interval = self.plan.total_steps - self.step, self.plan.validate_every
        # shortly before the end nothing new would be seen
        regular = self._epoch_ends() or self.step % interval == 0
        return left == 0 or (regular and 2 * left >= interval)

    def _epoch_ends(self) -> bool:
        return self.step % self.plan.steps_per_epoch == 0

    def _after_step(self, validate: AfterValidation) -> bool:
        due = self._due()
        if self.world.first:
            if due:
                with atomic_path(self.states.weights_file(self.step)) as temporary:
                    save_file({name: value.contiguous() for name, value in self.weights().items()}, temporary)
            if due or self._epoch_ends() or self.step % self.plan.checkpoint_every == 0:
                self._save()
            self.watch.step(self.rows[-1])
        return due and self._validate(validate)

    def _validate(self, validate: AfterValidation) -> bool:
        return self.world.agree(validate(self.step) if self.world.first else False)

    def _save(self) -> None:
        self.states.save(
            self.step,
            {
                "step": self.step,
                "epoch": self.rows[-1]["epoch"],
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
        # order of the data, dropout and learning rate follow from seed and step; this is for the model's own code
        torch.set_rng_state(state["rng"])
        if len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.step, self.rows = state["step"], state["rows"]

    def _check_weights(self) -> None:
        bad = [name for name, value in self.model.state_dict().items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise UserError(
                f"before step 1: {len(bad)} weights of the base model are not finite ({bad[0]} first). The model in "
                f"{self.contract.model} is damaged: get it again, or choose another as model.base_model."
            )

    def _unsound(self, what: str) -> UserError:
        return UserError(
            f"training failed at step {self.step + 1}: {what}. Lower finetune.learning_rate (now "
            f"{self.options['learning_rate']:g}; 5e-6 to 5e-5 is usual), lengthen finetune.lr_warmup_steps, or raise "
            f"finetune.temperature (now {self.options['temperature']:g})."
        )

    def _out_of_memory(self) -> UserError:
        size = self.plan.micro_batch_size
        advice = [f"finetune.local_batch_size={size // 2}"] if size > 1 else []
        if not self.options["gradient_checkpointing"]:
            advice.append("finetune.gradient_checkpointing=true")
        advice.append(f"model.passage_max_length={self.contract.passage_max_length // 2}")
        if self.options["lora_rank"] is None:
            advice.append("finetune.lora_rank=16")
        return UserError(
            f"memory ran out at step {self.step + 1} (local batch {size}). Training goes on from its last saved state "
            f"or starts afresh with one of these, in this order: {', '.join(advice)}."
        )

    def _memory_gb(self) -> float:
        if self.device == "cuda":
            return round(torch.cuda.max_memory_allocated() / 2**30, 3)
        return round(peak_memory_mb() / 1024, 3)
