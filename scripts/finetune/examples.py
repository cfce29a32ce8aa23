"""Training examples: tokenized once, batched anew each epoch."""

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract, Side
from scripts.common.errors import UserError
from scripts.common.files import read_json, sha256_text
from scripts.common.job import log
from scripts.common.passages import Passage, read_corpus
from scripts.common.tokens import fast_tokenizer


@dataclasses.dataclass(frozen=True)
class Example:
    """A question with passage ids.

    Attributes:
        question: The question.
        positive: Id of the passage that answers it.
        negatives: Ids of its hard negatives, hardest first.
        answers: Ids of all passages known to answer it, which are never its negatives.
        query_type: What kind of question it is, where the file says so.
    """

    question: str
    positive: str
    negatives: tuple[str, ...]
    answers: frozenset[str]
    query_type: str = ""


@dataclasses.dataclass
class TrainingData:
    """Examples with their passages.

    Attributes:
        examples: In file order.
        passages: Passage by id.
    """

    examples: list[Example]
    passages: dict[str, Passage]

    def __post_init__(self) -> None:
        self._documents = {name: frozenset(passage.documents) for name, passage in self.passages.items()}
        self._same: dict[str, str] = {}

    def documents(self, name: str) -> frozenset[str]:
        """Documents a passage occurs in."""
        return self._documents[name]

    def same_text(self, name: str) -> str:
        """A key that passages share whose texts differ in case and white space at most."""
        if name not in self._same:
            passage = self.passages.get(name)
            self._same[name] = sha256_text(" ".join(passage.text.casefold().split())) if passage else name
        return self._same[name]


def read_training_data(path: str | Path) -> TrainingData:
    """Read an unrolled (or any ``train.json``-shaped) file and the corpus it names.

    Raises:
        UserError: The file is malformed or names unknown passages.
    """
    file = Path(path)
    value = read_json(file, "training file")
    try:
        corpus_path, data = file.parent / value["corpus"]["path"], value["data"]
    except (TypeError, KeyError) as error:
        raise UserError(f"training file {file} lacks {error}; run `snakemake --until prep` first.") from error
    if not isinstance(data, list):
        raise UserError(f"training file {file}: `data` must be a list of examples.")
    passages = read_corpus(corpus_path)
    answers: dict[str, set[str]] = {}
    for number, item in enumerate(data, start=1):
        if not isinstance(item, dict) or not item.get("question") or not item.get("pos_doc"):
            raise UserError(f"{file}, example {number}: needs `question` and at least one `pos_doc`.")
        known = answers.setdefault(item["question"], set())
        known.update(entry["id"] for entry in item["pos_doc"])
        known.update(item.get("also_positive", ()))
    examples = [_example(item, answers, passages, f"{file}, example {n}") for n, item in enumerate(data, start=1)]
    return TrainingData(examples, passages)


def _example(item: dict[str, Any], answers: dict[str, set[str]], passages: dict[str, Passage], place: str) -> Example:
    positive = item["pos_doc"][0]["id"]
    negatives = tuple(entry["id"] for entry in item.get("neg_doc") or ())
    for name in (positive, *negatives):
        if name not in passages:
            raise UserError(f"{place}: passage {name} is not in the corpus beside it.")
    answer_ids = frozenset(answers[item["question"]])
    return Example(item["question"], positive, negatives, answer_ids, item.get("query_type", ""))


class Tokens:
    """Token ids of questions and passages under a contract, each text tokenized once."""

    def __init__(self, contract: Contract, folder: Path) -> None:
        self._contract = contract
        self._tokenizer = fast_tokenizer(folder)
        self._known: dict[tuple[Side, str], list[int]] = {}

    def get(self, texts: Sequence[str], side: Side) -> list[list[int]]:
        """Token ids by text."""
        new = [text for text in dict.fromkeys(texts) if (side, text) not in self._known]
        if new:
            self._tokenizer.enable_truncation(self._contract.max_length(side))
            encoded = self._tokenizer.encode_batch_fast([self._contract.text(text, side) for text in new])
            self._known.update({(side, text): encoding.ids for text, encoding in zip(new, encoded, strict=True)})
        return [self._known[side, text] for text in texts]


def share_of_documents(data: TrainingData, share: float) -> list[Example]:
    """The examples whose positive is of the first ``share`` of the documents, in the order of a hash.

    A smaller share is a part of every greater one, so that a data-size curve compares like with like. A passage without
    known documents counts as a document of its own.
    """
    if share >= 1:
        return data.examples
    place = {
        example: sha256_text(min(data.documents(example.positive), default=example.positive))
        for example in data.examples
    }
    documents = sorted(set(place.values()))
    kept = set(documents[: max(1, round(share * len(documents)))])
    left = [example for example in data.examples if place[example] in kept]
    log.info("training on %d of %d documents, %d examples", len(kept), len(documents), len(left))
    return left


def usable(examples: Sequence[Example], *, in_batch: bool, most: int | None) -> list[Example]:
    """Examples that have something to be told apart from; without in-batch negatives that takes a hard negative.

    Raises:
        UserError: None is left.
    """
    left = [example for example in examples if in_batch or example.negatives]
    if len(left) < len(examples):
        log.warning("left out %d examples without a hard negative", len(examples) - len(left))
    if not left:
        raise UserError(
            "no training example is left that has a hard negative: raise prep.hard_neg_margin, or set "
            "finetune.in_batch_negatives=true."
            if examples
            else "the training file has no example: more documents or questions are needed (see stage 1's report)."
        )
    if most is None or len(left) <= most:
        return left
    log.info("training on %d of %d examples (finetune.max_examples)", most, len(left))
    return in_turns(left, most)


def in_turns(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many examples, in the order of a hash: query types in turn give one, so a rare type stays whole."""
    by_type: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda item: sha256_text(item.question + item.positive)):
        by_type.setdefault(example.query_type, []).append(example)
    turns = (example for turn in itertools.zip_longest(*by_type.values()) for example in turn if example is not None)
    return list(itertools.islice(turns, most))


def epoch_batches(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> Iterator[list[Example]]:
    """Shuffled batches of nearly equal size that use every example once; the order depends on seed and epoch alone."""
    order = list(examples)
    random.Random(f"{seed}:{epoch}").shuffle(order)
    count = max(1, len(order) // batch_size)
    for number in range(count):
        yield order[number * len(order) // count : (number + 1) * len(order) // count]
