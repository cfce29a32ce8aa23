"""The references on one test set: BM25, and BM25 with a dense model by reciprocal rank fusion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.beir import TestSet, read_beir
from scripts.common.bm25 import BM25
from scripts.common.job import job
from scripts.common.metrics import Run
from scripts.common.search import as_run
from scripts.eval.evaluate import shorten
from scripts.eval.results import read_run, score_and_write

# Cormack, Clarke and Büttcher 2009 chose 60 on pilot data and found the value of little weight
RRF_K = 60


def evaluate_bm25(test_set: str | Path, target: str | Path, *, language: str | None, k_values: list[int]) -> dict:
    """BM25 on a test set; arguments and files as those of rule ``evaluate``."""
    collection = read_beir(test_set)
    run = bm25_run(collection, language, max(k_values))
    return score_and_write(collection, run, target, system="bm25", folder=test_set, k_values=k_values)


def bm25_run(collection: TestSet, language: str | None, depth: int) -> Run:
    """The ``depth`` best passages of every query; passages that share no word with it are no result."""
    index = BM25(list(collection.corpus.values()), language=language)
    rows, scores = index.top_k(list(collection.queries.values()), depth + 1)
    run = as_run(list(collection.queries), list(collection.corpus), rows, scores)
    return shorten({q: {p: score for p, score in found.items() if score > 0} for q, found in run.items()}, depth)


def evaluate_fusion(
    test_set: str | Path, target: str | Path, *, system: str, runs: Sequence[str | Path], k_values: list[int]
) -> dict[str, Any]:
    """Runs of other systems on the same test set, fused."""
    collection = read_beir(test_set)
    run = reciprocal_rank_fusion([read_run(path) for path in runs], max(k_values))
    return score_and_write(collection, run, target, system=system, folder=test_set, k_values=k_values)


def reciprocal_rank_fusion(runs: Sequence[Run], depth: int, k: int = RRF_K) -> Run:
    """Passages by the sum over runs of ``1 / (k + rank)``, ranks from 1 (Cormack, Clarke and Büttcher 2009).

    Ties go to the passage that an earlier run names first.
    """
    fused: Run = {}
    for run in runs:
        for query, found in run.items():
            scores = fused.setdefault(query, {})
            for rank, passage in enumerate(found, start=1):
                scores[passage] = scores.get(passage, 0.0) + 1 / (k + rank)
    return shorten({q: dict(sorted(s.items(), key=lambda item: -item[1])) for q, s in fused.items()}, depth)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        folder = Path(snakemake.input.queries).parent  # noqa: F821
        if snakemake.rule == "evaluate_bm25":  # noqa: F821
            evaluate_bm25(
                folder,
                snakemake.output.metrics,  # noqa: F821
                language=snakemake.params.language,  # noqa: F821
                k_values=snakemake.params.k_values,  # noqa: F821
            )
        else:
            evaluate_fusion(
                folder,
                snakemake.output.metrics,  # noqa: F821
                system=snakemake.params.system,  # noqa: F821
                runs=snakemake.input.runs,  # noqa: F821
                k_values=snakemake.params.k_values,  # noqa: F821
            )
