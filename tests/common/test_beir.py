"""Test sets: every mistake is named with file, line and id; what is written is read again."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.beir import read_beir, write_beir
from scripts.common.errors import UserError

CORPUS = '{"_id": "d1", "title": "Wings", "text": "thin ones"}\n{"_id": "d2", "text": "heat"}\n'
QUERIES = '{"_id": "q1", "text": "wing", "metadata": {"hop_count": 1}}\n{"_id": "q2", "text": "heat?"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\n"


def make(folder: Path, corpus: str = CORPUS, queries: str = QUERIES, qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_titles_stand_in_front_and_metadata_is_kept(tmp_path: Path) -> None:
    found = read_beir(make(tmp_path / "x"))
    assert found.corpus == {"d1": "Wings thin ones", "d2": "heat"}
    assert found.qrels == {"q1": {"d1": 1}, "q2": {"d2": 2}}
    assert found.metadata["q1"] == {"hop_count": 1}


def test_queries_without_a_relevant_passage_are_left_out(tmp_path: Path) -> None:
    found = read_beir(make(tmp_path / "x", qrels="query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n"))
    assert list(found.queries) == ["q1"]


HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("qrels", HEADER + "q1\td1\t1\nq9\td1\t1\n", r"test\.tsv, line 3: query q9 is not in the collection"),
        ("qrels", HEADER + "q1\td9\t1\n", r"test\.tsv, line 2: passage d9 is not in the collection"),
        ("qrels", HEADER + "q1\td1\t1\nq1\td1\t1\n", r"line 3: query q1 and passage d1 are judged twice"),
        ("qrels", HEADER + "q1\td1\n", r"line 2: expected query-id, corpus-id and a whole score"),
        ("qrels", HEADER + "q1\td1\t0.5\n", r"line 2: expected .* whole score"),
        ("qrels", HEADER, "no query has a relevant passage"),
        ("qrels", HEADER + "q1\td1\t0\nq2\td2\t-1\n", "no query has a relevant passage"),
        ("queries", '{"_id": "q1", "text": "  "}\n', r"queries\.jsonl, line 1: query q1 is empty"),
        ("queries", QUERIES + '{"_id": "q1", "text": "again"}\n', r"line 3: id q1 stands there twice"),
        ("queries", '{"_id": "q1"}\n', "a row needs _id and text"),
        ("queries", '{"_id": "q1", "text": 7}\n', "a row needs _id and text"),
        ("corpus", CORPUS + '{"_id": "d1", "text": "again"}\n', r"corpus\.jsonl, line 3: id d1 stands there twice"),
        ("corpus", CORPUS + "{broken\n", r"corpus\.jsonl, line 3"),
        ("corpus", "[1]\n", "a row needs _id and text"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, part: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_beir(make(tmp_path / "x", **{part: text}))


@pytest.mark.parametrize("part", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, part: str) -> None:
    folder = make(tmp_path / "x")
    (folder / part).unlink()
    with pytest.raises(UserError, match=part.rsplit("/", 1)[-1].replace(".", r"\.")):
        read_beir(folder)
    with pytest.raises(UserError, match="BEIR layout"):
        read_beir(tmp_path / "nowhere")


NAME = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=8)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(NAME, TEXT, min_size=1, max_size=6),
    st.dictionaries(NAME, TEXT, min_size=1, max_size=6),
    st.data(),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, str], queries: dict[str, str], data: st.DataObject
) -> None:
    judged = {query: data.draw(st.sampled_from(sorted(corpus))) for query in queries}
    folder = tmp_path_factory.mktemp("written")
    write_beir(
        folder,
        ({"_id": name, "title": "", "text": text} for name, text in corpus.items()),
        ({"_id": name, "text": text, "metadata": {}} for name, text in queries.items()),
        ((query, passage, 1) for query, passage in judged.items()),
    )
    found = read_beir(folder)
    assert found.corpus == {name: text.strip() for name, text in corpus.items()}
    assert found.queries == {name: text.strip() for name, text in queries.items()}
    assert found.qrels == {query: {passage: 1} for query, passage in judged.items()}
