"""Duplicates among documents, and chunks of the user's own."""

import json
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.sdg.duplicates import exact_duplicates, near_duplicates
from scripts.sdg.own_chunks import read_own_chunks
from tests.sdg.conftest import document

OPTIONS = {"num_sections": 1}
LONG = " ".join(document(n).text for n in range(8))


def test_duplicates_are_grouped_and_others_are_not() -> None:
    texts = {
        "a": LONG,
        "other": " ".join(document(n).text for n in range(50, 58)),
        "copy": LONG.replace(" ", "\n"),
        "edited": LONG.replace("journey", "trip", 1),
    }
    assert exact_duplicates(texts) == [["a", "copy"]]
    assert near_duplicates(texts, 0.8) == [["a", "copy", "edited"]]
    assert near_duplicates({"x": "short", "y": "words"}, 0.8) == []


def test_own_chunks_are_kept_verbatim_by_document(tmp_path: Path) -> None:
    rows = [
        {"text": "First chunk.\nTwo lines.", "document": "b.html", "title": "B"},
        {"page_content": "Of a.", "metadata": {"source": "a.html"}},
        {"text": "Second chunk.", "document": "b.html"},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = read_own_chunks(tmp_path / "c.jsonl", OPTIONS)
    assert [record["source_id"] for record in made] == ["a.html", "b.html"]
    assert [chunk["text"] for chunk in made[1]["chunks"]] == ["First chunk.\nTwo lines.", "Second chunk."]
    assert made[1]["title"] == "B"
    for record in made:
        for chunk in record["chunks"]:
            assert record["text"][chunk["char_start"] : chunk["char_end"]] == chunk["text"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "x"}\n{"words": "y"}', "line 2: no chunk under"),
        ("[1]", "line 1: expected an object"),
        ("", "is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        read_own_chunks(tmp_path / "c.jsonl", OPTIONS)
