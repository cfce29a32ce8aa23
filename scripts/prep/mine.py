"""Hard negatives by the recipe's rule: the base model's best passages that score clearly below the positives.

For a question with weakest positive score ``m``, passages scoring above ``m * margin`` (``perc``) or ``m - margin``
(``abs``) are taken for unlabelled positives and passed over; of the rest, the best ``n`` are its hard negatives (the
positive-aware mining of de Souza P. Moreira et al. 2024, "NV-Retriever", arXiv:2407.15831). Unlike the original, a list
that runs out stays short instead of being filled with rejected passages.
"""

import collections
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.contract import Contract
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.passages import Passage, read_corpus, searchable
from scripts.common.progress import progress
from scripts.common.vector_store import VectorStore


def mine(
    train_file: str | Path,
    corpus_file: str | Path,
    target: str | Path,
    *,
    contract: Contract,
    store: str | Path,
    options: dict[str, Any],
    block: int = 128,
    corpus_block: int = 50_000,
) -> None:
    """Write ``train_mined.automodel.json``: positives and hard negatives with scores.

    Args:
        train_file: ``train.json``.
        corpus_file: ``corpus/train.parquet``.
        target: The mined file.
        contract: The base model's.
        store: Folder of the vector store.
        options: ``hard_negatives_to_mine``, ``hard_neg_margin``, ``hard_neg_margin_type``, ``hard_neg_same_document``.
        block: Questions scored at once.
        corpus_block: Passages scored at once.
    """
    value = read_json(train_file, "training file")
    data, passages = value["data"], read_corpus(corpus_file)
    names = searchable(passages)
    corpus = VectorStore(store, contract, "passage").gather([passage.text for passage in passages.values()])
    row_of = {name: row for row, name in enumerate(passages)}
    candidates = np.array([row_of[name] for name in names])
    queries = VectorStore(store, contract, "query").gather([item["question"] for item in data])
    forbidden = forbidden_rows(data, passages, options["hard_neg_same_document"])
    bar = progress(len(data), "mine", "question")
    for start in range(0, len(data), block):
        part = slice(start, start + block)
        for item, query, barred in zip(data[part], queries[part], forbidden[part], strict=True):
            positive_rows = [row_of[entry["id"]] for entry in item["pos_doc"]]
            scores = (corpus[positive_rows] @ query).tolist()
            item["pos_doc"] = [
                {"id": entry["id"], "score": float(score)} for entry, score in zip(item["pos_doc"], scores, strict=True)
            ]
            item["limit"] = limit(min(scores), options["hard_neg_margin"], options["hard_neg_margin_type"])
            item["barred"] = barred
        limits = np.array([item.pop("limit") for item in data[part]], np.float32)
        barred_rows = [item.pop("barred") for item in data[part]]
        blocks = _blocks(corpus, candidates, corpus_block)
        best = best_below(queries[part], blocks, limits, barred_rows, options["hard_negatives_to_mine"])
        keys = list(passages)
        for item, found in zip(data[part], best, strict=True):
            item["neg_doc"] = [{"id": keys[row], "score": float(score)} for row, score in found]
        bar.update(len(data[part]))
    bar.close()
    arguments = {
        **options,
        "model_name_or_path": contract.model,
        "pooling": contract.pooling,
        "l2_normalize": contract.l2_normalize,
        "query_prefix": contract.query_prefix,
        "passage_prefix": contract.passage_prefix,
        "query_max_length": contract.query_max_length,
        "passage_max_length": contract.passage_max_length,
    }
    write_json(target, {**value, "mining": {"args": arguments}, "data": data}, indent=4)
    report(data, options["hard_negatives_to_mine"])


def limit(weakest_positive: float, margin: float, kind: str) -> float:
    """Highest score a hard negative may have.

    ``perc`` takes ``margin`` off the weakest positive's distance from zero, so that a negative cosine moves the limit
    down as a positive one does.
    """
    if kind == "abs":
        return weakest_positive - margin
    return weakest_positive - abs(weakest_positive) * (1 - margin)


def forbidden_rows(data: Sequence[dict[str, Any]], passages: dict[str, Passage], same_document: bool) -> list[set[int]]:
    """Rows that are never a question's negatives: known positives and, unless allowed, their documents' passages."""
    row_of = {name: row for row, name in enumerate(passages)}
    by_document: dict[str, set[int]] = collections.defaultdict(set)
    for name, passage in passages.items():
        for document in passage.documents:
            by_document[document].add(row_of[name])
    # a question that was asked twice has all its positives
    positives: dict[str, set[str]] = collections.defaultdict(set)
    for item in data:
        positives[item["question"]].update(entry["id"] for entry in item["pos_doc"])
        positives[item["question"]].update(item.get("also_positive", ()))
    found = []
    for item in data:
        known = positives[item["question"]]
        rows = {row_of[name] for name in known}
        if not same_document:
            for name in known:
                for document in passages[name].documents:
                    rows |= by_document[document]
        found.append(rows)
    return found


def best_below(
    queries: np.ndarray,
    blocks: Iterator[tuple[np.ndarray, np.ndarray]],
    limits: np.ndarray,
    barred: Sequence[set[int]],
    count: int,
) -> list[list[tuple[int, float]]]:
    """Per query the ``count`` best ``(row, score)`` at or below its limit and not barred, best first.

    Memory is bounded by one block of scores; ties fall to the lower row.
    """
    best: list[list[tuple[float, int]]] = [[] for _ in queries]
    for rows, vectors in blocks:
        scores = queries @ vectors.T
        scores[scores > limits[:, None]] = -np.inf
        position_of = {row: position for position, row in enumerate(rows.tolist())}
        for index, bars in enumerate(barred):
            positions = [position_of[row] for row in bars if row in position_of]
            scores[index, positions] = -np.inf
        width = min(count, scores.shape[1])
        top = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        for index, positions in enumerate(top):
            fresh = [
                (-float(scores[index, position]), int(rows[position]))
                for position in positions
                if np.isfinite(scores[index, position])
            ]
            best[index] = sorted(best[index] + fresh)[:count]
    return [[(row, -score) for score, row in found] for found in best]


def _blocks(corpus: np.ndarray, candidates: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(candidates), size):
        rows = candidates[start : start + size]
        yield rows, corpus[rows]


def report(data: Sequence[dict[str, Any]], wanted: int) -> None:
    """Say how many negatives were found, and warn of short lists."""
    counts = [len(item["neg_doc"]) for item in data]
    short = sum(count < wanted for count in counts)
    log.info("%d questions, median %g hard negatives", len(counts), statistics.median(counts) if counts else 0)
    if short:
        log.warning(
            "%d questions have fewer than %d hard negatives: the corpus is small, or their positives score low",
            short,
            wanted,
        )


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        mine(
            snakemake.input.train,  # noqa: F821
            snakemake.input.corpus,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            contract=Contract.load(snakemake.input.contract),  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            block=snakemake.config["prep"]["mining_batch_size"],  # noqa: F821
            corpus_block=snakemake.config["prep"]["corpus_chunk_size"],  # noqa: F821
        )
