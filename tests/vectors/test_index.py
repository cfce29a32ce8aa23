"""The index of a corpus: what is found in it, that versions never mix, and a real (local) vector database."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.vector_store import VectorStore
from scripts.vectors.index import open_index, version_of, write_index
from scripts.vectors.qdrant import connect, point_id
from scripts.vectors.reindex import reindex
from tests.eval.conftest import hash_vectors

TEXTS = {f"d_{number}": f"passage about subject{number} and things" for number in range(30)}
OPTIONS = {"database": "qdrant", "collection": "mine", "api_key_env": None}


def contract(weights: str) -> Contract:
    return Contract(
        model=".", weights_sha256=weights, dimension=96, pooling="avg", l2_normalize=True, query_prefix="",
        passage_prefix="", query_max_length=64, passage_max_length=128,
    )  # fmt: skip


def make(root: Path, weights: str, texts: dict[str, str] = TEXTS, factory: str = "Flat") -> Path:
    """An index below ``root`` by a model of these weights."""
    model = contract(weights)
    with VectorStore(root / "store", model, "passage").writer() as writer:
        writer.add(list(texts.values()), hash_vectors(list(texts.values()), seed=len(weights)))
    model.save(root / f"{weights}.json")
    parquet.write_table(pa.table({"id": list(texts), "text": list(texts.values())}), root / "corpus.parquet")
    names = {"vectors": "vectors.parquet", "faiss": "corpus.faiss", "facts": "index.json"}
    folder = root / f"index-{weights}-{len(texts)}"
    write_index(
        root / "corpus.parquet", root / f"{weights}.json", {kind: folder / name for kind, name in names.items()},
        store=root / "store", factory=factory,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF2,Flat"])
def test_the_index_finds_a_passage_by_its_own_vector(tmp_path: Path, factory: str) -> None:
    folder = make(tmp_path, "one", factory=factory)
    index, ids = open_index(folder, contract("one"))
    scores, rows = index.search(hash_vectors([TEXTS["d_7"]], seed=3), 1)
    assert ids[rows[0, 0]] == "d_7"
    assert scores[0, 0] == pytest.approx(1, abs=1e-5)
    table = parquet.read_table(folder / "vectors.parquet")
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy())[7], hash_vectors([TEXTS["d_7"]], seed=3)[0])
    assert table.schema.metadata[b"embed-recipe.version"].decode() == version_of(contract("one"))


def test_queries_of_another_model_and_files_of_two_runs_are_refused(tmp_path: Path) -> None:
    one, two = make(tmp_path, "one"), make(tmp_path, "other")
    with pytest.raises(UserError, match="do not go together"):
        open_index(one, contract("other"))
    (one / "vectors.parquet").write_bytes((two / "vectors.parquet").read_bytes())
    with pytest.raises(UserError, match=" and "):
        open_index(one, contract("one"))
    (two / "corpus.faiss").write_bytes(
        (make(tmp_path, "third", dict(list(TEXTS.items())[:3])) / "corpus.faiss").read_bytes()
    )
    with pytest.raises(UserError, match="different runs"):
        open_index(two, contract("other"))


def test_a_graph_of_the_model_goes_with_its_index_and_another_models_does_not(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    served = dataclasses.replace(contract("graph"), backend="onnx", source_sha256="one")
    assert open_index(folder, served)[0].ntotal == 30
    for stranger in (
        dataclasses.replace(served, source_sha256="other"),
        dataclasses.replace(served, passage_prefix="p:"),
        dataclasses.replace(served, source_sha256=None),
    ):
        with pytest.raises(UserError, match="do not go together"):
            open_index(folder, stranger)


def test_an_unknown_factory_and_missing_vectors_end_clearly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="faiss_factory"):
        make(tmp_path, "one", factory="Nonsense")
    with pytest.raises(UserError, match=r"faiss_factory is IVF64,Flat.* 30 passages"):
        make(tmp_path, "one", factory="IVF64,Flat")
    targets = {kind: tmp_path / kind for kind in ("vectors", "faiss", "facts")}
    contract("none").save(tmp_path / "none.json")
    with pytest.raises(UserError, match="lacks vectors"):
        write_index(tmp_path / "corpus.parquet", tmp_path / "none.json", targets, store=tmp_path, factory="Flat")
    assert not (tmp_path / "facts").exists()


def database(tmp_path: Path) -> dict[str, str | None]:
    return {**OPTIONS, "url": str(tmp_path / "qdrant")}


def found(options: dict, vector: np.ndarray) -> str:
    client = connect(options, [])
    try:
        return client.query_points("mine", query=vector.tolist(), limit=1).points[0].payload["id"]
    finally:
        client.close()


def test_a_new_version_gets_a_collection_of_its_own_and_the_alias_moves(tmp_path: Path) -> None:
    options = database(tmp_path)
    first = reindex(make(tmp_path, "one"), options=options, allowed=[])
    assert first["passages"] == 30
    assert found(options, hash_vectors([TEXTS["d_3"]], seed=3)[0]) == "d_3"
    # again, with fewer passages: what the corpus no longer has goes
    fewer = dict(list(TEXTS.items())[:20])
    assert reindex(make(tmp_path, "one", fewer), options=options, allowed=[])["passages"] == 20
    second = reindex(make(tmp_path, "other"), options=options, allowed=[])
    assert second["former"] == first["collection"] != second["collection"]
    assert found(options, hash_vectors([TEXTS["d_25"]], seed=5)[0]) == "d_25"
    client = connect(options, [])
    assert client.count(first["collection"]).count == 20
    client.close()


def test_a_collection_with_another_version_or_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    from qdrant_client import models

    options, folder = database(tmp_path), make(tmp_path, "one")
    name = reindex(folder, options=options, allowed=[])["collection"]
    client = connect(options, [])
    stranger = models.PointStruct(id=point_id("x"), vector=[0.1] * 96, payload={"id": "x", "version": "another"})
    client.upsert(name, [stranger])
    client.create_collection("taken", vectors_config=models.VectorParams(size=96, distance=models.Distance.DOT))
    client.close()
    with pytest.raises(UserError, match="1 passages of another version"):
        reindex(folder, options=options, allowed=[])
    with pytest.raises(UserError, match="did not make"):
        reindex(folder, options={**options, "collection": "taken"}, allowed=[])


def test_without_a_database_the_files_are_all(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    assert reindex(folder, options={**OPTIONS, "database": None, "url": ""}, allowed=[]) is None
    assert json.loads((folder / "index.json").read_text())["version"] == version_of(contract("one"))
    assert version_of(contract("one")) != version_of(dataclasses.replace(contract("one"), passage_prefix="p:"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://db.example:6333", "allow_egress"),
        ("http://u:p@localhost", "password"),
        ("http://127.0.0.1:9", "answers"),
    ],
)
def test_databases_that_cannot_or_may_not_be_reached(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        reindex(make(tmp_path, "one"), options={**OPTIONS, "url": url}, allowed=[])
