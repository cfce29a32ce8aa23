"""Vectors through the store: what it lacks is encoded and kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.common.contract import Side
from scripts.common.encoder import Encoder
from scripts.common.vector_store import VectorStore


def stored_vectors(root: str | Path, encoder: Encoder, texts: Sequence[str], side: Side) -> np.ndarray:
    """Float32 vectors ``[len(texts), dimension]`` of an encoder's model, from the store where it has them."""
    store = VectorStore(root, encoder.contract, side)
    store.complete(texts, lambda missing: encoder.batches(missing, side))
    return store.gather(texts)
