"""Near-duplicate texts by MinHash and banding, verified by the exact overlap of their word shingles.

Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", chapter 3. Candidates come from signatures; every reported pair has been measured, so chance decides
at most whether a pair close to the threshold is missed.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SHINGLE_WORDS = 5
BANDS, ROWS = 32, 4
PRIME = np.uint64((1 << 31) - 1)


class Groups:
    """Disjoint sets of names (union-find with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The name that stands for the group of ``name``: the smallest of its members."""
        parent = self._parent
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        """Make the groups of two names one."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def lists(self) -> list[list[str]]:
        """Groups of two and more, sorted."""
        members: dict[str, list[str]] = {}
        for name in sorted(self._parent):
            members.setdefault(self.find(name), []).append(name)
        return [group for group in members.values() if len(group) > 1]


def shingles(text: str) -> frozenset[int]:
    """Hashes of the runs of five words of a text, case and punctuation aside; a shorter text is one shingle."""
    words = re.findall(r"\w+", text.casefold())
    runs = [" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))]
    return frozenset(
        int.from_bytes(hashlib.blake2b(run.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        for run in runs
        if run
    )


def overlap(one: frozenset[int], other: frozenset[int]) -> float:
    """Jaccard index of two shingle sets."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def near_duplicates(texts: Mapping[str, str], threshold: float) -> list[tuple[str, str, float]]:
    """Pairs of names whose texts overlap by at least ``threshold``, with the overlap, sorted by name.

    Args:
        texts: Text by name.
        threshold: Lowest Jaccard index of five-word shingles; below 0.5 many pairs are missed.
    """
    sets = {name: found for name, text in texts.items() if (found := shingles(text))}
    names = sorted(sets)
    pairs = set(_candidates(names, [sets[name] for name in names]))
    measured = ((one, other, overlap(sets[one], sets[other])) for one, other in sorted(pairs))
    return [(one, other, value) for one, other, value in measured if value >= threshold]


def _candidates(names: Sequence[str], sets: Sequence[frozenset[int]]) -> Iterator[tuple[str, str]]:
    # identical sets meet once each, through a chain; a boilerplate text of thousands of copies makes no square of pairs
    first: dict[frozenset[int], int] = {}
    for index, found in enumerate(sets):
        if found in first:
            yield names[first[found]], names[index]
        else:
            first[found] = index
    distinct = list(first.values())
    signatures = np.stack([signature(sets[index]) for index in distinct]) if distinct else np.zeros((0, BANDS * ROWS))
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = {}
        for index, row in zip(distinct, signatures[:, band * ROWS : (band + 1) * ROWS], strict=True):
            buckets.setdefault(row.tobytes(), []).append(index)
        for members in buckets.values():
            yield from ((names[i], names[j]) for i, j in itertools.combinations(members, 2))


def signature(found: frozenset[int]) -> np.ndarray:
    """MinHash signature, uint64 ``[128]``: the smallest value of the set under each of 128 hash functions."""
    values = (np.fromiter(found, np.uint64, len(found)) % PRIME)[:, None]
    smallest = np.full(BANDS * ROWS, PRIME, np.uint64)
    for start in range(0, len(values), 4096):
        hashed = (values[start : start + 4096] * FACTORS + OFFSETS) % PRIME
        smallest = np.minimum(smallest, hashed.min(axis=0))
    return smallest


_generator = np.random.default_rng(20241124)
FACTORS = _generator.integers(1, int(PRIME), BANDS * ROWS, dtype=np.uint64)
OFFSETS = _generator.integers(0, int(PRIME), BANDS * ROWS, dtype=np.uint64)
