"""Documents that are the same, or nearly: found, reported, and grouped so that they can stay together in the split."""

import re
from collections.abc import Mapping, Sequence

from scripts.common.files import sha256_text

# Words of a shingle, and hashes of a signature
SHINGLE, PERMUTATIONS = 5, 128


def exact_duplicates(texts: Mapping[str, str]) -> list[list[str]]:
    """Names of documents with the same words, white space apart, in groups of two and more."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(sha256_text(" ".join(text.split())), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def near_duplicates(texts: Mapping[str, str], threshold: float) -> list[list[str]]:
    """Names of documents that share at least ``threshold`` of their shingles (Jaccard, by MinHash), in groups.

    Broder 1997, "On the resemblance and containment of documents". Documents that resemble a third one are in one group
    with it. Exact duplicates are near duplicates, too.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    leader = {name: name for name in texts}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    signatures: dict[str, MinHash] = {}
    for name, text in texts.items():
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([" ".join(shingle).encode() for shingle in _shingles(re.findall(r"\w+", text.lower()))])
        for other in index.query(signature):
            # the index proposes; the signatures decide
            if signature.jaccard(signatures[other]) >= threshold:
                leader[find(name)] = find(other)
        index.insert(name, signature)
        signatures[name] = signature
    groups: dict[str, list[str]] = {}
    for name in texts:
        groups.setdefault(find(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}
