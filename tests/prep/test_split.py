"""Conversion and split: what must hold for any records (hypothesis), and the formats to the letter."""

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.beir import read_beir
from scripts.common.config import defaults
from scripts.common.errors import UserError
from scripts.common.passages import passage_id, read_corpus
from scripts.prep.assign import assign, place
from scripts.prep.prep import unroll
from scripts.prep.split import split

OPTIONS = {**defaults()["prep"], "train_ratio": 0.6, "val_ratio": 0.1, "test_ratio": 0.3}
words = st.sampled_from("wing flow plate heat shock layer mach drag lift body nose cone speed air".split())
sentences = st.lists(words, min_size=1, max_size=8).map(" ".join)


def record(name: str, texts: list[str], pairs: list[tuple[str, list[int]]], score: float = 9.0) -> dict[str, Any]:
    made = [
        {
            "question": question,
            "answer": "",
            "query_type": "contextual",
            "reasoning_type": "factual",
            "question_complexity": 2,
            "hop_count": 1,
            "hop_contexts": [],
            "segment_ids": segments,
        }
        for question, segments in pairs
    ]
    return {
        "file_name": [name],
        "source_id": name,
        "text": " ".join(texts),
        "chunks": [{"chunk_id": number, "text": text} for number, text in enumerate(texts, start=1)],
        "qa_generation": {"pairs": made},
        "deduplicated_qa_pairs": made,
        "qa_evaluations": {"evaluations": [{"overall": {"score": score, "assessment": ""}} for _ in made]},
    }


@st.composite
def corpora(draw: st.DrawFn) -> list[dict[str, Any]]:
    records = []
    for number in range(draw(st.integers(6, 14))):
        texts = draw(st.lists(sentences, min_size=1, max_size=4))
        segments = st.lists(st.integers(1, len(texts)), min_size=1, max_size=4)
        pairs = draw(st.lists(st.tuples(sentences, segments), min_size=0 if number > 5 else 1, max_size=4))
        records.append(record(f"f{number}.txt", texts, pairs))
    return records


def run(records: list[dict[str, Any]], folder: Path, **options: Any) -> dict[str, Any]:
    source = folder / "source.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("".join(json.dumps(row) + "\n" for row in records))
    return split(source, folder / "out", corpus_id="c", options={**OPTIONS, **options})


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / "out" / name).read_text())["data"]


@settings(max_examples=40, deadline=None)
@given(records=corpora(), assignment=st.sampled_from(["shuffle", "hash"]), near=st.sampled_from([None, 0.8]))
def test_invariants(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], assignment: str, near: float | None
) -> None:
    folder = tmp_path_factory.mktemp("split")
    try:
        report = run(records, folder, split_assignment=assignment, split_near_duplicates=near)
    except UserError:
        return  # all documents one group, or all questions of training also asked in the test: said so
    train, val = load(folder, "train.json"), load(folder, "val.json")
    corpus = read_corpus(folder / "out" / "corpus")
    assert set(corpus) == {passage_id(chunk["text"]) for row in records for chunk in row["chunks"]}
    assert all(re.fullmatch("d_[0-9a-f]{16}", name) for name in corpus)
    assert all(entry["id"] in corpus for item in train + val for entry in item["pos_doc"])
    ids = [item["question_id"] for item in train + val]
    assert len(ids) == len(set(ids))
    part_of = report["part_of"]
    asked = {part: set() for part in ("train", "val", "test")}
    for row in records:
        for pair in row["deduplicated_qa_pairs"]:
            asked[part_of[row["source_id"]]].add(pair["question"])
    trained = {item["question"] for item in train + val}
    assert trained <= asked["train"] | asked["val"]
    assert not trained & asked["test"]
    tested = {
        passage_id(row["chunks"][segment - 1]["text"])
        for row in records
        for pair in row["deduplicated_qa_pairs"]
        for segment in pair["segment_ids"]
        if part_of[row["source_id"]] == "test"
    }
    assert all(entry["id"] not in tested for item in train + val for entry in item["pos_doc"])
    unrolled = unroll({"corpus": {}, "data": train})["data"]
    assert len(unrolled) == sum(len(item["pos_doc"]) for item in train)
    assert len({item["question_id"] for item in unrolled}) == len(unrolled)
    assert all(len(item["pos_doc"]) == 1 for item in unrolled)
    if asked["test"]:
        test = read_beir(folder / "out" / "eval_beir")
        assert set(test.queries.values()) == asked["test"]
        assert len(test.corpus) == len(corpus)


names = st.lists(st.text("abcdef/._", min_size=1, max_size=8), min_size=8, max_size=40, unique=True)


def one_each(documents: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(documents, 1)


@given(documents=names, new=names, seed=st.integers(0, 5))
def test_hash_assignment_is_stable_under_addition(documents: list[str], new: list[str], seed: int) -> None:
    options = {**OPTIONS, "split_assignment": "hash", "conversion_seed": seed}
    low = {name: place(name, seed) for name in documents}
    if not any(at >= 0.7 for at in low.values()) or not any(at < 0.6 for at in low.values()):
        return  # a part that chance left empty is filled up, which is not stable
    before = assign(one_each(documents), [], [], options)
    after = assign(one_each({*documents, *new}), [], [], options)
    assert all(after[name] == part for name, part in before.items())


@given(
    questions=st.dictionaries(st.text("abcdef", min_size=1, max_size=6), st.integers(1, 9), min_size=4, max_size=40),
    fewest=st.integers(0, 60),
    seed=st.integers(0, 5),
    assignment=st.sampled_from(["hash", "shuffle"]),
)
def test_the_test_gets_enough_questions_from_no_more_documents_than_needed(
    questions: dict[str, int], fewest: int, seed: int, assignment: str
) -> None:
    options = {**OPTIONS, "split_assignment": assignment, "conversion_seed": seed}
    plain = assign(questions, [], [], options)
    part_of = assign(questions, [], [], {**options, "min_test_questions": fewest})
    tests = {name for name in questions if part_of[name] == "test"}
    before = {name for name in questions if plain[name] == "test"}
    assert before <= tests, "what the ratio holds out stays held out"
    assert "train" in part_of.values()
    held = sum(questions[name] for name in tests)
    if tests != before:
        assert len(tests) <= len(questions) / 2
        assert held - max(questions[name] for name in tests - before) < fewest, "one document fewer would not do"
    elif len(tests) + 1 <= len(questions) / 2:
        assert held >= fewest


def test_shuffle_is_the_recipes() -> None:
    import random

    documents = [f"{number}.txt" for number in range(10)]
    part_of = assign(one_each(documents), [], [], {**OPTIONS, "split_assignment": "shuffle"})
    order = sorted(documents)
    random.seed(42)
    random.shuffle(order)
    assert [part_of[name] for name in order] == ["train"] * 6 + ["val"] + ["test"] * 3


@given(documents=names, seed=st.integers(0, 5), assignment=st.sampled_from(["hash", "shuffle"]))
def test_groups_are_never_divided(documents: list[str], seed: int, assignment: str) -> None:
    groups = [documents[:2], documents[1:4], documents[5:7]]
    part_of = assign(
        one_each(documents), [], groups, {**OPTIONS, "split_assignment": assignment, "conversion_seed": seed}
    )
    assert len({part_of[name] for name in documents[:4]}) == 1
    assert len({part_of[name] for name in documents[5:7]}) == 1
    assert set(part_of) == set(documents)


@given(documents=names, seed=st.integers(0, 5), assignment=st.sampled_from(["hash", "shuffle"]))
def test_documents_that_cannot_test_train_and_validate(documents: list[str], seed: int, assignment: str) -> None:
    options = {**OPTIONS, "split_assignment": assignment, "conversion_seed": seed}
    askable, others = documents[:6], documents[6:]
    alone = assign(one_each(askable), [], [], options)
    part_of = assign(one_each(askable), others, [others[:2]], options)
    assert {name: part_of[name] for name in askable} == alone
    assert len({part_of[name] for name in others[:2]}) == 1
    assert {part_of[name] for name in others} <= {"train", "val"}
    never = assign(one_each(askable), others, [], {**options, "train_ratio": 0.7, "val_ratio": 0.0})
    assert {never[name] for name in others} == {"train"}


def test_of_many_documents_that_cannot_test_the_ratio_validates() -> None:
    options = {**OPTIONS, "split_assignment": "hash"}
    part_of = assign({}, [f"{number}.txt" for number in range(700)], [], {**options, "test_ratio": 0.0})
    share = OPTIONS["val_ratio"] / (OPTIONS["val_ratio"] + OPTIONS["train_ratio"])
    assert sum(part == "val" for part in part_of.values()) / 700 == pytest.approx(share, abs=0.05)


def articles(count: int) -> list[dict[str, Any]]:
    return [
        record(f"{n}.txt", [f"{' '.join(f'w{n}x{i}' for i in range(30))} end"], [(f"question {n}", [1])])
        for n in range(count)
    ]


def test_near_duplicates_stay_in_one_part(tmp_path: Path) -> None:
    records = articles(20)
    body = records[0]["chunks"][0]["text"]
    for number in (5, 9, 13):
        records[number]["chunks"][0]["text"] = f"{body} revised {number}"
    divided = run(records, tmp_path / "a")["part_of"]
    together = run(records, tmp_path / "b", split_near_duplicates=0.7)
    copies = [f"{number}.txt" for number in (0, 5, 9, 13)]
    assert len({divided[name] for name in copies}) > 1
    assert len({together["part_of"][name] for name in copies}) == 1
    assert together["near_duplicate_groups"] == [sorted(copies)]


def test_an_answer_of_the_test_trains_nothing(tmp_path: Path) -> None:
    records = articles(20)
    part_of = run(records, tmp_path / "plain")["part_of"]
    test, train, other, cut = (
        *(next(row for row in records if part_of[row["source_id"]] == part) for part in ("test", "train")),
        *[row for row in records if part_of[row["source_id"]] == "train"][1:3],
    )
    shared = test["chunks"][0]["text"]
    # a standard answer in another document, also beside an answer of its own; and one with a sentence cut out of it
    train["chunks"][0]["text"] = shared
    other["chunks"].append({"chunk_id": 2, "text": shared})
    other["deduplicated_qa_pairs"][0]["segment_ids"] = [2, 1]
    cut["chunks"].append({"chunk_id": 2, "text": shared})
    made = {"question": "cut", "segment_ids": [2], "training_only": True, "passage": shared.removesuffix("end")}
    cut["deduplicated_qa_pairs"].append(made)
    cut["qa_evaluations"]["evaluations"] *= 2
    report = run(records, tmp_path / "shared")
    assert report["part_of"] == part_of, "the recipe's assignment stays"
    trained = load(tmp_path / "shared", "train.json") + load(tmp_path / "shared", "val.json")
    by_question = {item["question"]: item for item in trained}
    assert train["deduplicated_qa_pairs"][0]["question"] not in by_question
    assert "cut" not in by_question
    assert cut["deduplicated_qa_pairs"][0]["question"] in by_question
    kept = by_question[other["deduplicated_qa_pairs"][0]["question"]]
    assert kept["pos_doc"] == [{"id": passage_id(other["chunks"][0]["text"])}]
    assert kept["also_positive"] == [passage_id(shared)], "no negative of that question either"
    assert report["left_out"] == {"its answer is a test question's, too": 2}


def test_answers_in_common_of_a_collection_in_beir_layout(tmp_path: Path) -> None:
    folder = tmp_path / "collection"
    (folder / "qrels").mkdir(parents=True)
    names = range(40)
    corpus = [{"_id": f"d{n}", "title": "", "text": f"text of number {n}"} for n in names]
    queries = [{"_id": f"q{n}", "text": f"query {n}"} for n in names]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{n}\td{n}\t2\nq{n}\td{(n + 1) % 40}\t1\n" for n in names)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    split(folder, tmp_path / "out", corpus_id="c", options=OPTIONS)
    test = read_beir(tmp_path / "out" / "eval_beir")
    answers = {passage_id(test.corpus[name]) for judged in test.qrels.values() for name in judged}
    trained = load(tmp_path, "train.json")
    assert len(trained) > 15
    assert all(entry["id"] not in answers for item in trained for entry in item["pos_doc"])


def test_training_only_pairs_of_test_documents_are_counted(tmp_path: Path) -> None:
    records = articles(20)
    part_of = run(records, tmp_path / "a")["part_of"]
    document = next(row for row in records if part_of[row["source_id"]] == "test")
    document["deduplicated_qa_pairs"].append({"question": "more", "segment_ids": [1], "training_only": True})
    document["qa_evaluations"]["evaluations"] *= 2
    report = run(records, tmp_path / "b")
    assert report["left_out"] == {"of a test document, but for training alone": 1}


def test_groups_of_documents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = articles(20)
    records[7]["file_name"] = ["folder/seven.txt", "folder/seven2.txt"]
    file = tmp_path / "groups.json"
    options = {"split_strategy": "groups", "groups_json": str(file)}
    file.write_text(json.dumps([["0.txt", "5.txt", "folder/seven2.txt", "9.tx"], ["1.txt", "2.txt"]]))
    with caplog.at_level(logging.WARNING, logger="embed-recipe"):
        part_of = run(records, tmp_path / "a", **options)["part_of"]
    assert len({part_of[name] for name in ("0.txt", "5.txt", "7.txt")}) == 1
    assert "1 of 6 names are of no document, 9.tx for one (a document is called 9.txt, say)" in caplog.text
    file.write_text(json.dumps([["docs/0.txt", "docs/5.txt"]]))
    with pytest.raises(UserError, match=r"2 of 2 names are of no document, docs/0\.txt for one .* called 0\.txt"):
        run(records, tmp_path / "b", **options)
    file.write_text(json.dumps([["0.txt", "5.txt"], ["0.txt"]]))
    with pytest.raises(UserError, match=r"0\.txt stands there twice"):
        run(records, tmp_path / "c", **options)


@pytest.mark.parametrize("size", [2, 12])
def test_a_new_member_seldom_moves_its_group(size: int) -> None:
    options = {**OPTIONS, "split_assignment": "hash"}
    askable = one_each(f"m{number}" for number in range(60))
    group = [f"m{number}" for number in range(size)]
    before = assign(askable, [], [group], options)["m0"]
    # names that sort before all others, and after
    new = [f"{first}{number}" for first in "az" for number in range(150)]
    moved = sum(assign({**askable, name: 1}, [], [[*group, name]], options)["m0"] != before for name in new)
    assert moved <= 1.5 * len(new) / (size + 1)
    parts = [assign(askable, [], [[f"m{n}", f"m{n + 1}", f"m{n + 2}"]], options)[f"m{n}"] for n in range(57)]
    assert 0.3 < parts.count("train") / 57 < 0.85, "groups are no more in the test than single documents are"


def test_frozen_test_set_is_kept_and_overlapping_training_removed(tmp_path: Path) -> None:
    run(articles(20), tmp_path / "a")
    frozen = tmp_path / "a" / "out" / "eval_beir"
    asked = set(read_beir(frozen).queries.values())
    report = run(articles(30), tmp_path / "b", eval_beir_path=str(frozen))
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        assert (tmp_path / "b" / "out" / "eval_beir" / name).read_bytes() == (frozen / name).read_bytes()
    trained = {item["question"] for part in ("train.json", "val.json") for item in load(tmp_path / "b", part)}
    assert trained == {f"question {n}" for n in range(30)} - asked
    assert report["left_out"] == {"overlaps the frozen test set": len(asked)}
    assert "test" not in report["part_of"].values()


def test_frozen_test_set_removes_answers_that_were_reworded(tmp_path: Path) -> None:
    run(articles(20), tmp_path / "a")
    frozen = tmp_path / "a" / "out" / "eval_beir"
    asked = set(read_beir(frozen).queries.values())
    changed = articles(20)
    for row in changed:
        row["chunks"][0]["text"] += " and one word more"
        row["deduplicated_qa_pairs"][0]["question"] += " in other words"
    run(changed, tmp_path / "b", eval_beir_path=str(frozen))
    trained = {item["question"] for part in ("train.json", "val.json") for item in load(tmp_path / "b", part)}
    assert trained == {f"question {n} in other words" for n in range(20) if f"question {n}" not in asked}


def test_frozen_test_set_removes_answers_in_other_chunks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def cut(size: int) -> list[dict[str, Any]]:
        records = []
        for n in range(20):
            texts = [f"{' '.join(f'w{n}x{i}x{j}' for j in range(16))}." for i in range(12)]
            chunks = [" ".join(texts[i : i + size]) for i in range(0, 12, size)]
            records.append(record(f"{n}.txt", chunks, [(f"question {n} of {size} in {i}", [i + 1]) for i in range(2)]))
        return records

    run(cut(6), tmp_path / "a")
    frozen = tmp_path / "a" / "out" / "eval_beir"
    documents = {text.split()[1] for text in read_beir(frozen).queries.values()}
    with caplog.at_level(logging.WARNING, logger="embed-recipe"):
        report = run(cut(3), tmp_path / "b", eval_beir_path=str(frozen))
    trained = {
        item["question"].split()[1] for item in load(tmp_path / "b", "train.json") + load(tmp_path / "b", "val.json")
    }
    assert trained
    assert trained.isdisjoint(documents)
    assert any(f"only {len(documents) * 2} test queries" in line for line in report["warnings"])


def test_beirs_own_loader_reads_the_test_set(tmp_path: Path) -> None:
    from beir.datasets.data_loader import GenericDataLoader

    run(articles(20), tmp_path)
    corpus, queries, qrels = GenericDataLoader(str(tmp_path / "out" / "eval_beir")).load(split="test")
    assert len(corpus) == 20
    assert set(queries) == set(qrels)
    assert all(corpus[name]["text"] for judged in qrels.values() for name in judged)
    assert (tmp_path / "out/eval_beir/qrels/test.tsv").read_text().startswith("query-id\tcorpus-id\tscore\n")
    row = json.loads((tmp_path / "out/eval_beir/queries.jsonl").read_text().splitlines()[0])
    assert set(row) == {"_id", "metadata", "text"}
    assert set(row["metadata"]) == {
        *("query_type", "reasoning_type", "hop_count", "question_complexity", "quality_score"),
        *("answer", "hop_contexts", "file_name", "segment_ids"),
    }


def test_files_have_the_recipes_form(tmp_path: Path) -> None:
    from pyarrow import parquet

    run(articles(20), tmp_path)
    value = json.loads((tmp_path / "out/train.json").read_text())
    assert value["corpus"] == {"path": "./corpus/"}
    item = value["data"][0]
    assert {"question_id", "question", "corpus_id", "pos_doc", "neg_doc"} <= set(item)
    assert item["neg_doc"] == []
    assert set(item["pos_doc"][0]) == {"id"}
    table = parquet.read_table(tmp_path / "out/corpus/train.parquet")
    assert table.schema.field("id").type == table.schema.field("text").type == "string"
    assert json.loads((tmp_path / "out/corpus/merlin_metadata.json").read_text()) == {
        "corpus_id": "c",
        "class": "TextQADataset",
    }


def test_a_document_without_questions_stays_in_both_corpora(tmp_path: Path) -> None:
    records = articles(20)
    records.append(record("silent.txt", ["nobody asks about this"], []))
    broken = record("broken.txt", ["judged wrongly"], [("lost?", [1])])
    broken["qa_evaluations"] = {"evaluations": []}
    report = run([*records, broken], tmp_path)
    texts = set(read_beir(tmp_path / "out" / "eval_beir").corpus.values())
    assert {"nobody asks about this", "judged wrongly"} <= texts
    assert report["left_out"] == {"evaluations do not match the pairs": 1}


def test_reasons_for_leaving_out(tmp_path: Path) -> None:
    records = articles(20)
    records[0]["qa_evaluations"]["evaluations"][0]["overall"]["score"] = 6.9
    records[1]["deduplicated_qa_pairs"][0]["segment_ids"] = []
    records[2]["deduplicated_qa_pairs"][0]["segment_ids"] = [7]
    records[3]["deduplicated_qa_pairs"][0]["question"] = " "
    records[4]["qa_evaluations"]["evaluations"][0]["accuracy"] = {"score": 2, "justification": ""}
    records[4]["qa_evaluations"]["evaluations"][0]["relevance"] = {"score": 9, "justification": ""}
    kept = sum(run(records, tmp_path / "a")["examples"].values())
    assert kept == 16
    report = run(records, tmp_path / "b", min_sub_score=5)
    assert report["left_out"] == {
        "below the quality threshold": 1,
        "no segment": 1,
        "unknown segment": 1,
        "empty question": 1,
        "a single judgement below prep.min_sub_score": 1,
    }


def test_warnings_of_small_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="embed-recipe"):
        run(articles(20), tmp_path)
    assert "only 12 training examples" in caplog.text
    assert "only 6 test queries" in caplog.text


def test_one_document_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few to hold some out"):
        run(articles(1), tmp_path, train_ratio=1.0, val_ratio=0.0, test_ratio=0.2)
