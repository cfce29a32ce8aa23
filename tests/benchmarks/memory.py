"""Does the server's memory stay flat? Resident memory over many requests, by a straight line through its second half.

    python -m tests.benchmarks.memory --model-dir output/embed/stage4_export/onnx --requests 100000

Requests are of all kinds: short and long texts, lists, token ids, floats and base64, and some that are refused.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).parents[2]
# Samples of the resident memory over a run
SAMPLES = 100


def body(number: int, model: str) -> dict[str, Any]:
    """The request with this number."""
    kinds: list[dict[str, Any]] = [
        {"input": f"question number {number}", "input_type": "query"},
        {"input": [f"text {number} " * (1 + number % 9), "another one"]},
        {"input": [101, 2000 + number % 20_000, 102]},
        {"input": f"words of request {number} " * (number % 40 + 1), "encoding_format": "base64"},
        {"input": f"cut {number}", "dimensions": 64},
        {"input": ""},
        {"input": "x", "unknown": number},
    ]
    return {"model": model, **kinds[number % len(kinds)]}


def drive(url: str, model: str, *, requests: int, clients: int, process: psutil.Process) -> dict[str, Any]:
    """Send requests and watch the process; growth is measured once the server is warm, over the second half."""
    samples: list[tuple[int, int]] = []
    errors = 0

    async def client(number: int, session: httpx.AsyncClient) -> None:
        nonlocal errors
        for turn in range(number, requests, clients):
            reply = await session.post(f"{url}/v1/embeddings", json=body(turn, model))
            errors += reply.status_code not in {200, 400}
            if turn % max(1, requests // SAMPLES) == 0:
                samples.append((turn, process.memory_info().rss))

    async def run() -> None:
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as session:
            await asyncio.gather(*(client(number, session) for number in range(clients)))

    start = time.monotonic()
    asyncio.run(run())
    half = [(turn, rss) for turn, rss in samples if turn >= requests / 2]
    slope = np.polyfit(*zip(*half, strict=True), 1)[0]
    return {
        "requests": requests,
        "requests_per_second": round(requests / (time.monotonic() - start), 1),
        "errors": errors,
        "rss_mb": {
            name: round(samples[place][1] / 1e6, 1)
            for name, place in (("first", 0), ("half", len(samples) // 2), ("last", -1))
        },
        "growth_bytes_per_request": round(float(slope), 1),
    }


def main() -> int:
    """Start a server of its own and drive it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--port", type=int, default=18081)
    arguments = parser.parse_args()
    url = f"http://127.0.0.1:{arguments.port}"
    command = [sys.executable, "-m", "scripts.deploy.server", "--name=m", f"--port={arguments.port}"]
    command += [f"--model-dir={arguments.model_dir.resolve()}", f"--threads={arguments.threads}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/v1/health/ready", trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        watched = psutil.Process(process.pid)
        facts = drive(url, "m", requests=arguments.requests, clients=arguments.clients, process=watched)
    finally:
        process.terminate()
        process.wait(60)
    print(json.dumps(facts))
    return int(facts["errors"] > 0 or facts["growth_bytes_per_request"] > 200)


if __name__ == "__main__":
    sys.exit(main())
