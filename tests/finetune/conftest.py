"""Stage 1's files of real texts, and the stage run on them with a one-layer model."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common import config
from scripts.common.files import write_json
from scripts.common.passages import collect, write_corpus

TRAIN, VAL = 64, 24
OPTIONS = {
    **config.defaults()["finetune"],
    "num_epochs": 2,
    "global_batch_size": 16,
    "local_batch_size": 16,
    "auto_scale": False,
    "learning_rate": 1e-4,
    "lr_warmup_steps": 2,
    "train_n_passages": 2,
    "in_batch_negatives": True,
    "temperature": 0.05,
    "checkpoint_every_steps": 3,
    "val_every_steps": 4,
    "select": "validation",
    "interpolation_shares": [0.5],
}


@pytest.fixture(scope="session")
def texts() -> list[tuple[str, str]]:
    """(question, passage) of documented functions of an installed library."""
    import inspect

    import sklearn.cluster
    import sklearn.datasets
    import sklearn.decomposition
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.metrics
    import sklearn.preprocessing

    modules = (
        sklearn.cluster, sklearn.datasets, sklearn.decomposition, sklearn.ensemble, sklearn.linear_model,
        sklearn.metrics, sklearn.preprocessing,
    )  # fmt: skip
    found: dict[str, str] = {}
    for module in modules:
        for name in sorted(module.__all__):
            first, _, rest = (inspect.getdoc(getattr(module, name)) or "").partition("\n")
            if len(rest) > 300:
                found[first] = " ".join(rest.split())[:500]
    pairs = sorted({passage: question for question, passage in found.items()}.items())
    pairs = sorted((question, passage) for passage, question in pairs)
    assert len(pairs) >= TRAIN + VAL
    return pairs[: TRAIN + VAL]


def write_stage1(folder: Path, pairs: list[tuple[str, str]], *, shift: int = 0) -> Path:
    """``train.json`` (unrolled) and ``val.json``; ``shift`` gives each training question another one's passage."""
    passages = collect((passage, f"doc{number}") for number, (_, passage) in enumerate(pairs))
    names = list(passages)
    write_corpus(folder / "corpus", passages, "test")

    def rows(start: int, stop: int, moved: int) -> dict[str, Any]:
        size = stop - start
        data = [
            {
                "question_id": f"q{number}",
                "question": pairs[number][0],
                "corpus_id": "test",
                "pos_doc": [{"id": names[start + (number - start + moved) % size]}],
                "neg_doc": [{"id": names[start + (number - start + moved + step) % size]} for step in (7, 13, 19)],
            }
            for number in range(start, stop)
        ]
        return {"corpus": {"path": "./corpus/"}, "data": data}

    write_json(folder / "train.json", rows(0, TRAIN, shift))
    write_json(folder / "val.json", rows(TRAIN, TRAIN + VAL, 0))
    return folder


@pytest.fixture(scope="session")
def stage1(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    """Sound training data."""
    return write_stage1(tmp_path_factory.mktemp("stage1"), texts)


def arguments(stage1: Path, model: Path, work: Path, **options: Any) -> dict[str, Any]:
    """Arguments of :func:`scripts.finetune.finetune.finetune`, fit for JSON."""
    return {
        "train_file": str(stage1 / "train.json"),
        "val_file": str(stage1 / "val.json"),
        "contract_file": str(model / "contract.json"),
        "output": str(work / "output"),
        "cache": str(work / "cache"),
        "options": {**OPTIONS, **options},
        "device": "cpu",
        "attention": None,
        "code": "test",
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
