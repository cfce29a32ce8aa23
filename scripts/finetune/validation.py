"""Retrieval checks: nDCG@10 of the validation questions, and of a general test set that must not be forgotten."""

import dataclasses
import random
from collections.abc import Callable, Sequence

import numpy as np

from scripts.common.beir import TestSet
from scripts.common.metrics import evaluate_run
from scripts.common.passages import searchable
from scripts.common.search import as_run, top_k
from scripts.finetune.examples import Example, TrainingData, in_turns

K = 10
# Passages that validation searches: enough to tell models apart, few enough to encode at every interval
POOL = 1000
QUERIES = 300
EncodeTexts = Callable[[Sequence[str], str], np.ndarray]


@dataclasses.dataclass
class Validation:
    """Questions with judgements and the passages they are searched in, the same for every model.

    Attributes:
        questions: Texts, in the order of ``qrels``.
        qrels: Judged scores by question and passage.
        names: Ids of the pool's passages.
        texts: Their texts.
        hidden: By question, passages that are taken out of its result.
    """

    questions: list[str]
    qrels: dict[str, dict[str, int]]
    names: list[str]
    texts: list[str]
    hidden: dict[str, set[str]]

    @classmethod
    def build(cls, data: TrainingData, seed: int) -> "Validation | None":
        """The validation set of ``val.json``'s data, or ``None`` when it is empty.

        The pool is all passages of the validation documents and a seeded sample of the others: picking neighbours by
        one model would favour the other.
        """
        if not data.examples:
            return None
        chooser = random.Random(seed)
        examples = in_turns(data.examples, QUERIES)
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

    @classmethod
    def of_test_set(cls, test_set: TestSet, seed: int) -> "Validation":
        """A seeded sample of a test set's queries, and the passages judged for them among a sample of the others."""
        chooser = random.Random(seed)
        queries = chooser.sample(sorted(test_set.queries), min(QUERIES, len(test_set.queries)))
        judged = dict.fromkeys(name for query in queries for name in test_set.qrels[query])
        rest = sorted(set(test_set.corpus) - set(judged))
        names = [*judged, *chooser.sample(rest, min(len(rest), max(0, POOL - len(judged))))]
        return cls(
            questions=[test_set.queries[query] for query in queries],
            qrels={query: test_set.qrels[query] for query in queries},
            names=names,
            texts=[test_set.corpus[name] for name in names],
            hidden={query: set() for query in queries},
        )

    def score(self, encode: EncodeTexts) -> np.ndarray:
        """NDCG@10 of an encoder by question, in order."""
        queries, passages = encode(self.questions, "query"), encode(self.texts, "passage")
        most = max((len(names) for names in self.hidden.values()), default=0)
        rows, scores = top_k(queries, passages, K + 1 + most)  # one more: a query never finds itself
        run = as_run(list(self.qrels), self.names, rows, scores)
        for query, names in self.hidden.items():
            for name in names:
                run[query].pop(name, None)
        per_query = evaluate_run(self.qrels, run, [K])
        return np.array([per_query[query][f"NDCG@{K}"] if query in per_query else 0.0 for query in self.qrels])


def _hidden(example: Example, cut: set[str], data: TrainingData) -> set[str]:
    """Passages a question must not find: other versions of its own, and passages made for other questions."""
    made = {name for name in cut if data.passages[name].training_only}
    return (made | set(example.answers)) - {example.positive}
