"""Our training against sentence-transformers' trainer: speed, validation and memory on the same data.

    python -m tests.benchmarks.training speed     # examples a second and validation nDCG@10
    python -m tests.benchmarks.training memory    # peak memory: ours with a batch of 512, theirs with one of 64

Both train all-MiniLM-L6-v2 on docstrings of installed libraries with the same questions, passages, one hard negative
each, batch, lengths, in-batch negatives, temperature, AdamW, rate, float32 and threads.
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.model import OPTIONS

QUERY_LENGTH, PASSAGE_LENGTH, SEED = 64, 256, 7
RATE, TEMPERATURE = 2e-5, 0.05
HELD_OUT = 100
# Question, answering passage, other passage
Pair = tuple[str, str, str]


def pairs(count: int) -> list[Pair]:
    """(first line, rest, another docstring's rest) of ``count`` documented functions, in a seeded order."""
    import random

    import numpy as np
    import sklearn.cluster
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.metrics
    import sklearn.preprocessing
    import torch

    modules = [np, np.linalg, np.random, np.ma, torch, torch.nn, torch.nn.functional, torch.linalg, torch.fft]
    modules += [getattr(sklearn, n) for n in ("cluster", "ensemble", "linear_model", "metrics", "preprocessing")]
    found: dict[str, str] = {}
    for module in modules:
        for name in sorted(dir(module)):
            doc = inspect.getdoc(getattr(module, name, None)) or ""
            first, _, rest = doc.partition("\n")
            if len(rest) > 200 and len(first) > 20:
                found[rest.strip()] = first
    items = sorted((question, passage) for passage, question in found.items())
    random.Random(SEED).shuffle(items)
    assert len(items) >= count, len(items)
    items = items[:count]
    return [(question, passage, items[(n + 17) % count][1]) for n, (question, passage) in enumerate(items)]


def read_pairs(file: str) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs that the first process chose: what is documented depends on what is imported."""
    rows = [tuple(row) for row in json.loads(Path(file).read_text(encoding="utf-8"))]
    return rows[:-HELD_OUT], rows[-HELD_OUT:]


def options(batch: int, local: int) -> dict[str, Any]:
    """Ours."""
    from scripts.common import config

    return {
        **config.defaults()["finetune"],
        "num_epochs": 1,
        "global_batch_size": batch,
        "local_batch_size": local,
        "auto_scale": False,
        "learning_rate": RATE,
        "train_n_passages": 2,
        "in_batch_negatives": True,
        "in_batch_margin": None,
        "temperature": TEMPERATURE,
        "lr_warmup_steps": 1,
        "lr_decay_style": "linear",
        "weight_decay": 0.0,
        "checkpoint_every_steps": 10_000,
        "val_every_steps": 10_000,
    }


def data_of(rows: list[Pair]) -> Any:
    """Training data without documents, so that nothing is masked but copies."""
    from scripts.common.passages import Passage, passage_id
    from scripts.finetune.examples import Example, TrainingData

    passages = {passage_id(text): Passage(text, []) for _, *texts in rows for text in texts}
    examples = [
        Example(question, passage_id(positive), (passage_id(negative),), frozenset({passage_id(positive)}))
        for question, positive, negative in rows
    ]
    return TrainingData(examples, passages)


def contract_of(folder: Path, length: int) -> Any:
    """The contract of MiniLM with these lengths."""
    from scripts.common.contract import Contract
    from scripts.vectors.contract import write_contract

    write_contract(
        {**OPTIONS, "query_max_length": min(QUERY_LENGTH, length), "passage_max_length": length},
        folder / "contract.json",
    )
    return Contract.load(folder / "contract.json")


def validation_score(held_out: list[Pair], contract: Any, model: Any) -> float:
    """Validation nDCG@10 of a transformer's weights, by the same code for both: in a model that was not trained in."""
    from scripts.common.encoder import TorchEncoder, load_model
    from scripts.common.models import resolve_model
    from scripts.finetune.validation import Validation

    folder = resolve_model(contract.model)
    judged = load_model(folder, contract)
    judged.load_state_dict(model.state_dict())
    encoder = TorchEncoder(contract, folder, device="cpu", model=judged)
    validation = Validation.build(data_of(held_out), SEED)
    assert validation is not None
    return float(validation.score(encoder.encode).mean())


def ours(batch: int, length: int, local: int, file: str) -> dict[str, Any]:
    """Train with this project's trainer."""
    from scripts.common.encoder import load_model
    from scripts.common.job import peak_memory_mb
    from scripts.common.models import resolve_model
    from scripts.finetune.examples import Tokens
    from scripts.finetune.schedule import make_plan
    from scripts.finetune.state import StateFolder
    from scripts.finetune.trainer import Trainer
    from scripts.finetune.watch import Watch

    train, held_out = read_pairs(file)
    with tempfile.TemporaryDirectory() as work:
        contract = contract_of(Path(work), length)
        folder = resolve_model(contract.model)
        data, chosen = data_of(train), options(batch, local)
        model = load_model(folder, contract)
        trainer = Trainer(
            model,
            contract,
            Tokens(contract, folder),
            data,
            make_plan(len(train), chosen),
            chosen,
            "cpu",
            StateFolder(work, {}),
            Watch(Path(work)),
        )
        trainer.run(data.examples, lambda _: False)
        seconds = sum(row["time_per_step"] for row in trainer.rows)
        peak = peak_memory_mb()
        padding = sum(row["padding"] for row in trainer.rows) / len(trainer.rows)
        score = validation_score(held_out, contract, model)
    return {"examples_per_s": len(train) / seconds, "peak_mb": peak, "ndcg@10": score, "padding": round(padding, 3)}


def theirs(batch: int, length: int, local: int, file: str) -> dict[str, Any]:
    """Train with SentenceTransformerTrainer and MultipleNegativesRankingLoss; ``local`` must be the batch."""
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import datasets
    import torch
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from scripts.common.job import peak_memory_mb
    from scripts.common.models import resolve_model

    assert local == batch
    train, held_out = read_pairs(file)
    with tempfile.TemporaryDirectory() as work:
        contract = contract_of(Path(work), length)
        model = SentenceTransformer(str(resolve_model(contract.model)), device="cpu")
        model.max_seq_length = length
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=work,
                num_train_epochs=1,
                per_device_train_batch_size=batch,
                learning_rate=RATE,
                warmup_steps=1,
                weight_decay=0.0,
                max_grad_norm=1.0,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                seed=SEED,
                disable_tqdm=True,
                dataloader_drop_last=True,
            ),
            train_dataset=datasets.Dataset.from_dict(
                dict(zip(("anchor", "positive", "negative"), map(list, zip(*train, strict=True)), strict=True))
            ),
            loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
        )
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        peak = peak_memory_mb()
        transformer = next(module for module in model.modules() if type(module).__name__ == "BertModel")
        with torch.no_grad():
            score = validation_score(held_out, contract, transformer)
    return {"examples_per_s": len(train) / seconds, "peak_mb": peak, "ndcg@10": score}


def in_process(which: str, steps: int, batch: int, **arguments: int) -> dict[str, Any]:
    """Run one side in a process of its own, so that neither finds the other's caches or memory."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work, "pairs.json")
        file.write_text(json.dumps(pairs(batch * steps + HELD_OUT)), encoding="utf-8")
        given = json.dumps({"batch": batch, "file": str(file), **arguments})
        command = [sys.executable, "-m", "tests.benchmarks.training", which, given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "ours", "theirs"])
    parser.add_argument("arguments", nargs="?", default="{}")
    parser.add_argument("--steps", type=int, default=6)
    chosen = parser.parse_args()
    if chosen.what in {"ours", "theirs"}:
        side = ours if chosen.what == "ours" else theirs
        print(json.dumps(side(**json.loads(chosen.arguments))))
        return 0
    if chosen.what == "speed":
        sizes = {"batch": 32, "steps": chosen.steps, "length": PASSAGE_LENGTH, "local": 32}
        left, right = in_process("ours", **sizes), in_process("theirs", **sizes)
        ratio = left["examples_per_s"] / right["examples_per_s"]
        print(json.dumps({"ours": left, "theirs": right, "speed ratio": round(ratio, 2)}, indent=2))
        return 0
    left = in_process("ours", batch=512, steps=1, length=128, local=4)
    right = in_process("theirs", batch=64, steps=1, length=128, local=64)
    ratio = left["peak_mb"] / right["peak_mb"]
    print(json.dumps({"ours, batch 512": left, "theirs, batch 64": right, "memory ratio": round(ratio, 2)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
