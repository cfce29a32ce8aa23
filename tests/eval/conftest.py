"""Test collections: a small generated one, and real ones where they are at hand."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from scripts.common.beir import TestSet, read_beir, write_beir
from scripts.common.bm25 import tokens
from tests.outside import COLLECTIONS

TOPICS = (
    "supersonic wing boundary layer drag",
    "heat transfer in slender bodies",
    "compiler parsing of recursive grammars",
    "operating system memory paging",
    "matrix inversion by pivoting",
    "leave accrual for part time staff",
)


def make_collection(folder: Path, *, queries_per_topic: int = 4, passages_per_topic: int = 9) -> Path:
    """Passages about six topics in BEIR layout; queries with one or two graded positives and documents of origin."""
    random = np.random.default_rng(5)
    corpus, queries, qrels = [], [], []
    for topic, text in enumerate(TOPICS):
        words = text.split()
        for number in range(passages_per_topic):
            order = random.permutation(words).tolist()
            body = " ".join([*order, f"case{topic}x{number}", "of", "the", "method"])
            corpus.append({"_id": f"d{topic}-{number}", "title": f"Part {number}" if number % 2 else "", "text": body})
        for number in range(queries_per_topic):
            asked = " ".join([f"case{topic}x{number}", *random.choice(words, 2, replace=False)])
            facts = {"query_type": "contextual" if number % 2 else "multi_hop", "hop_count": 1 + number % 2}
            queries.append(
                {"_id": f"q{topic}-{number}", "text": asked, "metadata": {**facts, "file_name": [f"{topic}.txt"]}}
            )
            qrels.append((f"q{topic}-{number}", f"d{topic}-{number}", 2))
            if number % 2:
                qrels.append((f"q{topic}-{number}", f"d{topic}-{number + 1}", 1))
    write_beir(folder, corpus, queries, qrels)
    return folder


def hash_vectors(texts: list[str], dimension: int = 96, seed: int = 0) -> np.ndarray:
    """Unit vectors ``[texts, dimension]``: a random direction for each word, summed."""
    rows = np.zeros((len(texts), dimension), np.float32)
    for row, words in enumerate(tokens(texts)):
        for word in words:
            rows[row] += np.random.default_rng(zlib.crc32(word.encode()) + seed).standard_normal(dimension)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@pytest.fixture(scope="session")
def collection_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_collection(tmp_path_factory.mktemp("collection"))


@pytest.fixture(scope="session")
def collection(collection_folder: Path) -> TestSet:
    return read_beir(collection_folder)


@pytest.fixture(scope="session", params=["generated", "cranfield", "cacm"])
def any_collection(request: pytest.FixtureRequest, collection_folder: Path) -> TestSet:
    """The generated collection, always; the real ones where they are at hand."""
    if request.param == "generated":
        return read_beir(collection_folder)
    folder = COLLECTIONS / request.param
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; the generated collection is tested all the same")
    return read_beir(folder)
