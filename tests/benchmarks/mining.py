"""Mining against ``sentence_transformers.util.mine_hard_negatives``: wall time and peak memory, one process each.

    python -m tests.benchmarks.mining collection     # cranfield, titles as questions: cold, and with vectors known
    python -m tests.benchmarks.mining search         # 20,000 questions, 200,000 random passages: vectors given
    python -m tests.benchmarks.mining million        # 1,000 questions, 1,000,000 passages of 384 values, ours alone
    python -m tests.benchmarks.mining flat           # our exact search against FAISS's flat index, 2,000 x 200,000

Both sides get the same rule (5 negatives, at most 95 % of the positive's score). Ours runs the scripts of the rules
``embed`` and ``mine`` with their files and store. Peaks are those of the processes. No network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.model import MODEL, OPTIONS
from tests.outside import COLLECTIONS

NEGATIVES, SEED = 5, 11


def write_training(folder: Path, pairs: list[tuple[str, str]], passages: list[str]) -> None:
    """``train.json`` and ``corpus/`` as the rule ``split`` writes them."""
    from scripts.common.files import write_json
    from scripts.common.passages import collect, passage_id, write_corpus

    write_corpus(folder / "corpus", collect((text, f"{row}.txt") for row, text in enumerate(passages)), "c")
    data = [
        {"question_id": f"q{n}", "question": question, "corpus_id": "c", "pos_doc": [{"id": passage_id(text)}]}
        for n, (question, text) in enumerate(pairs)
    ]
    write_json(folder / "train.json", {"corpus": {"path": "./corpus/"}, "data": data})
    write_json(folder / "pairs.json", {"pairs": pairs, "passages": passages})


def write_collection(folder: Path) -> None:
    """Cranfield: each title a question, the text without its title the passage."""
    from scripts.common.files import read_jsonl
    from scripts.vectors.contract import write_contract

    rows = [row for _, row in read_jsonl(COLLECTIONS / "cranfield" / "corpus.jsonl")]
    pairs = {row["title"]: row["text"].removeprefix(row["title"]).strip() for row in rows if row["title"]}
    pairs = {title: text for title, text in pairs.items() if text}
    write_training(folder, list(pairs.items()), list(dict.fromkeys(pairs.values())))
    write_contract(OPTIONS, folder / "contract.json")


def write_random(folder: Path, questions: int, passages: int, dimension: int) -> None:
    """Random unit vectors in the store and as arrays; a question lies near its own passage."""
    from scripts.common.contract import Contract
    from scripts.common.vector_store import VectorStore

    contract = Contract(
        model="random",
        weights_sha256="0" * 64,
        dimension=dimension,
        pooling="avg",
        l2_normalize=True,
        query_prefix="",
        passage_prefix="",
        query_max_length=8,
        passage_max_length=8,
    )
    contract.save(folder / "contract.json")
    texts, asked = [f"passage {row}" for row in range(passages)], [f"question {row}" for row in range(questions)]
    write_training(folder, list(zip(asked, texts, strict=False)), texts)
    random = np.random.default_rng(SEED)
    out = np.lib.format.open_memmap(folder / "passages.npy", "w+", np.float32, (passages, dimension))
    near = np.empty((questions, dimension), np.float32)
    with VectorStore(folder / "vectors", contract, "passage").writer() as writer:
        for start in range(0, passages, 20_000):
            block = unit(random.standard_normal((min(20_000, passages - start), dimension), np.float32))
            writer.add(texts[start : start + len(block)], block)
            out[start : start + len(block)] = block
            for row in range(start, min(start + len(block), questions)):
                near[row] = block[row - start]
    out.flush()
    near = unit(near + 0.05 * random.standard_normal(near.shape, np.float32))
    np.save(folder / "queries.npy", near)
    with VectorStore(folder / "vectors", contract, "query").writer() as writer:
        writer.add(asked, near)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ours(folder: Path, search: str) -> dict[str, list[str]]:
    """The scripts of ``embed`` (nothing to do when the store is full) and ``mine``; negatives by question."""
    from scripts.common.config import defaults
    from scripts.common.contract import Contract
    from scripts.common.passages import read_corpus
    from scripts.prep.mine import mine
    from scripts.vectors.embed import embed
    from scripts.vectors.texts import read_texts

    contract = folder / "contract.json"
    if Contract.load(contract).model != "random":
        for side, file in (("query", folder / "train.json"), ("passage", folder / "corpus" / "train.parquet")):
            embed(
                read_texts([file]),
                side,  # type: ignore[arg-type]
                contract,
                folder / f"{side}.json",
                store_root=folder / "vectors",
                device="cpu",
                token_budget=2048,
            )
    options = {k: v for k, v in defaults()["prep"].items() if k.startswith(("hard_neg", "mining_search"))}
    mine(
        folder / "train.json",
        folder / "corpus" / "train.parquet",
        folder / "mined.json",
        contract=Contract.load(contract),
        store=folder / "vectors",
        options={**options, "mining_search": search, "hard_negatives_to_mine": NEGATIVES},
    )
    texts = {name: passage.text for name, passage in read_corpus(folder / "corpus").items()}
    mined = json.loads((folder / "mined.json").read_text())
    print(mined["mining"]["search"], file=sys.stderr)
    return {item["question"]: [texts[entry["id"]] for entry in item["neg_doc"]] for item in mined["data"]}


class Stored:
    """What ``mine_hard_negatives`` asks of a model, answered from arrays: a text's row is the number it ends with."""

    device = "cpu"

    def __init__(self, folder: Path) -> None:
        from sentence_transformers.util import cos_sim, pairwise_cos_sim

        self.passages, self.queries = np.load(folder / "passages.npy"), np.load(folder / "queries.npy")
        self.similarity, self.similarity_pairwise = cos_sim, pairwise_cos_sim

    def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
        return self.passages[[int(text.rsplit(" ", 1)[1]) for text in texts]]

    def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
        return self.queries[[int(text.rsplit(" ", 1)[1]) for text in texts]]


def theirs(folder: Path, cache: str | None) -> dict[str, list[str]]:
    """``mine_hard_negatives`` with its defaults and the same rule; negatives by question, short lists not reported."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    from scripts.common.models import resolve_model

    value = json.loads((folder / "pairs.json").read_text())
    model: Any = (
        Stored(folder)
        if (folder / "passages.npy").is_file()
        else SentenceTransformer(str(resolve_model(MODEL)), device="cpu")
    )
    questions, positives = zip(*value["pairs"], strict=True)
    found = mine_hard_negatives(
        Dataset.from_dict({"question": list(questions), "positive": list(positives)}),
        model,
        corpus=value["passages"],
        relative_margin=0.05,
        num_negatives=NEGATIVES,
        output_format="n-tuple",
        verbose=False,
        cache_folder=cache,
    )
    names = [f"negative_{number}" for number in range(1, NEGATIVES + 1)]
    return {row["question"]: [row[name] for name in names] for row in found}


def measured(side: str, folder: Path) -> None:
    """Run one side and write what it found, its time and its peak memory."""
    from scripts.common.job import peak_memory_mb

    start = time.perf_counter()
    if side.startswith("ours"):
        found = ours(folder, "approximate" if "approximate" in side else "exact")
    else:
        found = theirs(folder, str(folder / "cache") if "its cache" in side else None)
    result = {"seconds": time.perf_counter() - start, "peak_mb": peak_memory_mb()}
    (folder / "result.json").write_text(json.dumps({**result, "found": found}))


def run(side: str, folder: Path) -> dict[str, Any]:
    """A side in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.mining", "--side", side, "--folder", str(folder), "side"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result = json.loads((folder / "result.json").read_text())
    facts = [line for line in done.stderr.splitlines() if line.startswith("{'index'")]
    print(f"{side}: {result['seconds']:.1f} s, peak {result['peak_mb']} MB {' '.join(facts)}", flush=True)
    return result


def compare(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Print ratios and how many questions have the same set of negatives (of those both have in full)."""
    both = [question for question in other["found"] if len(one["found"].get(question, ())) == NEGATIVES]
    same = sum(set(one["found"][question]) == set(other["found"][question]) for question in both)
    print(
        f"theirs takes {other['seconds'] / one['seconds']:.2f} times our time and "
        f"{other['peak_mb'] / one['peak_mb']:.2f} times our peak memory; the same negatives for {same} of {len(both)} "
        "questions",
        flush=True,
    )


def flat(folder: Path) -> None:
    """Our exact search and FAISS's flat index on the same arrays in this process: the search alone."""
    import faiss

    from scripts.prep.negatives import best_below

    passages, queries = np.load(folder / "passages.npy"), np.load(folder / "queries.npy")
    limits = 0.95 * np.einsum("ij,ij->i", queries, passages[: len(queries)]).astype(np.float32)
    rows = np.arange(len(passages))
    for name in ("ours", "faiss", "ours", "faiss"):
        start = time.perf_counter()
        if name == "ours":
            best_below(queries, [(rows, passages)], limits, [set[int]()] * len(queries), NEGATIVES)
        else:
            index = faiss.IndexFlatIP(passages.shape[1])
            index.add(passages)
            # as many as mine_hard_negatives looks at
            index.search(queries, 10 * NEGATIVES + 2)
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)


def main() -> None:
    """Make the data, run the sides, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["collection", "search", "million", "flat", "side"])
    parser.add_argument("--questions", type=int)
    parser.add_argument("--passages", type=int)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--approximate", action="store_true", help="also the approximate search (search, million)")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part == "side":
        measured(arguments.side, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.part == "collection":
            write_collection(folder)
            cold, their_cold = (
                run("ours, cold", folder),
                run("sentence-transformers, cold, filling its cache folder", folder),
            )
            compare(cold, their_cold)
            warm = run("ours, vectors known", folder)
            compare(warm, run("sentence-transformers, without a cache folder (its default)", folder))
            compare(warm, run("sentence-transformers, vectors in its cache folder", folder))
            return
        sizes = {"search": (20_000, 200_000), "million": (1_000, 1_000_000), "flat": (2_000, 200_000)}
        questions, passages = sizes[arguments.part]
        write_random(folder, arguments.questions or questions, arguments.passages or passages, arguments.dimension)
        if arguments.part == "flat":
            flat(folder)
            return
        found = run("ours", folder)
        if arguments.approximate:
            run("ours, approximate", folder)
        if arguments.part == "search":
            compare(found, run("sentence-transformers", folder))


if __name__ == "__main__":
    main()
