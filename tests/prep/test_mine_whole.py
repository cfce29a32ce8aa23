"""Mining on the whole of cranfield: the same hard negatives as sentence-transformers, but for ties."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.common.config import defaults
from scripts.common.contract import Contract
from scripts.common.passages import collect, passage_id, write_corpus
from scripts.common.vector_store import VectorStore
from scripts.prep.mine import mine
from scripts.vectors.embed import embed
from tests.prep.test_mine import COLLECTION, MINING

pytestmark = pytest.mark.slow
NEGATIVES = 5
# Scores closer than this are ties: the two sides add up products in another order
TIE = 1e-5


def generated_questions(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Passage by question, as pairs made without a language model: titles, and a sentence from the middle."""
    pairs: dict[str, str] = {}
    for row in rows:
        passage = row["text"][:400].strip()
        sentences = [part for part in re.split(r"(?<=\.)\s+", row["text"]) if len(part.split()) > 5]
        for question in [row["title"], *sentences[len(sentences) // 2 :][:1]]:
            if question.strip() and passage:
                pairs.setdefault(question, passage)
    return pairs


class Stored:
    """What ``mine_hard_negatives`` asks of a model, answered from our store: this compares rules, not encoders."""

    device = "cpu"

    def __init__(self, store: Path, contract: Contract) -> None:
        from sentence_transformers.util import cos_sim, pairwise_cos_sim

        self.similarity, self.similarity_pairwise = cos_sim, pairwise_cos_sim
        self.stores = [VectorStore(store, contract, side) for side in ("query", "passage")]

    def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
        return self.stores[0].gather(texts)

    def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
        return self.stores[1].gather(texts)


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_same_negatives_on_the_whole_collection(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, search: str
) -> None:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    if not COLLECTION.is_dir():
        pytest.skip(f"{COLLECTION} is not here; set COLLECTIONS to the folder with cranfield")
    rows = [json.loads(line) for line in (COLLECTION / "corpus.jsonl").read_text().splitlines()]
    pairs = generated_questions(rows)
    texts = list(dict.fromkeys(pairs.values()))
    assert len(texts) > 1300
    assert len(pairs) > 2400
    # vectors serve both searches
    folder = tmp_path_factory.getbasetemp() / "whole"
    contract_file = tiny_model / "contract.json"
    write_corpus(folder / "corpus", collect((text, text) for text in texts), "c")
    data = [
        {"question_id": f"q{n}", "question": question, "corpus_id": "c", "pos_doc": [{"id": passage_id(text)}]}
        for n, (question, text) in enumerate(pairs.items())
    ]
    (folder / "train.json").write_text(json.dumps({"corpus": {"path": "./corpus/"}, "data": data}))
    for side, wanted in (("query", list(pairs)), ("passage", texts)):
        embed(wanted, side, contract_file, folder / "m.json", store_root=folder / "v", device="cpu", token_budget=2048)
    contract = Contract.load(contract_file)
    options = {name: value for name, value in defaults()["prep"].items() if name.startswith(MINING)}
    mine(
        folder / "train.json",
        folder / "corpus",
        folder / "mined.json",
        contract=contract,
        store=folder / "v",
        options={**options, "mining_search": search, "hard_negatives_to_mine": NEGATIVES},
    )
    mined = json.loads((folder / "mined.json").read_text())
    ours = {item["question"]: {entry["id"]: entry["score"] for entry in item["neg_doc"]} for item in mined["data"]}
    theirs = mine_hard_negatives(
        Dataset.from_dict({"question": list(pairs), "passage": list(pairs.values())}),
        Stored(folder / "v", contract),  # type: ignore[arg-type]
        relative_margin=1 - options["hard_neg_margin"],
        num_negatives=NEGATIVES,
        range_max=len(texts),
        output_format="n-tuple",
        output_scores=True,
        verbose=False,
    )
    assert len(theirs) == sum(len(found) == NEGATIVES for found in ours.values()), "short lists are short on both sides"
    different = shared = 0
    for row in theirs:
        scores = dict(
            zip((passage_id(row[f"negative_{n}"]) for n in range(1, NEGATIVES + 1)), row["scores"][1:], strict=True)
        )
        found = ours[row["question"]]
        limit = options["hard_neg_margin"] * row["scores"][0]
        shared += len(set(scores) & set(found))
        edge = min(scores.values())
        apart = [scores.get(name, found.get(name)) for name in set(scores) ^ set(found)]
        # a tie at the limit lets another one in at the end of the list
        at_limit = any(abs(score - limit) <= TIE for score in apart)
        different += not at_limit and any(abs(score - edge) > TIE for score in apart)
    if search == "exact":
        assert different == 0
    else:
        assert shared >= 0.95 * NEGATIVES * len(theirs)
