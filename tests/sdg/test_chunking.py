"""Chunks: verbatim, within the limit, headings with their text, blocks whole; documents from hub addresses."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.corpus import fingerprint
from scripts.common.errors import UserError
from scripts.sdg.chunk import make_record, title
from scripts.sdg.documents import Document, decode, fetch_from_hub, parse_hub_uri, read_documents
from scripts.sdg.headings import code_blocks, headings
from scripts.sdg.sentences import chunk_spans, sentence_spans, units

CODE = "```python\n# comment\nfor x in y:\n    print(x)\n\n    done. Really.\n```"
TABLE = "| a | b |\n|---|---|\n| one. Two. | three |\n| four | five |"
GUIDE = f"""# Guide

First sentence here. Second sentence here.

## Setup

Install it now. Then run this:

{CODE}

## Values

{TABLE}

Last words of it.
"""


def texts(source: str, limit: int = 10_000, sentences: int = 5, name: str = "a.md") -> list[str]:
    spans = chunk_spans(source, sentences_per_chunk=sentences, fits=lambda text: len(text) <= limit, name=name)
    return [source[chunk[0][0] : chunk[-1][1]] for chunk in spans]


@pytest.mark.parametrize("sentences", [1, 2, 3, 5])
def test_code_and_tables_stay_whole_and_headings_with_their_text(sentences: int) -> None:
    chunks = texts(GUIDE, sentences=sentences)
    for block in (CODE, TABLE):
        assert sum(block in chunk for chunk in chunks) == 1, chunks
    for heading, following in (
        ("# Guide", "First sentence"),
        ("## Setup", "Install it now."),
        ("## Values", "| a | b |"),
    ):
        holder = next(chunk for chunk in chunks if heading in chunk.splitlines())
        assert following in holder


def test_a_block_over_the_limit_is_cut_at_line_ends() -> None:
    rows = "\n".join(f"| row {n} | value {n} |" for n in range(40))
    chunks = texts(f"| a | b |\n|---|---|\n{rows}\n", limit=120)
    assert all(len(chunk) <= 120 for chunk in chunks)
    assert all(line.startswith("|") and line.endswith("|") for chunk in chunks for line in chunk.splitlines())


def test_plain_text_is_cut_as_before() -> None:
    text = "One is here. Two is here.\n\nThree is here. Four is here."
    assert texts(text, sentences=3, name="a.txt") == ["One is here. Two is here.\n\nThree is here.", "Four is here."]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "# Head\n\n",
                "Title\n=====\n",
                "Words are here. ",
                "```\ncode\n",
                "```\n",
                "| a | b |\n",
                "|---|---|\n",
                "\n\n",
                "x" * 30,
            ]
        ),
        max_size=14,
    ),
    st.integers(1, 4),
    st.integers(12, 60),
)
def test_chunks_hold_all_that_is_visible_in_order_and_within_the_limit(
    parts: list[str], sentences: int, limit: int
) -> None:
    source = "".join(parts)
    chunks = texts(source, limit=limit, sentences=sentences)
    assert "".join("".join(chunks).split()) == "".join(source.split())
    assert all(len(chunk) <= limit for chunk in chunks)
    spans = [unit.span for unit in units(source, "a.md")]
    assert spans == sorted(spans)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Er kam um ca. 8 Uhr. Dann ging er.", 2),
        ("यह एक वाक्य है। यह दूसरा है।", 2),
        ("هل هذا سؤال؟ نعم۔", 2),
        ("これは文です。これもそうです。", 2),
        ("Voir fig. 3 et réf. 2. C'est fini.", 2),
        ("Dr. Smith came at 3 p.m. yesterday. He left.", 2),
    ],
)
def test_sentences_of_many_languages(text: str, count: int) -> None:
    assert len(sentence_spans(text)) == count, [text[slice(*span)] for span in sentence_spans(text)]


def test_chunks_are_verbatim_spans_of_the_record() -> None:
    options = {"sentences_per_chunk": 2, "num_sections": 2, "bundle_strategy": "sequential"}
    record = make_record([Document("g.md", GUIDE), Document("h.md", "Another one. It ends.")], options, lambda _: True)
    for chunk in record["chunks"]:
        assert record["text"][chunk["char_start"] : chunk["char_end"]] == chunk["text"]
    assert {chunk["doc_path"] for chunk in record["chunks"]} == {"g.md", "h.md"}


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("hf://org/data", ("org/data", None, None)),
        ("hf://org/data/", ("org/data", None, None)),
        ("hf://org/data@v1.0", ("org/data", "v1.0", None)),
        ("hf://org/data@abc/sub/dir", ("org/data", "abc", "sub/dir")),
        ("hf://org/data/sub", ("org/data", None, "sub")),
    ],
)
def test_hub_addresses(uri: str, parts: tuple) -> None:
    assert parse_hub_uri(uri) == parts


@pytest.mark.parametrize("uri", ["hf://org", "hf://", "org/data", "hf://org/data/../x", "hf://o r/data", "hf:///data"])
def test_bad_hub_addresses_show_the_form(uri: str) -> None:
    with pytest.raises(UserError, match=r"hf://org/dataset\[@revision\]\[/subfolder\]"):
        parse_hub_uri(uri)


def test_the_hub_gives_only_the_subfolder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = {}

    def snapshot_download(repo: str, **options: object) -> str:
        asked.update(repo=repo, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert fetch_from_hub("hf://org/data@r1/a/b") == tmp_path / "a/b"
    assert asked == {"repo": "org/data", "repo_type": "dataset", "revision": "r1", "allow_patterns": "a/b/**"}


def test_an_unreachable_hub_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="cannot be reached"):
        fetch_from_hub("hf://org/no-such-data-set")


def test_encodings_are_told_and_binary_files_reported(tmp_path: Path) -> None:
    long = "Größe und Maß sind äußerst wichtig für die Prüfung der Geräte. " * 5
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x.txt").write_bytes(long.encode("latin-1"))
    (tmp_path / "b" / "x.txt").write_bytes(long.encode("utf-16"))
    (tmp_path / "b" / "image").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "b" / "short.md").write_text("too short")
    documents, skipped = read_documents(tmp_path, (".txt", ".md", ""), min_length=50, max_bytes=10**6, limit=None)
    assert [document.name for document in documents] == ["a/x.txt", "b/x.txt"]
    assert documents[1].text == long
    assert documents[0].text.startswith("Größe")
    assert {item.name: item.reason for item in skipped} == {
        "b/image": "binary, not text",
        "b/short.md": "shorter than 50 characters",
    }
    assert decode('"é"'.encode()) == ('"é"', "")


def test_a_stray_byte_spoils_no_utf8_and_is_reported(tmp_path: Path) -> None:
    long = "Größe und Maß sind äußerst wichtig für die Prüfung der Geräte. " * 4000
    raw = long.encode()
    assert len(raw) > 200_000
    (tmp_path / "x.txt").write_bytes(raw + b"\xff" + raw)
    (document,), _ = read_documents(tmp_path, (".txt",), min_length=1, max_bytes=10**7, limit=None)
    assert document.text == f"{long}\ufffd{long}"
    assert document.fault.startswith("1 places are not UTF-8")
    assert decode("A \ufffd that was there is no fault.".encode())[1] == ""


def test_utf32_is_not_taken_for_utf16() -> None:
    for encoding in ("utf-32", "utf-16"):
        assert decode("größer".encode(encoding)) == ("größer", "")


def test_what_cannot_be_read_stops_neither_the_fingerprint_nor_the_others(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("A document of some length.")
    (corpus / "gone.txt").symlink_to(tmp_path / "nothing")
    (corpus / "loop.txt").symlink_to(corpus / "loop.txt")
    first = fingerprint(str(corpus), (".txt",), tmp_path / "cache.json")
    documents, skipped = read_documents(corpus, (".txt",), min_length=1, max_bytes=10**6, limit=None)
    assert [document.name for document in documents] == ["a.txt"]
    assert {item.name for item in skipped} == {"gone.txt", "loop.txt"}
    assert fingerprint(str(corpus), (".txt",), tmp_path / "cache.json") == first
    (tmp_path / "nothing").write_text("Here it is.")
    assert fingerprint(str(corpus), (".txt",), tmp_path / "cache.json") != first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Guide\n\nText.", "Guide"),
        ("Guide of it\n===========\nText.", "Guide of it"),
        ("Guide of it\n-----------\n\nText.", "Guide of it"),
        ("===========\nGuide of it\n===========\n\nText.", "Guide of it"),
        ('---\nlayout: page\ntitle: "The guide"\n---\n# Other\n\nText.', "The guide"),
        ("---\nlayout: page\n---\n\n# Guide\n\nText.", "Guide"),
        ("Guide\n\nText.", "Guide"),
        ("A first line that goes on\nin a second one.\n\nText.", ""),
        ("Guide of it\n===========\n", ""),
    ],
)
def test_titles(text: str, expected: str) -> None:
    assert title(text) == expected


def test_fences_in_lists_are_blocks_and_rulers_of_tildes_are_none() -> None:
    fence = "    ```sh\n    # no heading\n    run it. Now.\n    ```"
    listed = f"1. Do this:\n\n{fence}\n\n2. Rest."
    assert [listed[slice(*span)] for span in code_blocks(listed)] == [fence]
    rest = "Title\n~~~~~\n\nSome words.\n\nOther\n~~~~~\n\nMore words.\n"
    assert code_blocks(rest) == []
    assert [heading.text for heading in headings(rest)] == ["Title", "Other"]
    assert len(code_blocks("Run this:\n~~~\ncode\n~~~\n")) == 1
    assert code_blocks("Inline ```code``` here.\n```code``` there.\n") == []
