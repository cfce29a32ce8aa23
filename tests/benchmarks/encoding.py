"""The encoder against ``SentenceTransformer.encode`` with its defaults: the same model, texts and number of threads.

    python -m tests.benchmarks.encoding                    # every second text of both collections
    python -m tests.benchmarks.encoding --texts 400 --rounds 3 --budgets 256 512 1024
    python -m tests.benchmarks.encoding --texts 300 --profile   # where the time of our float32 sides goes

Each measurement is a process of its own, and sides take turns, round by round: on a shared machine a slow minute then
hits all of them alike. Of each side the fastest round counts (noise only adds). Loading is not timed. No network.
Where others compute as well, ``--threads 1 --clock cpu`` counts processor time, which waiting for a turn does not
lengthen.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.model import LENGTH, MODEL, OPTIONS
from tests.outside import COLLECTIONS

# Side to the factor over sentence-transformers and the lowest cosine that are the aim
TARGETS = {"torch": (1.3, 0.99999), "onnx": (1.5, 0.99999), "onnx_int8": (2.2, 0.98)}


def collection_texts(count: int | None) -> list[str]:
    """Texts of both collections, evenly spread; ``None`` takes every second one."""
    from scripts.common.beir import passage_text
    from scripts.common.files import read_jsonl

    texts = [
        text
        for name in ("cranfield", "cacm")
        for _, row in read_jsonl(COLLECTIONS / name / "corpus.jsonl")
        if (text := passage_text(row))
    ]
    if count is None:
        return texts[::2]
    return texts[:: max(1, len(texts) // count)][:count]


def prepare(folder: Path, count: int | None) -> int:
    """Write the texts, the model's contract and the contracts of its graphs; returns the number of tokens."""
    from scripts.common.encoder import LocalEncoder, open_encoder
    from scripts.vectors.contract import write_contract
    from scripts.vectors.graph import graph_contract

    write_contract(OPTIONS, folder / "torch.json")
    for backend in ("onnx", "onnx_int8"):
        graph_contract(folder / "torch.json", folder / f"{backend}.json", backend=backend, cache=folder / "graphs")
    texts = collection_texts(count)
    (folder / "texts.json").write_text(json.dumps(texts))
    encoder = open_encoder(folder / "torch.json", device="cpu")
    assert isinstance(encoder, LocalEncoder)
    return sum(map(len, encoder.tokenize(texts, "passage")))


def measured(side: str, folder: Path, budget: int | None, clock: str) -> None:
    """Encode the texts by one side; prints seconds, and leaves the vectors."""
    import numpy as np

    from scripts.common.encoder import LocalEncoder, open_encoder
    from scripts.common.models import resolve_model

    texts = json.loads((folder / "texts.json").read_text())
    if side == "sentence_transformers":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(resolve_model(MODEL)), device="cpu")
        assert model.max_seq_length == LENGTH
        encode = model.encode
    else:
        encoder = open_encoder(folder / f"{side}.json", device="cpu")
        assert isinstance(encoder, LocalEncoder)
        encoder.token_budget = budget or encoder.token_budget

        def encode(part: list[str]) -> np.ndarray:
            return encoder.encode(part, "passage")

    encode(texts[:16])
    now = time.process_time if clock == "cpu" else time.perf_counter
    start = now()
    vectors = encode(texts)
    seconds = now() - start
    np.save(folder / f"{side}.npy", vectors)
    print(json.dumps({"seconds": seconds}))


def profile(folder: Path) -> None:
    """Print the operators of each float32 side by share of time, and what its matrix products reach."""
    import collections

    import onnxruntime
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    from scripts.common.encoder import LocalEncoder, open_encoder
    from scripts.common.onnx_encoder import OnnxEncoder

    texts = json.loads((folder / "texts.json").read_text())
    shares: dict[str, collections.Counter[str]] = {}
    encoder = open_encoder(folder / "torch.json", device="cpu")
    assert isinstance(encoder, LocalEncoder)
    encoder.parallel = 1  # the profiler sees the thread alone that starts it
    encoder.encode(texts[:16], "passage")
    with recorded(activities=[ProfilerActivity.CPU]) as seen:
        encoder.encode(texts, "passage")
    shares["torch"] = collections.Counter({row.key: row.self_cpu_time_total for row in seen.key_averages()})
    graph = open_encoder(folder / "onnx.json", device="cpu")
    assert isinstance(graph, OnnxEncoder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    graph.session = onnxruntime.InferenceSession(str(graph.folder / "model.onnx"), options)
    graph.encode(texts, "passage")
    shares["onnx"] = collections.Counter()
    for event in json.loads(Path(graph.session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            shares["onnx"][event["args"]["op_name"]] += event["dur"]
    for side, times in shares.items():
        total = sum(times.values())
        print(f"{side}: " + ", ".join(f"{name} {100 * spent / total:.1f} %" for name, spent in times.most_common(6)))
    side, inner = 384, 1536  # of all-MiniLM-L6-v2: width, width of the feed-forward part
    x, weight, bias = torch.randn(512, side), torch.randn(inner, side), torch.randn(inner)
    best = min(_seconds(lambda: torch.nn.functional.linear(x, weight, bias)) for _ in range(200))
    print(
        f"one product [512, {side}] x [{side}, {inner}] of PyTorch: {2 * 512 * side * inner / best / 1e9:.0f} GFLOP/s"
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Run all sides in turns, print ratios and cosines."""
    import numpy as np

    from scripts.common.onnx_variants import cosines

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, help="number of texts (every second one)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sides", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--budgets", type=int, nargs="+", help="token budgets to compare (the encoder's own)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="time that is counted")
    parser.add_argument("--profile", action="store_true", help="print shares of operators instead of comparing")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        measured(arguments.side, arguments.folder, arguments.budget, arguments.clock)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = prepare(folder, arguments.texts)
        if arguments.profile:
            profile(folder)
            return
        threads = {f"{library}_NUM_THREADS": str(arguments.threads) for library in ("OMP", "MKL", "OPENBLAS", "RAYON")}
        runs = [("sentence_transformers", None)]
        runs += [(side, budget) for side in arguments.sides for budget in arguments.budgets or [None]]
        times: dict[tuple[str, int | None], list[float]] = {run: [] for run in runs}
        for number in range(arguments.rounds):
            for side, budget in runs:
                command = [
                    sys.executable,
                    "-m",
                    "tests.benchmarks.encoding",
                    "--side",
                    side,
                    "--folder",
                    name,
                    "--clock",
                    arguments.clock,
                ]
                command += ["--budget", str(budget)] if budget else []
                done = subprocess.run(
                    command, check=True, capture_output=True, text=True, env={**os.environ, **threads}
                )
                times[side, budget].append(json.loads(done.stdout.splitlines()[-1])["seconds"])
                print(f"round {number + 1}: {side} {budget or ''} {times[side, budget][-1]:.2f} s", flush=True)
        reference = min(times["sentence_transformers", None])
        print(f"{tokens} tokens, {arguments.threads} threads; sentence-transformers {tokens / reference:.0f} tokens/s")
        theirs = np.load(folder / "sentence_transformers.npy")
        for (side, budget), seconds in times.items():
            if side == "sentence_transformers":
                continue
            found = cosines(np.load(folder / f"{side}.npy"), theirs)
            factor, least = TARGETS[side]
            print(
                f"{side} {budget or ''}: {tokens / min(seconds):.0f} tokens/s, {reference / min(seconds):.2f} times "
                f"sentence-transformers (aim {factor}); cosine at least {found.min():.6f}, mean {found.mean():.6f} "
                f"(aim {least})"
            )


if __name__ == "__main__":
    main()
