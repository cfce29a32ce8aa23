"""The user's own train.json: taken over as it is, or refused with the line that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.common.passages import read_corpus
from scripts.prep.adopt import adopt, corpus_file

GOOD = {"question_id": "q0", "question": "why?", "pos_doc": [{"id": "d1"}]}
ROWS = [{"id": "d1", "text": "one"}, {"id": "d2", "text": "two"}]


def own(folder: Path, data: Any, rows: list[dict[str, Any]] = ROWS) -> Path:
    """A training file, one example every three lines from the ninth on, and its corpus."""
    from pyarrow import Table, parquet

    (folder / "texts").mkdir(parents=True)
    parquet.write_table(Table.from_pylist(rows), folder / "texts" / "train.parquet")
    body = json.dumps({"corpus": {"path": "./texts/"}, "other": [1], "data": []}, indent=1)
    lines = ",\n".join(json.dumps(item) + "\n\n" for item in data) if isinstance(data, list) else ""
    text = body.replace("[]", f"[\n{lines}]") if isinstance(data, list) else body.replace("[]", json.dumps(data))
    (folder / "own.json").write_text(text)
    return folder / "own.json"


def test_a_sound_file_is_taken_over(tmp_path: Path) -> None:
    data = [
        {**GOOD, "question_id": 0, "neg_doc": ["d2"], "mine": "kept"},
        {"question_id": "q1", "question": "half \ud83d", "pos_doc": ["d1", {"id": "d2", "score": 0.5}, "d1"]},
    ]
    path = own(tmp_path, data)
    assert corpus_file(path) == tmp_path / "texts" / "train.parquet"
    assert adopt(path, tmp_path / "out", "c") == 2
    first, second = json.loads((tmp_path / "out" / "train.json").read_text())["data"]
    assert first == {
        "question_id": "0",
        "question": "why?",
        "corpus_id": "c",
        "pos_doc": [{"id": "d1"}],
        "neg_doc": [{"id": "d2"}],
        "mine": "kept",
    }
    assert second["question"] == "half \ufffd"
    assert second["pos_doc"] == [{"id": "d1"}, {"id": "d2"}]
    assert set(read_corpus(tmp_path / "out" / "corpus")) == {"d1", "d2"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "`data` must be a list of examples, but is NoneType"),
        ([GOOD, 5], r"line 12 \(example 2\): expected an object, found int"),
        ([GOOD, {**GOOD, "question": 5}], r"line 12 \(example 2\): `question` must be text"),
        ([GOOD, {**GOOD, "question_id": None}], r"line 12 \(example 2\): `question_id` is missing"),
        ([GOOD, GOOD], r"line 12 \(example 2\): `question_id` q0 is that of example 1, too"),
        (
            [{**GOOD, "pos_doc": ["d1", "d2"]}, {**GOOD, "question_id": "q0_0"}],
            r"line 12 \(example 2\): `question_id` q0_0 is that of example 1, too .an example of several",
        ),
        ([{**GOOD, "pos_doc": "d1"}], r"line 9 \(example 1\): `pos_doc` must be a list of passages, but is str"),
        ([{**GOOD, "pos_doc": []}], r"line 9 \(example 1\): needs at least one passage in `pos_doc`"),
        ([{**GOOD, "neg_doc": ["d9"]}], r"line 9 \(example 1\): passage d9 is not in the corpus"),
    ],
)
def test_mistakes_are_named_by_line(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        adopt(own(tmp_path, data), tmp_path / "out", "c")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, {"id": "d1", "text": "three"}], "row 3: id d1 is also that of row 1"),
        ([*ROWS, {"id": "d3", "text": None}], "row 3: text is null"),
        ([*ROWS, {"id": None, "text": "three"}], "row 3: id is null"),
        ([{"id": "d1", "text": 3}], "row 1: text is int"),
    ],
)
def test_mistakes_of_the_corpus_are_named_by_row(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adopt(own(tmp_path, [GOOD], rows), tmp_path / "out", "c")


def test_a_file_of_another_form(tmp_path: Path) -> None:
    for text in ("[]", '{"corpus": 3}', '{"corpus": {"path": null}, "data": []}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=r"x\.json is not of the form"):
            adopt(tmp_path / "x.json", tmp_path / "out", "c")
