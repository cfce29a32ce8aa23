"""Vectors once: only what is new is encoded, a kill loses one batch, and what is damaged is made again."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.common.contract import Contract
from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.common.onnx_variants import cosines
from scripts.common.vector_store import VectorStore
from scripts.vectors.embed import embed
from scripts.vectors.graph import graph_contract
from scripts.vectors.texts import read_texts

ROOT = Path(__file__).parents[2]
# Encodes with an ONNX graph (which starts fast) and says after each batch how many rows are on disk
SLOW_EMBED = """
import sys, time
from scripts.common import encoder, vector_store
from scripts.vectors.embed import embed
from scripts.vectors.texts import read_texts

written, add = 0, vector_store.StoreWriter.add
def slow_add(self, texts, vectors):
    global written
    add(self, texts, vectors)
    written += len(texts)
    print(written, flush=True)
    time.sleep(0.02)
vector_store.StoreWriter.add = slow_add
encoder.CPU_TOKEN_BUDGET = 256
embed(read_texts([sys.argv[1]]), "passage", sys.argv[2], sys.argv[3], store_root=sys.argv[4], device="cpu",
      token_budget=256)
"""


def write_chunks(path: Path, documents: int, changed: int | None = None) -> None:
    rows = [
        {"chunks": [{"text": f"chunk {part} of document {n}{' changed' * (n == changed)}"} for part in range(2)]}
        for n in range(documents)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(contract: Path, texts: list[str], folder: Path, dtype: str = "float32") -> int:
    target = folder / "m.json"
    return embed(
        texts, "passage", contract, target, store_root=folder / "v", device="cpu", token_budget=512, dtype=dtype
    )


@pytest.fixture(scope="module")
def graph(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    graph_contract(tiny_model / "contract.json", folder / "onnx.json", backend="onnx", cache=folder / "cache")
    return folder / "onnx.json"


def test_one_changed_document_of_a_thousand_encodes_its_chunks_alone(graph: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    write_chunks(records, 1000)
    assert run(graph, read_texts([records]), tmp_path) == 2000
    first = (tmp_path / "m.json").read_text()
    assert run(graph, read_texts([records]), tmp_path) == 0
    assert (tmp_path / "m.json").read_text() == first
    write_chunks(records, 1000, changed=500)
    assert run(graph, read_texts([records]), tmp_path) == 2
    assert (tmp_path / "m.json").read_text() != first


def test_texts_that_occur_twice_are_encoded_once(graph: Path, tmp_path: Path) -> None:
    assert run(graph, ["a", "b", "a", "b", "a"], tmp_path) == 2


def test_a_kill_loses_at_most_one_batch(graph: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    write_chunks(records, 450)
    command = [sys.executable, "-c", SLOW_EMBED, records, graph, tmp_path / "m.json", tmp_path / "v"]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = int(line)
            if said >= 300:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "m.json").exists()
    texts = read_texts([records])
    store = VectorStore(tmp_path / "v", Contract.load(graph), "passage")
    known = len(texts) - len(store.missing(texts))
    assert 300 <= said <= known < 900, "every batch that was reported is there"
    assert run(graph, texts, tmp_path) == 900 - known
    whole = VectorStore(tmp_path / "v", Contract.load(graph), "passage").gather(texts)
    np.testing.assert_allclose(whole, open_encoder(graph).encode(texts, "passage"), atol=1e-5)


def test_damage_is_found_and_made_again(graph: Path, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(40)]
    run(graph, texts, tmp_path)
    contract = Contract.load(graph)
    before = VectorStore(tmp_path / "v", contract, "passage").gather(texts)
    file = next((tmp_path / "v").glob("*/*.vec"))
    raw = bytearray(file.read_bytes())
    for row in (3, 17):
        raw[row * 4 * contract.dimension + 5] ^= 0x40
    file.write_bytes(raw)
    assert run(graph, texts, tmp_path) == 2
    np.testing.assert_allclose(VectorStore(tmp_path / "v", contract, "passage").gather(texts), before, atol=1e-6)
    file.unlink()
    assert run(graph, texts, tmp_path) == 38, "the two rows made again are in a file of their own"


def test_half_precision_store_is_near(graph: Path, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(40)]
    assert run(graph, texts, tmp_path, "float16") == 40
    contract = Contract.load(graph)
    half = VectorStore(tmp_path / "v", contract, "passage").gather(texts)
    whole = open_encoder(graph).encode(texts, "passage")
    assert cosines(half, whole).min() > 0.99999
    assert json.loads((tmp_path / "m.json").read_text())["dtype"] == "float16"
    assert run(graph, texts, tmp_path, "float32") == 40
    np.testing.assert_allclose(VectorStore(tmp_path / "v", contract, "passage").gather(texts), whole, atol=1e-6)


def test_a_model_that_gives_no_numbers_is_named(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.common.onnx_encoder import OnnxEncoder

    def broken(_self: OnnxEncoder, ids: np.ndarray, _mask: np.ndarray) -> np.ndarray:
        return np.full((len(ids), 384), np.nan, np.float32)

    monkeypatch.setattr(OnnxEncoder, "forward", broken)
    with pytest.raises(UserError, match="NaN or infinite values; first text: 'x'"):
        run(graph, ["x"], tmp_path)
