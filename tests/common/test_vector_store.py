"""The store keeps what was written, and computes again only what is damaged or new."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.search import top_k
from scripts.common.vector_store import RECORD, VectorStore

CONTRACT = Contract(
    model="m",
    weights_sha256="0" * 64,
    dimension=4,
    pooling="avg",
    l2_normalize=True,
    query_prefix="",
    passage_prefix="",
    query_max_length=8,
    passage_max_length=8,
)
TEXTS = ["one", "two", "three"]
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    with VectorStore(tmp_path, CONTRACT, "passage").writer() as writer:
        writer.add(TEXTS, ROWS)
    return VectorStore(tmp_path, CONTRACT, "passage")


def test_only_new_texts_are_missing(store: VectorStore) -> None:
    assert store.missing([*TEXTS, "new", "new"]) == ["new"]
    np.testing.assert_array_equal(store.gather(["three", "one"]), ROWS[[2, 0]])


def test_a_damaged_row_is_found_and_replaced(store: VectorStore, tmp_path: Path) -> None:
    file = next(store.folder.glob("*.vec"))
    raw = bytearray(file.read_bytes())
    raw[20] ^= 1
    file.write_bytes(raw)
    again = VectorStore(tmp_path, CONTRACT, "passage")
    assert again.missing(TEXTS) == ["two"]
    with again.writer() as writer:
        writer.add(["two"], ROWS[1:2])
    mended = VectorStore(tmp_path, CONTRACT, "passage")
    assert mended.missing(TEXTS) == []
    np.testing.assert_array_equal(mended.gather(TEXTS), ROWS)


def test_a_damaged_row_is_not_read(store: VectorStore, tmp_path: Path) -> None:
    file = next(store.folder.glob("*.vec"))
    raw = bytearray(file.read_bytes())
    raw[20] ^= 1
    file.write_bytes(raw)
    again = VectorStore(tmp_path, CONTRACT, "passage")
    np.testing.assert_array_equal(again.gather(["three", "one"]), ROWS[[2, 0]])
    for read in (again.gather, lambda texts: again.view(texts)[:]):
        with pytest.raises(UserError, match=r"has a damaged vector of m.*Delete the manifests below vectors/"):
            read(TEXTS)


def test_a_row_is_checked_once(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.gather(TEXTS)
    checked: list[int] = []
    monkeypatch.setattr(store, "_is_sound", lambda *place: bool(checked.append(place[1])) or True)
    store.gather(TEXTS)
    assert not checked


def test_what_was_deleted_is_said(store: VectorStore) -> None:
    for read in (store.gather, store.view):
        with pytest.raises(UserError, match=r"lacks vectors of m\. Were files below cache/ deleted"):
            read(["one", "never"])


def test_a_view_is_read_by_slices(store: VectorStore) -> None:
    view = store.view(["three", "one", "two"])
    assert view.shape == (3, 4)
    np.testing.assert_array_equal(view[1:], ROWS[:2])
    rows, scores = top_k(ROWS, view, 2, corpus_block=1)
    plain = top_k(ROWS, ROWS[[2, 0, 1]], 2)
    np.testing.assert_array_equal(rows, plain[0])
    np.testing.assert_array_equal(scores, plain[1])


@pytest.mark.parametrize("lost", [1, 17, 4 * 4 + 3])
def test_a_torn_end_loses_whole_rows_only(store: VectorStore, tmp_path: Path, lost: int) -> None:
    file = next(store.folder.glob("*.vec"))
    file.write_bytes(file.read_bytes()[:-lost])
    again = VectorStore(tmp_path, CONTRACT, "passage")
    assert again.missing(TEXTS) == TEXTS[3 - (lost + 15) // 16 :]


def test_a_torn_index_loses_its_last_row(store: VectorStore, tmp_path: Path) -> None:
    file = next(store.folder.glob("*.idx"))
    file.write_bytes(file.read_bytes()[: 2 * RECORD.size + 5])
    assert VectorStore(tmp_path, CONTRACT, "passage").missing(TEXTS) == ["three"]


@pytest.mark.parametrize(
    "change",
    [
        {"passage_prefix": "passage:"},
        {"passage_max_length": 9},
        {"pooling": "cls"},
        {"weights_sha256": "1" * 64},
        {"l2_normalize": False},
        {"backend": "onnx"},
    ],
)
def test_what_decides_a_vector_decides_the_key(store: VectorStore, tmp_path: Path, change: dict[str, object]) -> None:
    other = dataclasses.replace(CONTRACT, **change)
    assert VectorStore(tmp_path, other, "passage").missing(TEXTS) == TEXTS


def test_not_a_number_is_refused(store: VectorStore) -> None:
    with store.writer() as writer, pytest.raises(ValueError, match="NaN"):
        writer.add(["x"], np.full((1, 4), np.nan, np.float32))


def test_float16_is_half_as_large_and_float32_asks_for_more(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, CONTRACT, "passage")
    with store.writer("float16") as writer:
        writer.add(TEXTS, ROWS / 12)
    store.refresh()
    assert next(store.folder.glob("*.f16")).stat().st_size == 2 * ROWS.size
    assert store.missing(TEXTS, "float16") == []
    assert store.missing(TEXTS) == []
    np.testing.assert_allclose(store.gather(TEXTS), ROWS / 12, rtol=1e-3)
    assert store.gather(TEXTS).dtype == np.float32
    assert store.missing(TEXTS, "float32") == TEXTS
    with store.writer("float32") as writer:
        writer.add(TEXTS[:1], ROWS[:1] / 12)
    store.refresh()
    assert store.missing(TEXTS, "float32") == TEXTS[1:]
    np.testing.assert_array_equal(store.gather(TEXTS[:1]), ROWS[:1] / 12)


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    with VectorStore(tmp_path, CONTRACT, "passage").writer("float16") as writer, pytest.raises(ValueError, match="NaN"):
        writer.add(["x"], np.full((1, 4), 1e6, np.float32))
