"""Near-duplicate texts: groups of them within one collection, and what of other texts stands in given ones.

Groups are found by MinHash and banding and verified by the exact overlap of word shingles (Broder 1997, "On the
resemblance and containment of documents"; banding as in Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
chapter 3). Every pair that joins two groups has been measured, so chance decides at most whether a pair close to the
threshold is missed. Comparing with given texts needs no chance: their shingles are all held.
"""

import collections
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from scripts.common.progress import progress

SHINGLE_WORDS = 5
BANDS, ROWS = 32, 4
PRIME = np.uint64((1 << 31) - 1)
# Members of a group that a text with an equal band is compared with: of a template's thousands of copies, no more
MOST_OF_GROUP = 64
# A pair whose signatures say that it lies this many standard deviations below the threshold is not measured
DEVIATIONS = 3
# Shingle sets kept while pairs are measured
KEPT_SETS = 4096
# Texts of fewer shingles than this may stand in another by chance ("see the section on installation")
LEAST_CONTAINED = 8


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


def contained(shared: int, one: int, other: int) -> float:
    """Share of the smaller of two shingle sets (of these sizes) that both have; 0 where it is too small to say."""
    smaller = min(one, other)
    return shared / smaller if smaller >= LEAST_CONTAINED else 0.0


class ShingleIndex:
    """Texts by their shingles, to find what of another text stands in them.

    Args:
        texts: The texts, all of whose shingles are held in memory.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.sizes: list[int] = []
        self._owners: dict[int, list[int]] = {}
        for number, text in enumerate(texts):
            found = shingles(text)
            self.sizes.append(len(found))
            for shingle in found:
                self._owners.setdefault(shingle, []).append(number)

    def overlaps(self, text: str) -> Iterator[tuple[int, float, float]]:
        """``(number of a text, Jaccard index, contained share)`` of each text that has a shingle in common."""
        own = shingles(text)
        both: collections.Counter[int] = collections.Counter()
        for shingle in own:
            both.update(self._owners.get(shingle, ()))
        for number, shared in both.items():
            size = self.sizes[number]
            yield number, shared / (len(own) + size - shared), contained(shared, len(own), size)


def near_duplicates(texts: Mapping[str, str], threshold: float) -> Groups:
    """Groups of names whose texts overlap by at least ``threshold``, or overlap with one of the group that does.

    Time and memory grow with the texts and not with the pairs: held are signatures (512 bytes each), and of texts that
    are one group already, however many, no pair is measured.

    Args:
        texts: Text by name.
        threshold: Lowest Jaccard index of five-word shingles; below 0.5 many pairs are missed.
    """
    names, signatures, groups = _signatures(texts)

    @functools.lru_cache(KEPT_SETS)
    def set_of(row: int) -> frozenset[int]:
        return shingles(texts[names[row]])

    spread = np.sqrt(threshold * (1 - threshold) / (BANDS * ROWS))
    least = threshold - DEVIATIONS * spread
    bar = progress(BANDS, "near-duplicates", "band")
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = {}
        for row, part in enumerate(signatures[:, band * ROWS : (band + 1) * ROWS]):
            buckets.setdefault(part.tobytes(), []).append(row)
        for members in buckets.values():
            if len(members) > 1:
                _join_bucket(
                    members,
                    names,
                    groups,
                    lambda row, others, band=band: _likely(signatures, row, others, band, least),
                    lambda one, other: overlap(set_of(one), set_of(other)) >= threshold,
                )
        bar.update(1)
    bar.close()
    return groups


def _signatures(texts: Mapping[str, str]) -> tuple[list[str], np.ndarray, Groups]:
    """Names of distinct texts, their signatures uint32 ``[names, 128]``, and groups of those with equal shingles."""
    first: dict[bytes, str] = {}
    rows: list[np.ndarray] = []
    groups = Groups()
    bar = progress(len(texts), "MinHash", "text")
    for name in sorted(texts):
        bar.update(1)
        found = shingles(texts[name])
        if not found:
            continue
        key = hashlib.blake2b(np.sort(np.fromiter(found, np.uint64, len(found))).tobytes(), digest_size=16).digest()
        if key in first:
            groups.join(first[key], name)
        else:
            first[key] = name
            rows.append(signature(found).astype(np.uint32))
    bar.close()
    return list(first.values()), np.array(rows, np.uint32).reshape(len(rows), BANDS * ROWS), groups


def _join_bucket(
    members: Sequence[int],
    names: Sequence[str],
    groups: Groups,
    likely: Callable[[int, Sequence[int]], Sequence[int]],
    near: Callable[[int, int], bool],
) -> None:
    """Join what is near among texts with an equal band, each against a few of each group that it is not of."""
    seen: dict[str, list[int]] = {}
    for row in members:
        own = groups.find(names[row])
        others = [other for root, rows in seen.items() if root != own for other in rows]
        joined = [own]
        for other in likely(row, others) if others else ():
            root = groups.find(names[other])
            if root != groups.find(names[row]) and near(row, other):
                groups.join(root, names[row])
                joined.append(root)
        rows = [other for root in joined for other in seen.pop(root, ())]
        seen[groups.find(names[row])] = [*rows, row][:MOST_OF_GROUP]


def _likely(signatures: np.ndarray, row: int, others: Sequence[int], band: int, least: float) -> list[int]:
    """Rows whose signatures agree with that of ``row`` in at least ``least``, and in no band before ``band``."""
    equal = signatures[np.asarray(others)] == signatures[row]
    agreement = np.count_nonzero(equal, axis=1)
    enough = np.flatnonzero(agreement >= least * BANDS * ROWS)
    if not len(enough):
        return []
    met = equal[enough, : band * ROWS].reshape(len(enough), band, ROWS).all(axis=2).any(axis=1)
    new = enough[~met]
    return [others[i] for i in new[np.argsort(-agreement[new], kind="stable")]]


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
