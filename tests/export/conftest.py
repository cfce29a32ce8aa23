"""A real exported model and a small test set."""

from pathlib import Path

import pytest

from scripts.common.beir import write_beir
from scripts.export.export_onnx import export_onnx

TEXTS = ["heat transfer", "lift of a wing at low speed", "a boundary layer " * 12, "shock waves " * 40]


@pytest.fixture(scope="session")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    passages = [{"_id": f"p{n}", "title": "", "text": text * (n + 1)} for n, text in enumerate(TEXTS)]
    queries = [{"_id": f"q{n}", "text": text[:60]} for n, text in enumerate(TEXTS)]
    write_beir(folder, passages, queries, [(f"q{n}", f"p{n}", 1) for n in range(len(TEXTS))])
    return folder


def exported_from(model: Path, target: Path, **options: object) -> Path:
    values = {"opset": 17, "dtype": "fp32", "attention": "eager", "use_dimensions": True, **options}
    export_onnx(model / "contract.json", target, **values)
    return target


@pytest.fixture(scope="session")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_from(tiny_model, tmp_path_factory.mktemp("export") / "onnx")
