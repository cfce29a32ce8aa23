"""Load on our server and on its peers: the same model, texts and client, one after the other in one run.

    python -m tests.benchmarks.serving ../shared/collections/cranfield --seconds 60 --infinity path/to/venv

Every client sends one text of the collection at a time and waits for its answer. Peers: sentence-transformers behind
FastAPI, and infinity-emb when ``--infinity`` names a virtual environment that has it. Vectors are compared with ours.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil

from scripts.common.beir import read_beir
from scripts.common.contract import Contract, weights_digest
from scripts.common.models import resolve_model
from scripts.common.onnx_variants import fuse, quantize_dynamic
from scripts.export.export_onnx import export_onnx
from scripts.vectors.contract import write_contract
from tests.benchmarks.model import MODEL, OPTIONS

ROOT = Path(__file__).parents[2]
PROBES = 32


async def load(url: str, texts: list[str], clients: int, seconds: float) -> dict[str, float]:
    """Requests a second, latencies in ms, and errors of ``clients`` clients for ``seconds``."""
    latencies: list[float] = []
    errors = 0
    end = time.monotonic() + seconds

    async def client(number: int, session: httpx.AsyncClient) -> None:
        nonlocal errors
        turn = number
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                reply = await session.post(url, json={"model": "m", "input": texts[turn % len(texts)]})
                errors += reply.status_code != 200
            except httpx.HTTPError:
                errors += 1
            latencies.append(time.monotonic() - start)
            turn += clients

    limits = httpx.Limits(max_connections=clients)
    started = time.monotonic()
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as session:
        await asyncio.gather(*(client(number, session) for number in range(clients)))
    took = time.monotonic() - started
    cut = {f"p{p}_ms": round(1e3 * float(np.percentile(latencies, p)), 1) for p in (50, 99)}
    return {"requests": len(latencies), "requests_per_second": round(len(latencies) / took, 2), **cut, "errors": errors}


@contextlib.contextmanager
def server(command: list[str], health: str, environment: dict[str, str]) -> Iterator[psutil.Process]:
    """A server process that answers its health address."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 180
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(health, trust_env=False).status_code == 200:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(log.read().decode()[-2000:])
                time.sleep(0.2)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process and what it started."""
    times = [part.cpu_times() for part in (process, *process.children(recursive=True))]
    return sum(part.user + part.system for part in times)


def int8_of(exported: Path, target: Path) -> None:
    """The exported folder with a dynamic int8 graph in place of the fp32 one."""
    import dataclasses
    import shutil

    shutil.copytree(exported, target)
    fuse(exported / "model.onnx", target / "fused.onnx")
    quantize_dynamic(target / "fused.onnx", target / "model.onnx")
    (target / "fused.onnx").unlink()
    contract = Contract.load(target / "contract.json")
    dataclasses.replace(contract, weights_sha256=weights_digest(target)).save(target / "contract.json")


def main() -> int:
    """Run all servers and print one line of JSON for each, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", help="names of servers, in the order to run them")
    parser.add_argument("--infinity", type=Path, help="virtual environment with infinity-emb")
    parser.add_argument("--port", type=int, default=18080)
    arguments = parser.parse_args()
    texts = [text for text in read_beir(arguments.collection).corpus.values() if text]
    found: dict[str, dict[int, dict[str, float]]] = {}
    reference: np.ndarray | None = None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_contract(OPTIONS, work / "contract.json")
        export_onnx(
            work / "contract.json", work / "onnx", opset=17, dtype="fp32", attention="eager", use_dimensions=True
        )
        int8_of(work / "onnx", work / "int8")
        source = str(resolve_model(MODEL))
        port = str(arguments.port)
        ours = [sys.executable, "-m", "scripts.deploy.server", "--name=m", f"--port={port}"]
        ours.append(f"--threads={arguments.threads}")
        commands = {
            "ours fp32": [*ours, f"--model-dir={work / 'onnx'}"],
            "ours int8": [*ours, f"--model-dir={work / 'int8'}"],
            "sentence-transformers": [
                *(sys.executable, "-m", "tests.benchmarks.plain_server", "--model", source, "--port", port),
                *("--max-length", "256"),
            ],
        }
        if arguments.infinity:
            commands["infinity-emb"] = [
                *(str(arguments.infinity / "bin" / "infinity_emb"), "v2", "--model-id", source, "--port", port),
                *("--served-model-name", "m", "--url-prefix", "/v1", "--device", "cpu", "--no-bettertransformer"),
            ]
        else:
            print(json.dumps({"server": "infinity-emb", "skipped": "--infinity names no virtual environment with it"}))
        environment = {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        for name in arguments.only or commands:
            command = commands[name]
            base = f"http://127.0.0.1:{port}"
            health = f"{base}/health" if name == "infinity-emb" else f"{base}/v1/health/ready"
            try:
                with server(command, health, environment) as process:
                    reply = httpx.post(
                        f"{base}/v1/embeddings",
                        json={"model": "m", "input": texts[:PROBES]},
                        timeout=120,
                        trust_env=False,
                    )
                    vectors = np.array([row["embedding"] for row in reply.json()["data"]])
                    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                    reference = vectors if reference is None else reference
                    cosine = float((vectors * reference).sum(axis=1).min())
                    found[name] = {}
                    for clients in arguments.clients:
                        before = cpu_seconds(process)
                        facts = asyncio.run(load(f"{base}/v1/embeddings", texts, clients, arguments.seconds))
                        # on a machine that others use too, throughput also tells how many threads fought for it
                        facts["cpu_ms_per_request"] = round(1e3 * (cpu_seconds(process) - before) / facts["requests"])
                        found[name][clients] = facts
                    print(json.dumps({"server": name, "min_cosine": round(cosine, 6), **found[name]}), flush=True)
            except RuntimeError as error:
                print(json.dumps({"server": name, "failed": str(error)[-600:]}), flush=True)
    for clients in arguments.clients:
        rates = {name: values[clients]["requests_per_second"] for name, values in found.items()}
        best = max((rate for name, rate in rates.items() if not name.startswith("ours")), default=None)
        if best:
            ratios = {name: round(rate / best, 2) for name, rate in rates.items() if name.startswith("ours")}
            print(json.dumps({"clients": clients, "throughput against the better peer": ratios}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
