"""Mining end to end with a real model: the same negatives as sentence-transformers, and each option's effect."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from scripts.common.beir import write_beir
from scripts.common.config import defaults
from scripts.common.contract import Contract
from scripts.common.llm import ChatModel
from scripts.common.passages import Passage, collect, passage_id, write_corpus
from scripts.common.relevance import open_judge
from scripts.common.replies import ReplyStore
from scripts.prep.mine import mine, warn_of_no_effect
from scripts.vectors.embed import embed
from tests.loopback import answering
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

    def run(
        split_file: Path | None = folder / "split.json",
        test_set: Path | None = None,
        judge: ChatModel | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        chosen = {k: v for k, v in defaults()["prep"].items() if k.startswith(MINING)} | options
        mine(
            folder / "train.json",
            folder / "corpus/train.parquet",
            folder / "mined.json",
            contract=Contract.load(contract),
            store=folder / "v",
            options=chosen,
            split_file=split_file,
            test_set=test_set,
            judge=judge,
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


def test_answers_of_another_test_set_are_no_negatives(mined: Any, tmp_path: Path) -> None:
    run, _, passages, _ = mined
    before = run(split_file=None)
    answer = before[0]["neg_doc"][0]["id"]
    # the passage in a longer chunk, as a test set has it that was made from other chunks
    text = " ".join(f"other{n}" for n in range(40)) + " " + passages[answer].text
    write_beir(
        tmp_path,
        [{"_id": "d0", "title": "", "text": text}],
        [{"_id": "q0", "text": "asked in the test alone"}],
        [("q0", "d0", 1)],
    )
    after = run(split_file=None, test_set=tmp_path, hard_neg_test_documents=False)
    assert sum(entry["id"] == answer for item in before for entry in item["neg_doc"]) > 0
    assert sum(entry["id"] == answer for item in after for entry in item["neg_doc"]) == 0
    assert len(after) == len(before)


@pytest.mark.parametrize("reply", ["grade", "nonsense"])
def test_what_the_judge_takes_for_an_answer_is_no_negative(mined: Any, tmp_path: Path, reply: str) -> None:
    run, _, passages, _ = mined
    before = run()[:200]
    answer = before[0]["neg_doc"][0]["id"]
    asked: list[str] = []

    def judge(body: dict[str, Any]) -> tuple[int, Any]:
        text = body["messages"][-1]["content"]
        asked.append(text)
        grade = 2 if passages[answer].text in text else 1
        content = json.dumps({"reason": "so", "grade": grade}) if reply == "grade" else reply
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        value = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return 200, {**value, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}

    with answering(judge) as server:
        providers = {"j": {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "api_key_env": None}}
        config = {"llm": {**defaults()["llm"], "providers": providers, "max_retries": 0}, "allow_egress": []}
        model = open_judge(config, ReplyStore(tmp_path), provider="j", name="m")
        after = run(judge=model, hard_negatives_to_mine=2)
    for item, old in zip(after, before, strict=False):
        ids = [entry["id"] for entry in item["neg_doc"]]
        wanted = [entry["id"] for entry in old["neg_doc"] if entry["id"] != answer or reply != "grade"]
        assert ids == wanted[:2]
    assert len(asked) == len(set(asked)) >= 2 * len(after) - 2, "each candidate that is kept was put to it once"


def test_options_without_effect_are_said(mined: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="embed-recipe"):
        mined[0](split_file=None, hard_neg_test_documents=False, hard_neg_same_document=False)
    assert "prep.hard_neg_test_documents=false does nothing" in caplog.text
    assert "prep.hard_neg_same_document=false does nothing" not in caplog.text
    warn_of_no_effect(
        {"a": Passage("a", [])}, {"hard_neg_same_document": False, "hard_neg_test_documents": True}, None, None
    )
    assert "prep.hard_neg_same_document=false does nothing" in caplog.text
