"""Duplicates among documents, and chunks of the user's own."""

import json
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.replies import ReplyStore
from scripts.sdg.bundles import neighbours
from scripts.sdg.chunk import make_record
from scripts.sdg.documents import Document
from scripts.sdg.duplicates import exact_duplicates, near_duplicates
from scripts.sdg.llm_free import llm_free_pairs
from scripts.sdg.own_chunks import read_own_chunks
from scripts.sdg.sampling import shard_of
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


@pytest.mark.parametrize(("size", "largest"), [(2, 3), (4, 8)])
def test_a_document_that_is_added_changes_few_bundles(size: int, largest: int) -> None:
    names = [f"doc_{number:04}.txt" for number in range(0, 1200, 2)]
    before = neighbours(names, size, largest)
    assert [name for bundle in before for name in bundle] == names
    assert all(size <= len(bundle) <= largest for bundle in before[:-1])
    assert len(before[-1]) <= largest
    known = set(map(tuple, before))
    changed = []
    for number in range(1, 400, 20):
        after = neighbours(sorted([*names, f"doc_{number:04}.txt"]), size, largest)
        changed.append(sum(tuple(bundle) not in known for bundle in after))
    assert sum(changed) / len(changed) < 0.06 * len(before), changed


def test_bundles_of_an_exact_size() -> None:
    names = [str(number) for number in range(7)]
    assert neighbours(names, 3, 3) == [names[:3], names[3:6], names[6:]]


def test_names_and_chunks_that_are_no_utf8_go_through(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "cut \\ud83d", "document": "b\\udce9", "title": "t\\ud83d"}')
    (own,) = read_own_chunks(tmp_path / "c.jsonl", OPTIONS)
    assert (own["chunks"][0]["text"], own["source_id"], own["title"]) == ("cut ?", "b?", "t?")
    options = {"sentences_per_chunk": 2, "num_sections": 1, "bundle_strategy": "sequential"}
    named = [Document(f"caf\udce9{n}.txt", document(n).text) for n in range(2)]
    record = make_record(named[:1], options, lambda text: len(text) < 1000)
    assert record["source_id"] == "caf\udce90.txt"
    assert shard_of(record["source_id"], 4) in range(4)
    assert isinstance(llm_free_pairs(record, 2), list)
    bundle = make_record(named, options, lambda text: len(text) < 1000)
    assert len(bundle["bundle_id"]) == 16
    # what goes to an endpoint is text
    assert "\n".join(bundle["sections_structured"]).encode()
    assert ReplyStore.key({"messages": "\ud83d"})


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
