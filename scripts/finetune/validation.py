"""Selection by retrieval: nDCG@10 of the validation questions, and how much of the tuning to keep.

Weights between base and tuned (``base + a * (tuned - base)``) often keep the gain and lose less elsewhere (Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models", CVPR; Xiao et al. 2023, "LM-Cocktail", arXiv:2311.13534).
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from scripts.common.contract import Contract
from scripts.common.job import log
from scripts.common.metrics import evaluate_run
from scripts.common.passages import searchable
from scripts.common.search import as_run, top_k
from scripts.finetune.examples import Example, TrainingData

K = 10
# Passages that validation searches: enough to tell models apart, few enough to encode at every interval
POOL = 1000
QUERIES = 300
Weights = dict[str, torch.Tensor]
EncodeTexts = Callable[[Sequence[str], str], np.ndarray]


@dataclasses.dataclass
class Validation:
    """Questions of validation documents and the passages they are searched in.

    The pool is all passages of the validation documents and a seeded sample of the others, the same for every model:
    picking neighbours by one model would favour the other.
    """

    questions: list[str]
    qrels: dict[str, dict[str, int]]
    names: list[str]
    texts: list[str]
    hidden: dict[str, set[str]]

    @classmethod
    def build(cls, data: TrainingData, seed: int) -> "Validation | None":
        """The validation set of ``val.json``'s data, or ``None`` when it is empty."""
        if not data.examples:
            return None
        chooser = random.Random(seed)
        examples = list(data.examples)
        chooser.shuffle(examples)
        examples = examples[:QUERIES]
        cut = {example.positive for example in examples}
        own = {document for example in examples for document in data.documents(example.positive)}
        near = [name for name in searchable(data.passages) if not own.isdisjoint(data.documents(name))]
        rest = [name for name in searchable(data.passages) if own.isdisjoint(data.documents(name))]
        chooser.shuffle(rest)
        names = list(dict.fromkeys([*sorted(cut), *near, *rest[: max(0, POOL - len(near))]]))
        ids = {f"v{number}": example for number, example in enumerate(examples)}
        return cls(
            questions=[example.question for example in examples],
            qrels={query: {example.positive: 1} for query, example in ids.items()},
            names=names,
            texts=[data.passages[name].text for name in names],
            hidden={query: _hidden(example, cut, data) for query, example in ids.items()},
        )

    def score(self, encode: EncodeTexts) -> float:
        """Mean nDCG@10 of an encoder."""
        queries, passages = encode(self.questions, "query"), encode(self.texts, "passage")
        most = max((len(names) for names in self.hidden.values()), default=0)
        rows, scores = top_k(queries, passages, K + most)
        run = as_run(list(self.qrels), self.names, rows, scores)
        for query, names in self.hidden.items():
            for name in names:
                run[query].pop(name, None)
        per_query = evaluate_run(self.qrels, run, [K])
        return float(np.mean([row[f"NDCG@{K}"] for row in per_query.values()]))


def _hidden(example: Example, cut: set[str], data: TrainingData) -> set[str]:
    """Passages a question must not find: other versions of its own, and passages made for other questions."""
    made = {name for name in cut if data.passages[name].training_only}
    return (made | set(example.answers)) - {example.positive}


def interpolate(base: Weights, tuned: Weights, share: float) -> Weights:
    """``base + share * (tuned - base)`` for floating-point weights."""
    return {
        name: torch.lerp(base[name].float(), value.float(), share).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in tuned.items()
    }


def describe(contract: Contract, scores: Sequence[dict[str, Any]], chosen: dict[str, Any]) -> None:
    """Say what was tried and what was chosen."""
    for row in scores:
        mark = "<- chosen" if row is chosen else ""
        log.info("validation nDCG@%d %.4f  step %d, share %.2f %s", K, row["ndcg@10"], row["step"], row["share"], mark)
    if chosen["share"] == 0:
        log.warning(
            "no checkpoint beats the base model on validation: LATEST holds the base's weights (%s)", contract.model
        )
