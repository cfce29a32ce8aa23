"""ONNX back ends of the encoder: nearly PyTorch's vectors, a key of their own, and a graph that is made once."""

from pathlib import Path

import numpy as np
import pytest

from scripts.common.contract import Contract
from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.common.onnx_variants import cosines
from scripts.vectors.graph import graph_contract

TEXTS = ["heat", "what is the lift of a wing at low speed", "a boundary layer " * 12, "shock waves in air " * 60]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.parametrize(("backend", "least"), [("onnx", 0.99999), ("onnx_int8", 0.98)])
def test_vectors_are_near_and_have_their_own_key(
    tiny_model: Path, cache: Path, tmp_path: Path, backend: str, least: float
) -> None:
    before = sorted(path.name for path in tiny_model.iterdir())
    target = tmp_path / "vectors" / f"{backend}.json"
    graph_contract(tiny_model / "contract.json", target, backend=backend, cache=cache)
    torch, onnx = open_encoder(tiny_model / "contract.json", device="cpu"), open_encoder(target)
    for side in ("query", "passage"):
        found = cosines(onnx.encode(TEXTS, side), torch.encode(TEXTS, side))
        assert found.min() >= least
        assert onnx.contract.key(side) != torch.contract.key(side)
    assert sorted(path.name for path in tiny_model.iterdir()) == before, "nothing is written beside a checkpoint"


def test_a_graph_is_made_once_and_again_when_damaged(tiny_model: Path, cache: Path, tmp_path: Path) -> None:
    first = graph_contract(tiny_model / "contract.json", tmp_path / "a.json", backend="onnx", cache=cache)
    graph = next(cache.glob("*/model.onnx"))
    stamps = {path: path.stat().st_mtime_ns for path in cache.glob("*/model.onnx")}
    assert graph_contract(tiny_model / "contract.json", tmp_path / "a.json", backend="onnx", cache=cache) == first
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*/model.onnx")} == stamps
    for graph in stamps:
        raw = bytearray(graph.read_bytes())
        raw[len(raw) // 2] ^= 1
        graph.write_bytes(raw)
    again = graph_contract(tiny_model / "contract.json", tmp_path / "a.json", backend="onnx", cache=cache)
    # the same key: vectors that are there stay valid
    assert again.key("passage") == first.key("passage")
    assert np.isfinite(open_encoder(tmp_path / "a.json").encode(["x"], "query")).all()


def test_a_lost_cache_is_explained(tiny_model: Path, tmp_path: Path) -> None:
    graph_contract(tiny_model / "contract.json", tmp_path / "a.json", backend="onnx", cache=tmp_path / "cache")
    next((tmp_path / "cache").iterdir()).rename(tmp_path / "gone")
    with pytest.raises(UserError, match="was the cache deleted"):
        open_encoder(tmp_path / "a.json")


def test_only_checkpoints_are_converted(tiny_model: Path, cache: Path, tmp_path: Path) -> None:
    made = graph_contract(tiny_model / "contract.json", tmp_path / "a.json", backend="onnx", cache=cache)
    assert made.backend == "onnx"
    assert Contract.load(tmp_path / "a.json") == made
    with pytest.raises(UserError, match="not a PyTorch model"):
        graph_contract(tmp_path / "a.json", tmp_path / "b.json", backend="onnx", cache=cache)
