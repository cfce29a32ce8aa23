"""Stage 2: contrastive fine-tuning, selection on validation, and a model folder that others can load."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from scripts.common.contract import Contract
from scripts.common.encoder import TorchEncoder, load_model, pick_device
from scripts.common.files import atomic_path, sha256_file, write_json
from scripts.common.job import job, log
from scripts.common.models import resolve_model
from scripts.common.vector_store import VectorStore
from scripts.finetune.card import model_card
from scripts.finetune.consolidate import consolidate, point_latest, publish
from scripts.finetune.examples import Tokens, read_training_data, usable
from scripts.finetune.schedule import make_plan
from scripts.finetune.state import StateFolder
from scripts.finetune.trainer import Trainer
from scripts.finetune.validation import Validation, Weights, describe, interpolate

# Shares of the tuning that are tried: 0 is the base model, 1 all of it
SHARES = (0.25, 0.5, 0.75)


def finetune(
    train_file: str | Path,
    val_file: str | Path,
    contract_file: str | Path,
    output: str | Path,
    *,
    cache: str | Path,
    options: dict[str, Any],
    device: str,
    attention: str | None,
    code: str,
) -> dict[str, Any]:
    """Train, select, and publish under ``output``; returns what ``finetune.json`` says.

    Args:
        train_file: ``train_mined.automodel_unrolled.json``.
        val_file: ``val.json``.
        contract_file: The base model's contract.
        output: Folder of stage 2.
        cache: The workflow's cache folder (training states, vectors of the base model).
        options: The ``finetune`` section by name.
        device: ``auto``, ``cpu`` or ``cuda``.
        attention: Attention kernel, or ``None`` for the best there is.
        code: Digest of the code, so that a state is never continued by another program.
    """
    contract = Contract.load(contract_file)
    folder = resolve_model(contract.model, contract.revision, relative_to=Path(contract_file).parent)
    device = pick_device(device)
    torch.use_deterministic_algorithms(device == "cpu")
    data = read_training_data(train_file)
    examples = usable(data.examples, in_batch=options["in_batch_negatives"], most=options["max_examples"])
    corpus_file = Path(train_file).parent / "corpus" / "train.parquet"
    facts = {
        "contract": dataclasses.asdict(contract),
        "data": [sha256_file(path) for path in (train_file, val_file, corpus_file) if Path(path).is_file()],
        "options": options,
        "device": device,
        "code": code,
        "examples": len(examples),
    }
    states = StateFolder(Path(cache, "finetune"), facts)
    model = load_model(folder, contract, attention)
    trainer = Trainer(
        model,
        contract,
        Tokens(contract, folder),
        data,
        make_plan(len(examples), options),
        options,
        device,
        states,
        Path(output, "training.jsonl"),
    )
    base = trainer.weights()
    encoder = TorchEncoder(contract, folder, device=device, model=model)
    validation = (
        Validation.build(read_training_data(val_file), options["seed"]) if options["select"] == "validation" else None
    )
    if options["select"] == "validation" and validation is None:
        log.warning("no validation question is left: the last weights are taken unseen. Raise prep.val_ratio.")
    scores = Scores(states.folder / "validation.jsonl", validation, encoder)

    def validate(step: int) -> None:
        scores.of(step, 1.0)

    trainer.run(examples, validate)
    chosen = choose(scores, trainer, base, Path(cache, "vectors"))
    describe(contract, scores.rows, chosen)
    return _publish(Path(output), trainer, base, folder, chosen, scores, facts)


class Scores:
    """Validation scores by step and share of the tuning, kept in a file so that a resumed run need not repeat them."""

    def __init__(self, path: Path, validation: Validation | None, encoder: TorchEncoder) -> None:
        self.path, self.validation, self.encoder = path, validation, encoder
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            self.rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def of(self, step: int, share: float, encode: Any = None) -> None:
        """Score the encoder's present weights (or ``encode``) as those of a step and share, once."""
        if self.validation is None or any(row["step"] == step and row["share"] == share for row in self.rows):
            return
        self.encoder.model.eval()
        score = self.validation.score(encode or self.encoder.encode)
        self.rows.append({"step": step, "share": share, "ndcg@10": round(score, 5)})
        log.info("step %d, share %.2f: validation nDCG@10 %.4f", step, share, score)
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")


def choose(scores: Scores, trainer: Trainer, base: Weights, vectors: Path) -> dict[str, Any]:
    """The step and share to keep: the last weights, or the best on validation (of equals, the nearer to the base)."""
    last = {"step": trainer.step, "share": 1.0, "ndcg@10": None}
    if scores.validation is None:
        return last
    contract = trainer.contract

    def stored(texts: list[str], side: Any) -> np.ndarray:
        store = VectorStore(vectors, contract, side)
        return scores.encoder.encode(texts, side) if store.missing(texts) else store.gather(texts)

    if all(row["share"] for row in scores.rows):
        trainer.model.load_state_dict(base)
        scores.of(0, 0.0, stored)
    best = max((row for row in scores.rows if row["share"] == 1), key=lambda row: (row["ndcg@10"], -row["step"]))
    tuned = load_file(trainer.states.weights_file(f"step_{best['step']:08d}"))
    for share in SHARES:
        trainer.model.load_state_dict(interpolate(base, tuned, share))
        scores.of(best["step"], share)
    return max(scores.rows, key=lambda row: (row["ndcg@10"], -row["share"]))


def _publish(
    output: Path,
    trainer: Trainer,
    base: Weights,
    base_folder: Path,
    chosen: dict[str, Any],
    scores: Scores,
    facts: dict[str, Any],
) -> dict[str, Any]:
    states, plan = trainer.states, trainer.plan
    weights = base
    if chosen["share"]:
        tuned = load_file(states.weights_file(f"step_{chosen['step']:08d}"))
        weights = interpolate(base, tuned, chosen["share"]) if chosen["share"] < 1 else tuned
    trainer.model.load_state_dict(weights)
    losses = [row["loss"] for row in trainer.rows]
    summary = {
        "examples": facts["examples"],
        "plan": dataclasses.asdict(plan),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "chosen": chosen,
        "base_won": chosen["share"] == 0,
        "validation": scores.rows,
        "validation_questions": len(scores.validation.questions) if scores.validation else 0,
        "options": facts["options"],
    }
    epoch = max(0, chosen["step"] - 1) // plan.steps_per_epoch
    name = f"epoch_{epoch}_step_{chosen['step']}"
    consolidated = states.folder / "consolidated"
    tuned_contract = consolidate(
        trainer.model, base_folder, trainer.contract, consolidated, model_card(trainer.contract, summary, facts)
    )
    state = max(states.folder.glob("state_*.pt"), default=None)
    checkpoints = output / "checkpoints"
    losses_of_step = {"train_loss": trainer.rows[chosen["step"] - 1]["loss"] if chosen["step"] else losses[0]}
    folder = publish(
        checkpoints, name, consolidated=consolidated, state=state, config=facts["options"], losses=losses_of_step
    )
    point_latest(checkpoints, folder)
    states.keep_weights({chosen["step"], trainer.step})
    return {**summary, "checkpoint": name, "weights_sha256": tuned_contract.weights_sha256}


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        result = finetune(
            snakemake.input.train,  # noqa: F821
            snakemake.input.val,  # noqa: F821
            snakemake.input.contract,  # noqa: F821
            snakemake.params.output,  # noqa: F821
            cache=f"{snakemake.config['output_dir']}/cache",  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            device=snakemake.config["vectors"]["device"],  # noqa: F821
            attention=snakemake.config["model"]["attn_implementation"],  # noqa: F821
            code=snakemake.params.code,  # noqa: F821
        )
        write_json(snakemake.output.report, result)  # noqa: F821
