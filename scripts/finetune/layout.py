"""Which passages a batch needs, and which of them each question is scored against."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.common.contract import Contract
from scripts.common.encoder import Encoder
from scripts.common.job import log
from scripts.common.vector_store import VectorStore
from scripts.finetune.examples import Example, TrainingData


@dataclasses.dataclass(frozen=True)
class Layout:
    """A batch's passages, each once, however many questions share it.

    Attributes:
        names: Passage ids.
        target: ``[queries]`` column of each question's positive.
        allowed: ``[queries, passages]`` bool, true for the positive and the negatives of each question.
    """

    names: list[str]
    target: torch.Tensor
    allowed: torch.Tensor


class BaseScores:
    """The base model's similarities, from stored vectors.

    Args:
        store: Folder of the vector store.
        contract: The base model's.
        examples: The questions and passages that will be asked for.
        data: Their texts.
        encoder: The base model, for texts whose vectors are not stored yet.
    """

    def __init__(
        self, store: str | Path, contract: Contract, examples: Sequence[Example], data: TrainingData, encoder: Encoder
    ) -> None:
        self._data = data
        self._queries = VectorStore(store, contract, "query")
        self._passages = VectorStore(store, contract, "passage")
        names = dict.fromkeys(name for example in examples for name in (example.positive, *example.negatives))
        questions = [example.question for example in examples]
        new = self._queries.complete(questions, lambda missing: encoder.batches(missing, "query"))
        texts = [data.passages[name].text for name in names]
        new += self._passages.complete(texts, lambda missing: encoder.batches(missing, "passage"))
        if new:
            log.info("%d vectors of the base model were not stored yet", new)

    def of(self, batch: Sequence[Example], names: Sequence[str]) -> np.ndarray:
        """Inner products ``[queries, passages]``."""
        queries = self._queries.gather([example.question for example in batch])
        return queries @ self._passages.gather([self._data.passages[name].text for name in names]).T


def negatives_of(example: Example, count: int, epoch: int, *, rotate: bool) -> tuple[str, ...]:
    """The hard negatives of an epoch: the hardest ``count``, or with ``rotate`` the next ``count`` of the list."""
    if not rotate or len(example.negatives) <= count:
        return example.negatives[:count]
    start = epoch * count % len(example.negatives)
    return (example.negatives * 2)[start : start + count]


def batch_layout(
    batch: Sequence[Example],
    data: TrainingData,
    options: dict[str, Any],
    epoch: int = 0,
    base: BaseScores | None = None,
) -> Layout:
    """Lay out a batch.

    A question always meets its own hard negatives. With ``in_batch_negatives`` it meets all other passages of the batch
    too, except those that may answer it: the known answers and other copies of their text, passages of the positive's
    documents, and passages that the base model scores above ``in_batch_margin`` of the positive's score (as mining does
    with hard negatives, de Souza P. Moreira et al. 2024, arXiv:2407.15831; guided in-batch negatives: Solatorio 2024,
    "GISTEmbed", arXiv:2402.16829).

    Args:
        batch: The examples.
        data: Their passages.
        options: ``train_n_passages``, ``rotate_negatives``, ``in_batch_negatives``, ``in_batch_margin``.
        epoch: Decides which hard negatives are in turn.
        base: The base model's similarities, needed for the margin.
    """
    count, rotate = options["train_n_passages"] - 1, options["rotate_negatives"]
    listed = [negatives_of(example, count, epoch, rotate=rotate) for example in batch]
    names = list(
        dict.fromkeys(name for example, row in zip(batch, listed, strict=True) for name in (example.positive, *row))
    )
    column = {name: number for number, name in enumerate(names)}
    target = torch.tensor([column[example.positive] for example in batch])
    allowed = np.zeros((len(batch), len(names)), bool)
    if options["in_batch_negatives"]:
        allowed[:] = True
        _mask_documents(allowed, batch, names, data)
        if options["in_batch_margin"] is not None and base is not None:
            _mask_margin(allowed, base.of(batch, names), target.numpy(), options["in_batch_margin"])
    copies = collections.defaultdict(list)
    for number, name in enumerate(names):
        copies[data.same_text(name)].append(number)
    for number, (example, row) in enumerate(zip(batch, listed, strict=True)):
        allowed[number, [column[name] for name in row]] = True
        for answer in example.answers:
            allowed[number, copies.get(data.same_text(answer), [])] = False
        allowed[number, column[example.positive]] = True
    return Layout(names, target, torch.from_numpy(allowed))


def _mask_documents(allowed: np.ndarray, batch: Sequence[Example], names: Sequence[str], data: TrainingData) -> None:
    columns_of = collections.defaultdict(list)
    for number, name in enumerate(names):
        for document in data.documents(name):
            columns_of[document].append(number)
    for number, example in enumerate(batch):
        for document in data.documents(example.positive):
            allowed[number, columns_of[document]] = False


def _mask_margin(allowed: np.ndarray, scores: np.ndarray, target: np.ndarray, margin: float) -> None:
    positive = scores[np.arange(len(target)), target]
    # below zero, a share of the score would be above it
    limit = positive - np.abs(positive) * (1 - margin)
    allowed &= scores <= limit[:, None]
