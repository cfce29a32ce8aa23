"""Mining end to end with a real model: the same negatives as sentence-transformers, and each option's effect."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import defaults
from scripts.common.contract import Contract
from scripts.common.passages import collect, passage_id, write_corpus
from scripts.prep.mine import mine
from scripts.vectors.embed import embed
from tests.outside import COLLECTIONS

COLLECTION = COLLECTIONS / "cranfield"
MINING = ("hard_neg", "mining_search")


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    if not COLLECTION.is_dir():
        pytest.skip(f"{COLLECTION} is not here; set COLLECTIONS to the folder with cranfield")
    rows = [json.loads(line) for line in (COLLECTION / "corpus.jsonl").read_text().splitlines()][:300]
    pairs = {row["title"]: row["text"][:400] for row in rows if row["title"] and row["text"]}
    folder = tmp_path_factory.mktemp("mine")
    passages = collect((text, f"{number // 2}.txt") for number, text in enumerate(pairs.values()))
    write_corpus(folder / "corpus", passages, "c")
    data = [
        {"question_id": f"q{n}", "question": title, "corpus_id": "c", "pos_doc": [{"id": passage_id(text)}]}
        for n, (title, text) in enumerate(pairs.items())
    ]
    (folder / "train.json").write_text(json.dumps({"corpus": {"path": "./corpus/"}, "data": data}))
    part_of = {f"{n // 2}.txt": "test" if n < 40 else "train" for n in range(len(pairs))}
    (folder / "split.json").write_text(json.dumps({"part_of": part_of}))
    contract = tiny_model / "contract.json"
    for side, texts in (("query", list(pairs)), ("passage", list(pairs.values()))):
        embed(texts, side, contract, folder / "m.json", store_root=folder / "v", device="cpu", token_budget=2048)

    def run(**options: Any) -> list[dict[str, Any]]:
        chosen = {k: v for k, v in defaults()["prep"].items() if k.startswith(MINING)} | options
        mine(
            folder / "train.json",
            folder / "corpus/train.parquet",
            folder / "mined.json",
            contract=Contract.load(contract),
            store=folder / "v",
            options=chosen,
            split_file=folder / "split.json",
        )
        return json.loads((folder / "mined.json").read_text())["data"]

    return run, pairs, passages, tiny_model


def test_same_negatives_as_sentence_transformers(mined: Any) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from sentence_transformers.util import mine_hard_negatives

    run, pairs, _, folder = mined
    transformer = Transformer(str(folder), max_seq_length=128)
    model = SentenceTransformer(modules=[transformer, Pooling(384, pooling_mode="mean"), Normalize()], device="cpu")
    theirs = mine_hard_negatives(
        Dataset.from_dict({"q": list(pairs), "p": list(pairs.values())}),
        model,
        relative_margin=0.05,
        num_negatives=5,
        range_max=len(pairs),
        query_prompt="query: ",
        output_format="n-tuple",
        verbose=False,
    )
    wanted = {row["q"]: {passage_id(row[f"negative_{n}"]) for n in range(1, 6)} for row in theirs}
    ours = {item["question"]: {entry["id"] for entry in item["neg_doc"]} for item in run()}
    assert len(wanted) > 200
    assert sum(ours[question] == found for question, found in wanted.items()) >= len(wanted) - 1  # a tie, at most


def test_each_negative_says_why(mined: Any) -> None:
    for item in mined[0]():
        weakest = min(entry["score"] for entry in item["pos_doc"])
        ranks = [entry["rank"] for entry in item["neg_doc"]]
        assert ranks == sorted(set(ranks))
        for entry in item["neg_doc"]:
            assert entry["margin"] == pytest.approx(weakest - entry["score"], abs=1e-6)
            assert entry["score"] <= weakest


def test_options_bar_what_they_name(mined: Any) -> None:
    run, _, passages, _ = mined
    for item in run(hard_neg_same_document=False, hard_neg_test_documents=False, hard_neg_bm25_top=5):
        own = set(passages[item["pos_doc"][0]["id"]].documents)
        for entry in item["neg_doc"]:
            documents = passages[entry["id"]].documents
            assert own.isdisjoint(documents)
            assert all(int(name.split(".")[0]) >= 20 for name in documents)
    assert all(entry["rank"] <= 3 + 5 for item in run(hard_neg_max_skipped=3) for entry in item["neg_doc"])
    loose, strict = run(), run(hard_neg_max_similarity=0.5)
    assert [item["neg_doc"] for item in loose] != [item["neg_doc"] for item in strict]
