"""One model on one test set: exact search over its vectors, metrics, run file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.job import job
from scripts.common.metrics import Run
from scripts.common.search import as_run, top_k
from scripts.common.vector_store import Vectors, VectorStore
from scripts.eval.results import score_and_write


def evaluate(
    test_set: str | Path,
    target: str | Path,
    *,
    model: str,
    contract: Contract,
    store: str | Path,
    k_values: list[int],
    manifests: Sequence[str | Path] = (),
    corpus_block: int = 50_000,
) -> dict[str, Any]:
    """Write means (``target``) and, beside it, the values of every query (parquet) and the TREC run file.

    Args:
        test_set: Folder in BEIR layout.
        target: JSON file of the means.
        model: Name of the model, the run's tag.
        contract: The model's contract.
        store: Folder of the vector store, which holds the set's vectors.
        k_values: Cut-offs.
        manifests: What rule ``embed`` wrote on the vectors of this set.
        corpus_block: Passages scored at once.
    """
    check_manifests(manifests, contract)
    collection = read_beir(test_set)
    run = search(collection, contract, store, max(k_values), corpus_block)
    return score_and_write(collection, run, target, system=model, folder=test_set, k_values=k_values)


def check_manifests(manifests: Sequence[str | Path], contract: Contract) -> None:
    """Compare the vectors that are there with the contract: rows of another length would be read as nonsense.

    Raises:
        UserError: They were made under another contract, or have another dimension.
    """
    for path in manifests:
        value = read_json(path, "manifest of vectors")
        side = value.get("side")
        if side not in {"query", "passage"} or value.get("store") != contract.key(side):
            raise UserError(
                f"{path} is of vectors under another contract than {contract.model}'s; delete it, run again."
            )
        if value.get("dimension") != contract.dimension:
            raise UserError(
                f"{path}: the vectors have {value.get('dimension')} dimensions, but the contract of {contract.model} "
                f"says {contract.dimension}; delete the wrong one of the two and run again."
            )


def search(collection: TestSet, contract: Contract, store: str | Path, depth: int, corpus_block: int) -> Run:
    """The ``depth`` best passages of every query; one more is fetched because a query never finds itself.

    Raises:
        UserError: The vector store lacks a text of the collection.
    """
    passages = VectorStore(store, contract, "passage").view(list(collection.corpus.values()))
    queries = VectorStore(store, contract, "query").gather(list(collection.queries.values()))
    return rank(collection, queries, passages, depth, corpus_block=corpus_block)


def rank(collection: TestSet, queries: np.ndarray, passages: np.ndarray | Vectors, depth: int, **blocks: int) -> Run:
    """The ``depth`` best passages of every query by vectors ``[texts, dimension]``; one more is fetched, see above."""
    rows, scores = top_k(queries, passages, depth + 1, **blocks)
    return shorten(as_run(list(collection.queries), list(collection.corpus), rows, scores), depth)


def shorten(run: Run, depth: int) -> Run:
    """The first ``depth`` passages of each query."""
    return {query: dict(list(found.items())[:depth]) for query, found in run.items()}


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        evaluate(
            Path(snakemake.input.queries).parent,  # noqa: F821
            snakemake.output.metrics,  # noqa: F821
            model=snakemake.wildcards.model,  # noqa: F821
            contract=Contract.load(snakemake.input.contract),  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            k_values=snakemake.params.k_values,  # noqa: F821
            manifests=snakemake.input.vectors,  # noqa: F821
            corpus_block=snakemake.config["prep"]["corpus_chunk_size"],  # noqa: F821
        )
