"""Fused, half precision and int8 graphs: the same inputs, nearly the same vectors, and smaller or simpler files."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts.common import onnx_variants
from scripts.common.encoder import open_encoder, pad
from scripts.common.errors import UserError
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import (
    cosine_facts,
    cosines,
    fuse,
    quantize_dynamic,
    quantize_static,
    size_on_disk,
    to_half,
)
from scripts.export.export_onnx import export_onnx

TEXTS = [
    "heat transfer",
    "what is the lift of a wing at low speed",
    "a boundary layer " * 12,
    "shock waves in air " * 20,
]


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants") / "onnx"
    export_onnx(tiny_model / "contract.json", folder, opset=17, dtype="fp32", attention="eager", use_dimensions=True)
    return folder


@pytest.fixture(scope="module")
def fused(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # not beside the export: its contract covers every graph there
    target = tmp_path_factory.mktemp("fused") / "fused.onnx"
    found = fuse(exported / "model.onnx", target)
    assert found["Attention"] == 1
    assert found["SkipLayerNormalization"] == 2
    return target


def run(graph: Path, exported: Path, tmp_path: Path, dimensions: np.ndarray | None = None) -> np.ndarray:
    """Vectors of TEXTS by another graph in the exported folder's place."""
    encoder = open_encoder(exported / "contract.json")
    shutil.copyfile(graph, tmp_path / "model.onnx")
    shutil.copyfile(exported / "tokenizer.json", tmp_path / "tokenizer.json")
    other = OnnxEncoder(encoder.contract, tmp_path)
    return other.forward(*pad(other.tokenize(TEXTS, "passage")), dimensions)


def test_fused_graph_gives_the_same_vectors_also_when_rows_are_cut(exported: Path, fused: Path, tmp_path: Path) -> None:
    sizes = np.array([384, 128, 64, 16])
    reference = run(exported / "model.onnx", exported, tmp_path, sizes)
    vectors = run(fused, exported, tmp_path, sizes)
    np.testing.assert_allclose(vectors, reference, atol=2e-5)
    assert [np.count_nonzero(row) for row in vectors] == sizes.tolist()


def test_half_is_half_as_large_and_near(exported: Path, fused: Path, tmp_path: Path) -> None:
    to_half(fused, tmp_path / "half.onnx")
    assert size_on_disk(tmp_path / "half.onnx") < 0.6 * size_on_disk(fused)
    reference, vectors = (
        run(exported / "model.onnx", exported, tmp_path),
        run(tmp_path / "half.onnx", exported, tmp_path),
    )
    assert vectors.dtype == np.float32
    assert cosines(vectors, reference).min() > 0.999


@pytest.mark.parametrize("reduce_range", [False, True])
def test_dynamic_int8_is_small_and_near(exported: Path, fused: Path, tmp_path: Path, reduce_range: bool) -> None:
    quantize_dynamic(fused, tmp_path / "int8.onnx", reduce_range=reduce_range)
    assert size_on_disk(tmp_path / "int8.onnx") < 0.35 * size_on_disk(fused)
    reference, vectors = (
        run(exported / "model.onnx", exported, tmp_path),
        run(tmp_path / "int8.onnx", exported, tmp_path),
    )
    found = cosines(vectors, reference)
    assert 0.98 < found.min() < 1 - 1e-7, "int8 that changes nothing is no int8"


def test_static_int8_is_calibrated_and_near(exported: Path, fused: Path, tmp_path: Path) -> None:
    encoder = open_encoder(exported / "contract.json")
    batch = pad(encoder.tokenize(TEXTS, "passage"))
    quantize_static(fused, tmp_path / "int8.onnx", [batch])
    reference, vectors = (
        run(exported / "model.onnx", exported, tmp_path),
        run(tmp_path / "int8.onnx", exported, tmp_path),
    )
    assert 0.9 < cosines(vectors, reference).min() < 1 - 1e-7


def test_static_int8_without_texts_says_so(fused: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs texts"):
        quantize_static(fused, tmp_path / "int8.onnx", [])


def test_weights_beyond_the_limit_go_into_a_file_beside_the_graph(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnx_variants, "PROTOBUF_LIMIT", 1_000_000)
    fuse(exported / "model.onnx", tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx").stat().st_size < 1_000_000 < (tmp_path / "large.onnx.data").stat().st_size
    onnxruntime.InferenceSession(str(tmp_path / "large.onnx"), providers=["CPUExecutionProvider"])


def test_cosine_of_a_row_without_length_or_with_nan_is_the_worst() -> None:
    one = np.array([[1.0, 0], [0, 0], [np.nan, 1]])
    assert cosines(one, np.array([[2.0, 0], [1, 0], [1, 1]])).tolist() == [1, -1, -1]
    assert cosine_facts(np.array([1.0, 0.5]))["min"] == 0.5
