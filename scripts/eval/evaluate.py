"""One model on one test set: exact search over its vectors, metrics, run file."""

from pathlib import Path
from typing import Any

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Contract
from scripts.common.files import atomic_path, write_json
from scripts.common.job import job, log
from scripts.common.metrics import Run, evaluate_run, mean_metrics
from scripts.common.search import as_run, top_k
from scripts.common.vector_store import VectorStore


def evaluate(
    test_set: str | Path,
    target: str | Path,
    *,
    model: str,
    contract: Contract,
    store: str | Path,
    k_values: list[int],
    corpus_block: int = 50_000,
) -> dict[str, Any]:
    """Write metrics (``target``) and, beside it, the TREC run file.

    Args:
        test_set: Folder in BEIR layout.
        target: JSON with means and per-query values.
        model: Name of the model, the run's tag.
        contract: The model's contract.
        store: Folder of the vector store, which holds the set's vectors.
        k_values: Cut-offs.
        corpus_block: Passages scored at once.
    """
    collection = read_beir(test_set)
    run = search(collection, contract, store, max(k_values), corpus_block)
    per_query = evaluate_run(collection.qrels, run, k_values)
    means = mean_metrics(per_query, k_values)
    result = {
        "model": model,
        "test_set": str(test_set),
        "queries": len(collection.queries),
        "passages": len(collection.corpus),
        "metrics": means,
        "per_query": per_query,
    }
    write_run(Path(target).with_suffix(".trec"), run, model)
    write_json(target, result)
    log.info("%s: %d queries, %d passages, %s", model, result["queries"], result["passages"], means["NDCG"])
    return result


def search(collection: TestSet, contract: Contract, store: str | Path, depth: int, corpus_block: int) -> Run:
    """The ``depth`` best passages of every query; one more is fetched because a query never finds itself."""
    passages = VectorStore(store, contract, "passage").gather(list(collection.corpus.values()))
    queries = VectorStore(store, contract, "query").gather(list(collection.queries.values()))
    rows, scores = top_k(queries, passages, depth + 1, corpus_block=corpus_block)
    run = as_run(list(collection.queries), list(collection.corpus), rows, scores)
    return {query: dict(list(found.items())[:depth]) for query, found in run.items()}


def write_run(path: Path, run: Run, tag: str) -> None:
    """A TREC run file: ``query Q0 passage rank score tag``."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for query, found in run.items():
            for rank, (passage, score) in enumerate(found.items(), start=1):
                out.write(f"{query} Q0 {passage} {rank} {score:.6f} {tag}\n")


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        evaluate(
            Path(snakemake.input.queries).parent,  # noqa: F821
            snakemake.output.metrics,  # noqa: F821
            model=snakemake.wildcards.model,  # noqa: F821
            contract=Contract.load(snakemake.input.contract),  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            k_values=snakemake.params.k_values,  # noqa: F821
            corpus_block=snakemake.config["prep"]["corpus_chunk_size"],  # noqa: F821
        )
