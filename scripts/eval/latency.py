"""How long one query takes: encoding by each model, and exact search over the corpus, one at a time as a user would."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.encoder import open_encoder
from scripts.common.files import write_json
from scripts.common.job import job, log
from scripts.common.search import top_k
from scripts.common.vector_store import VectorStore

QUERIES = 50
WARM_UP = 5
DEPTH = 10


def measure(
    test_set: str | Path,
    contracts: dict[str, str | Path],
    target: str | Path,
    *,
    store: str | Path,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Write medians and 95th percentiles in milliseconds, by model.

    Args:
        test_set: Folder in BEIR layout, whose corpus has vectors.
        contracts: Contract file by model.
        target: JSON file.
        store: Folder of the vector store.
        device: Where queries are encoded.
        threads: How many the numeric libraries were given.
    """
    collection = read_beir(test_set)
    texts = list(collection.queries.values())
    # few queries are asked again and again; each is encoded anew every time
    queries = [texts[i % len(texts)] for i in range(QUERIES + WARM_UP)]
    corpus = list(collection.corpus.values())
    models = {name: time_model(file, queries, corpus, store=store, device=device) for name, file in contracts.items()}
    result = {
        "passages": len(collection.corpus),
        "queries": QUERIES,
        "threads": threads,
        "processors": os.cpu_count(),
        "models": models,
    }
    write_json(target, result)
    log.info("one query at a time, %d threads: %s", threads, models)
    return result


def time_model(
    contract_file: str | Path, queries: Sequence[str], corpus: Sequence[str], *, store: str | Path, device: str
) -> dict[str, Any]:
    """Times of one model, over the stored vectors of the corpus."""
    contract = Contract.load(contract_file)
    encoder = open_encoder(contract_file, device=device)
    passages = VectorStore(store, contract, "passage").gather(corpus)
    vectors: list[np.ndarray] = []
    encoding = timed(lambda query: vectors.append(encoder.encode([query], "query")), queries)
    searching = timed(lambda vector: top_k(vector, passages, DEPTH), vectors)
    return {"backend": contract.backend, "encode_ms": encoding, "search_ms": searching}


def timed(work: Callable[[Any], Any], items: Sequence[Any]) -> dict[str, float]:
    """Milliseconds that ``work`` takes for one item, the first few left out."""
    taken = []
    for item in items:
        start = time.perf_counter()
        work(item)
        taken.append(1000 * (time.perf_counter() - start))
    kept = np.array(taken[WARM_UP:])
    return {"median": round(float(np.median(kept)), 2), "p95": round(float(np.quantile(kept, 0.95)), 2)}


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        measure(
            Path(snakemake.input.queries).parent,  # noqa: F821
            dict(zip(snakemake.params.models, snakemake.input.contracts, strict=True)),  # noqa: F821
            snakemake.output[0],  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            device=snakemake.config["vectors"]["device"],  # noqa: F821
            threads=snakemake.threads,  # noqa: F821
        )
