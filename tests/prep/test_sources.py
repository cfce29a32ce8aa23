"""Every way in: what each adapter reads, and that each says which line of which file is wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.common.passages import passage_id
from scripts.prep.convert import convert
from scripts.prep.sources import read_records, source_files
from tests.prep.test_split import record

PAIRS = [("what is lift", "Lift is a force."), ("what is drag", "Drag, too,\nis a force.")]
RECORDS = [record("a.txt", ["one", "two"], [("first?", [1])]), record("b.txt", ["three"], [("second?", [1])])]


def pairs_of(source: str | Path) -> set[tuple[str, tuple[str, ...]]]:
    """Questions with their answers, as conversion sees them."""
    passages, examples, left_out = convert(read_records(source), quality_threshold=7)
    assert not left_out
    return {(example.question, tuple(passages[name].text for name in example.positives)) for example in examples}


OWN = {(question, (passage,)) for question, passage in PAIRS}
NAMES = [("question", "passage"), ("anchor", "positive"), ("query", "answer")]
GENERATED = {("first?", ("one",)), ("second?", ("three",))}


def rows(question: str, passage: str) -> list[dict[str, Any]]:
    return [{question: one, passage: other} for one, other in PAIRS]


def write(path: Path, value: Any) -> Path:
    from pyarrow import Table, parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(Table.from_pylist(value), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in value))
    elif path.suffix in {".csv", ".tsv"}:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, value[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(value)
    else:
        path.write_text(json.dumps(value, indent=2))
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_generated_records_of_both_generations(tmp_path: Path, suffix: str) -> None:
    assert pairs_of(write(tmp_path / f"x{suffix}", RECORDS)) == GENERATED
    # a folder, as the second generation writes it
    assert pairs_of(tmp_path) == GENERATED


def test_parquet_with_json_text_in_its_columns(tmp_path: Path) -> None:
    texts = [
        {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
        for row in RECORDS
    ]
    assert pairs_of(write(tmp_path / "x.parquet", texts)) == GENERATED


def test_batches_of_the_first_generation(tmp_path: Path) -> None:
    for number, row in enumerate(RECORDS):
        write(tmp_path / f"generated_batch{number}_{number}_{number + 1}.json", [row])
    (tmp_path / "notes.json").write_text('{"not": "a record"}')
    assert pairs_of(tmp_path) == GENERATED


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("".join(json.dumps(row) + "\n" for row in RECORDS))
    assert pairs_of(tmp_path / "x.json") == GENERATED


def test_manifest(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "x.jsonl", RECORDS)
    manifest = tmp_path / "generation_result.json"
    manifest.write_text(json.dumps({"schema_version": 1, "dataset_name": "x", "output_path": "deep/x.jsonl"}))
    assert pairs_of(manifest) == pairs_of(tmp_path) == GENERATED
    manifest.write_text(json.dumps({"schema_version": 1, "dataset_name": "x", "output_path": "gone.jsonl"}))
    with pytest.raises(UserError, match="does not exist"):
        read_records(manifest)
    manifest.write_text(json.dumps({"schema_version": 2}))
    with pytest.raises(UserError, match="Unsupported generation manifest schema"):
        read_records(manifest)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("question", "passage"), [("question", "passage"), ("anchor", "positive"), ("query", "answer")]
)
def test_own_pairs_whatever_their_columns(tmp_path: Path, suffix: str, question: str, passage: str) -> None:
    assert pairs_of(write(tmp_path / f"x{suffix}", rows(question, passage))) == OWN


def test_scores_and_segments_as_others_write_them(tmp_path: Path) -> None:
    value = json.loads(json.dumps(RECORDS))
    value[0]["deduplicated_qa_pairs"][0] |= {"segment_ids": ["1"], "passage": "no cut of the workflow's"}
    value[0]["qa_evaluations"] = [{"overall": 8.5}]
    value[1]["chunks"][0]["chunk_id"] = 1.0
    assert pairs_of(write(tmp_path / "x.jsonl", value)) == GENERATED


@pytest.mark.parametrize("verdict", [None, {}, {"overall": None}, {"overall": {"score": float("nan")}}, float("nan")])
def test_an_evaluation_without_a_score_is_below_every_threshold(tmp_path: Path, verdict: Any) -> None:
    value = json.loads(json.dumps(RECORDS))
    value[0]["qa_evaluations"] = {"evaluations": [verdict]}
    _, examples, left_out = convert(read_records(write(tmp_path / "x.jsonl", value)), quality_threshold=7)
    assert [example.question for example in examples] == ["second?"]
    assert left_out == {"no overall score": 1}


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    from scripts.common.passages import read_corpus, write_corpus

    value = [record("a\udcff.txt", ["half \ud83d pair"], [("why \ud83d?", [1])])]
    passages, examples, _ = convert(read_records(write(tmp_path / "x.jsonl", value)), quality_threshold=7)
    assert examples[0].question == "why \ufffd?"
    write_corpus(tmp_path / "corpus", passages, "c")
    assert read_corpus(tmp_path / "corpus") == passages
    assert next(iter(passages.values())).text == "half \ufffd pair"


def test_labels_that_mean_the_opposite_are_refused(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    features = datasets.Features({"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string")})
    made = datasets.Dataset.from_list(
        [{"sentence1": "a", "sentence2": "b", "label": 1}],
        features=datasets.Features({**features, "label": names}),
    )
    made.save_to_disk(tmp_path / "rte")
    with pytest.raises(UserError, match="label 1 of column `label` is 'not_entailment'"):
        read_records(tmp_path / "rte")


def test_files_that_decide_what_is_read(tmp_path: Path) -> None:
    write(tmp_path / "one" / "x.jsonl", RECORDS)
    (tmp_path / "one" / "notes.txt").write_text("not read")
    assert source_files(str(tmp_path / "one")) == source_files(str(tmp_path / "one" / "x.jsonl"))
    manifest = tmp_path / "run" / "generation_result.json"
    write(tmp_path / "run" / "deep" / "x.jsonl", RECORDS)
    manifest.write_text(json.dumps({"schema_version": 1, "dataset_name": "x", "output_path": "deep/x.jsonl"}))
    both = [str(manifest), str(tmp_path / "run" / "deep" / "x.jsonl")]
    assert source_files(str(manifest)) == source_files(str(tmp_path / "run")) == both
    names = {Path(name).name for name in source_files(str(beir(tmp_path / "beir")))}
    assert names == {"corpus.jsonl", "queries.jsonl", "test.tsv"}
    inner = write(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", rows("anchor", "positive"))
    assert source_files(str(tmp_path / "set")) == [str(inner)]
    assert source_files("hf://org/name") == []
    assert source_files(str(tmp_path / "nothing")) == [str(tmp_path / "nothing")]


def test_labelled_pairs(tmp_path: Path) -> None:
    value = [{**row, "label": 1} for row in rows("sentence1", "sentence2")]
    value.append({"sentence1": "what is lift", "sentence2": "no answer", "label": 0})
    assert pairs_of(write(tmp_path / "x.jsonl", value)) == OWN


def test_data_sets_of_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = datasets.Dataset.from_list([{**row, "negative": "x"} for row in rows("anchor", "positive")])
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "dev": made.select([0])}).save_to_disk(tmp_path / "several")
    # as a data set repository lies in a folder
    write(tmp_path / "repository" / "data" / "train-00000-of-00001.parquet", rows("anchor", "positive"))
    for name in ("one", "several", "repository"):
        assert pairs_of(tmp_path / name) == OWN


def test_data_sets_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []
    made = datasets.Dataset.from_list(rows("query", "answer"))

    def load(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return datasets.DatasetDict({"train": made.select([0]), "dev": made})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert pairs_of("hf://org/name@v1:pair#dev") == OWN
    assert len(pairs_of("hf://org/name")) == 1
    assert asked == [(("org/name", "pair"), {"revision": "v1"}), (("org/name", None), {"revision": None})]
    with pytest.raises(UserError, match="no split 'x'; choose one with #split: train, dev"):
        read_records("hf://org/name#x")
    with pytest.raises(UserError, match="not of the form"):
        read_records("hf://name")


def beir(folder: Path) -> Path:
    write(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "T", "text": f"text {n}"} for n in range(4)])
    write(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(3)])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\td1\t1\nq0\td0\t2\nq1\td2\t1\nq1\td3\t0\n"
    )
    return folder


def test_a_collection_in_beir_layout(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    assert pairs_of(folder) == {("query 0", ("T text 0", "T text 1")), ("query 1", ("T text 2",))}
    # every document is in the corpus, asked about or not
    assert passage_id("T text 3") in convert(read_records(folder), quality_threshold=7)[0]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td3\t1\n")
    assert pairs_of(folder) == {("query 2", ("T text 3",))}, "its test queries stay a test"


MISTAKES = {
    "x.jsonl": ('{"question": "a", "passage": "b"}\n\n{"question": "a"\n', r"x\.jsonl, line 3: not valid JSON"),
    "x.json": (
        '[\n  {"question": "a",\n   "passage": "b"},\n  {"question": ""  "passage": "b"}\n]',
        r"x\.json, line 4, col",
    ),
    "fields.json": (
        '[\n {"question": "a",\n  "passage": "b"},\n\n {"question": "a"}]',
        r"fields\.json, line 5 \(record 2\)",
    ),
    "x.csv": ('question,passage\n"a\nb",c\n,d\n', r"x\.csv, line 4: `question` and `passage` must not be empty"),
    "cells.csv": ("question,passage\na,b\nc,d,e\n", r"cells\.csv, line 3: 3 cells, but the header names 2"),
    "few.csv": ("question,passage\na\n", r"few\.csv, line 2: 1 cells, but the header names 2"),
    "columns.csv": ("ask,reply\na,b\n", r"columns\.csv, line 2: neither .* its columns are ask, reply"),
    "x.tsv": ("question\tpassage\nc\t\n", r"x\.tsv, line 2: `question` and `passage`"),
    "quotes.csv": ('question,passage\na,"b\nc,d\n', r"quotes\.csv, line 2: "),
    "x.parquet": ("no parquet", r"x\.parquet is not a parquet file"),
    "list.jsonl": ('["a"]\n', r"list\.jsonl, line 1: expected an object, found list"),
    "type.jsonl": ('{"question": 3, "passage": "b"}\n', r"type\.jsonl, line 1: column `question` must be text"),
    "label.jsonl": ('{"sentence1": "a", "sentence2": "b", "label": "x"}\n', r"label\.jsonl, line 1: the label 'x'"),
    "chunks.jsonl": (
        '{"chunks": [{"text": "a"}]}\n',
        r"chunks\.jsonl, line 1, chunk 1: every chunk needs",
    ),
    "pairs.jsonl": (
        '{"chunks": [], "deduplicated_qa_pairs": [{}]}\n',
        r"pairs\.jsonl, line 1, pair 1: every pair needs",
    ),
    "number.jsonl": ('{"chunks": 5}\n', r"number\.jsonl, line 1: chunks is 5, but must be a list"),
    "noid.jsonl": (
        '{"chunks": [{"text": "a", "chunk_id": [1]}]}\n',
        r"noid\.jsonl, line 1, chunk 1: chunk_id is \[1\], but must be a number or text",
    ),
    "pair.jsonl": (
        '{"chunks": [], "deduplicated_qa_pairs": 5}\n',
        r"pair\.jsonl, line 1: deduplicated_qa_pairs is 5, but must be a list",
    ),
    "segment.jsonl": (
        '{"chunks": [], "deduplicated_qa_pairs": [{"question": "a", "segment_ids": 3}]}\n',
        r"segment\.jsonl, line 1, pair 1: segment_ids is 3, but must be a list",
    ),
    "verdict.jsonl": (
        '{"chunks": [], "qa_evaluations": {"evaluations": [7]}}\n',
        r"verdict\.jsonl, line 1, evaluation 1: expected an object",
    ),
    "stsb.jsonl": (
        '{"sentence1": "a", "sentence2": "b", "score": 1.2}\n',
        r"stsb\.jsonl, line 1: the label 1.2 is neither 0 nor 1",
    ),
    "pretty.json": ('{\n  "chunks": [],\n  "pairs" 3\n}', r"pretty\.json, line 3, column 11"),
    "late.json": ('\n\n{\n  "chunks": 5}', r"late\.json, line 3 \(record 1\): chunks is 5"),
    "text.jsonl": ('{"chunks": "[1"}\n', r"text\.jsonl, line 1: chunks is text that is no JSON"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_by_file_and_line(tmp_path: Path, name: str) -> None:
    text, message = MISTAKES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_records(tmp_path / name)


def test_mistakes_in_a_parquet_row_a_data_set_and_a_collection(tmp_path: Path) -> None:
    import datasets

    value = [*rows("question", "passage"), {"question": " ", "passage": "x"}]
    with pytest.raises(UserError, match=r"x\.parquet, row 3: `question`"):
        read_records(write(tmp_path / "x.parquet", value))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(value)}).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match=r"set, split train, row 3: `question`"):
        read_records(tmp_path / "set")
    folder = beir(tmp_path / "beir")
    with (folder / "qrels" / "test.tsv").open("a") as stream:
        stream.write("q0\tnobody\t1\n")
    with pytest.raises(UserError, match=r"test\.tsv, line 6: passage nobody is not in the collection"):
        read_records(folder)


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_records(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no"):
        read_records(tmp_path)
    write(tmp_path / "x.jsonl", RECORDS)
    write(tmp_path / "x.csv", rows("question", "passage"))
    with pytest.raises(UserError, match="mixes formats"):
        read_records(tmp_path)
