"""The evaluation's exact search against beir's on random unit vectors: time, peak memory, and the same results.

    python -m tests.benchmarks.exact_search                          # 10,000 queries, 1,000,000 passages
    python -m tests.benchmarks.exact_search --queries 1000 --passages 100000

Each side runs in a process of its own, so that the peaks are its own; both get the vectors ready made. No network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

K = 100
SEED = 7


def unit_rows(count: int, dimension: int, path: Path, seed: int) -> None:
    """Write random unit vectors in blocks."""
    out = np.lib.format.open_memmap(path, "w+", np.float32, (count, dimension))
    random = np.random.default_rng(seed)
    for start in range(0, count, 50_000):
        block = random.standard_normal((min(50_000, count - start), dimension), np.float32)
        out[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()


class Stored:
    """beir's interface of a model that hands out stored rows; texts are row numbers."""

    def __init__(self, folder: Path) -> None:
        self.queries = np.load(folder / "queries.npy", mmap_mode="r")
        self.passages = np.load(folder / "passages.npy", mmap_mode="r")

    def encode_queries(self, texts: list[str], **_: object) -> np.ndarray:
        return np.asarray(self.queries[[int(text) for text in texts]])

    def encode_corpus(self, rows: list[dict[str, str]], **_: object) -> np.ndarray:
        first, last = int(rows[0]["text"]), int(rows[-1]["text"])
        # beir sorts by length of text, so rows come in order only when all texts are as long
        assert last - first == len(rows) - 1
        return np.asarray(self.passages[first : last + 1])


def ours(folder: Path) -> dict[str, list[str]]:
    """The evaluation's search."""
    from scripts.common.search import as_run, top_k

    queries = np.load(folder / "queries.npy")
    passages = np.load(folder / "passages.npy", mmap_mode="r")
    rows, scores = top_k(queries, passages, K + 1)
    run = as_run([f"q{i}" for i in range(len(queries))], [f"d{i}" for i in range(len(passages))], rows, scores)
    return {query: list(found)[:K] for query, found in run.items()}


def beirs(folder: Path) -> dict[str, list[str]]:
    """beir's search, as its EvaluateRetrieval calls it."""
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    model = Stored(folder)
    width = len(str(len(model.passages)))
    corpus = {f"d{i}": {"title": "", "text": f"{i:0{width}d}"} for i in range(len(model.passages))}
    queries = {f"q{i}": str(i) for i in range(len(model.queries))}
    found = DenseRetrievalExactSearch(model, batch_size=512).search(corpus, queries, K, "dot")
    return {query: sorted(hits, key=lambda hit: -hits[hit])[:K] for query, hits in found.items()}


def measured(side: str, folder: Path) -> None:
    """Run one side and write what it found for the first queries, its time and its peak memory."""
    from scripts.common.job import peak_memory_mb

    start = time.perf_counter()
    found = {"ours": ours, "beir": beirs}[side](folder)
    seconds = time.perf_counter() - start
    first = {query: found[query] for query in list(found)[:50]}
    result = {"seconds": seconds, "peak_mb": peak_memory_mb(), "queries": len(found), "first": first}
    (folder / f"{side}.json").write_text(json.dumps(result))


def main() -> None:
    """Make vectors, run both, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--only", choices=["ours", "beir"], help="one side alone")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        measured(arguments.side, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unit_rows(arguments.queries, arguments.dimension, folder / "queries.npy", SEED)
        unit_rows(arguments.passages, arguments.dimension, folder / "passages.npy", SEED + 1)
        results = {}
        for side in [arguments.only] if arguments.only else ["ours", "beir"]:
            command = [sys.executable, "-m", "tests.benchmarks.exact_search", "--side", side, "--folder", name]
            subprocess.run(command, check=True)
            results[side] = json.loads((folder / f"{side}.json").read_text())
            print(f"{side}: {results[side]['seconds']:.1f} s, peak {results[side]['peak_mb']} MB", flush=True)
    if len(results) == 2:
        print(f"beir's time is {results['beir']['seconds'] / results['ours']['seconds']:.2f} of ours")
        pairs = [(set(results["ours"]["first"][q]), set(results["beir"]["first"][q])) for q in results["ours"]["first"]]
        print(f"the same passages in the top {K}: {sum(len(a & b) for a, b in pairs) / (K * len(pairs)):.4%}")


if __name__ == "__main__":
    main()
