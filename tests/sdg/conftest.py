"""A corpus, its options, and a loopback endpoint in a process of its own."""

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import resolve
from scripts.sdg.bundles import join  # noqa: F401  (imported early, so that a broken stage fails here)
from scripts.sdg.chunk import make_record
from scripts.sdg.documents import Document
from scripts.sdg.generated import ARTIFACT_TYPES

ENDPOINT = Path(__file__).parent / "endpoint.py"


class Endpoint:
    """Address and log of a running endpoint."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.port = port

    def log(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/log") as answer:
            return json.load(answer)


@contextlib.contextmanager
def running_endpoint(*arguments: str) -> Iterator[Endpoint]:
    process = subprocess.Popen([sys.executable, str(ENDPOINT), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield Endpoint(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def endpoint() -> Any:
    return running_endpoint


def configuration(output: Path, url: str, **sections: Any) -> dict[str, Any]:
    """A complete configuration whose roles are all at ``url``."""
    config: dict[str, Any] = {
        "output_dir": str(output),
        "llm.providers": {"test": {"base_url": url}},
        "sdg.embed_model": None,
        "sdg.num_pairs": 4,
        "llm.timeout": 2,
        "llm.max_retries": 4,
    }
    for role in ("artifact_extraction", "qa_generation", "quality_judge"):
        config |= {f"sdg.{role}_provider": "test", f"sdg.{role}_model": "m"}
    return resolve(config | {name.replace("__", "."): value for name, value in sections.items()})


WORDS = "bearing gasket turbine coolant manifold throttle regulator injector camshaft crankcase".split()


def document(number: int) -> Document:
    """A document of three sentences that no other has."""
    first, second = WORDS[number % 10], WORDS[(number // 10) % 10]
    text = (
        f"The {first} assembly number {number} holds the {second} in place. It is checked every {number + 3} hours "
        f"by the service crew. A worn {second} of unit {number} must be replaced before the next journey."
    )
    return Document(f"unit_{number:03}.txt", text)


def records(count: int, first: int = 0) -> list[dict[str, Any]]:
    options = {"sentences_per_chunk": 1, "num_sections": 1, "bundle_strategy": "sequential"}
    return [make_record([document(n)], options, lambda text: len(text) < 1000) for n in range(first, first + count)]


def finished() -> list[dict[str, Any]]:
    """Two records with three pairs each, as generation leaves them."""
    pair = {
        "question": "What is <it>?",
        "answer": "",
        "question_complexity": 1,
        "query_type": "contextual",
        "reasoning_type": "factual",
        "segment_ids": [1],
        "hop_count": 1,
        "hop_contexts": [],
    }
    made = records(2)
    for record in made:
        record["document_artifacts"] = {name: [] for name in ARTIFACT_TYPES}
        record["qa_generation"] = {"pairs": [dict(pair), dict(pair), dict(pair)]}
        record["generation"] = {"problems": [], "judged": None, "asked": 4}
        record["deduplicated_qa_pairs"] = []
        record["qa_evaluations"] = {"evaluations": []}
    return made
