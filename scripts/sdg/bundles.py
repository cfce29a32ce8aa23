"""Bundles: several documents as one record, so that questions can join them."""

import difflib
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import sha256_text

BOUNDARY = "\n\n=== Document Boundary ===\n\n"


def bundle_id(names: Sequence[str]) -> str:
    """The recipe's id of a bundle: it depends on which documents are in it and not on their order."""
    joined = "||".join(sorted(names))
    # names that are not UTF-8 have halves of surrogate pairs
    return hashlib.md5(joined.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:16]


def group(
    names: Sequence[str], named: Sequence[Sequence[str]], *, size: int, largest: int, exists: Callable[[str], bool]
) -> tuple[list[list[str]], list[str]]:
    """Every document in one group: those of the manifest first, the others by ``size`` or a few more.

    Args:
        names: The documents there are, in order.
        named: Bundles of the manifest.
        size: Documents in a bundle that the manifest does not name; see :func:`neighbours`.
        largest: Most documents in any bundle.
        exists: Whether the corpus has a file of that name, though it was left out.

    Returns:
        The groups, and the names in the manifest that stand for a document that was left out.

    Raises:
        UserError: A bundle is too large, or the manifest names a document twice or one that is not there.
    """
    if size > largest:
        raise UserError(
            f"sdg.bundle_size ({size}) is greater than sdg.max_docs_per_bundle ({largest}); lower the first or raise "
            "the second."
        )
    have, used = set(names), set()
    groups: list[list[str]] = []
    left_out = []
    for number, bundle in enumerate(named, start=1):
        place = f"sdg.multi_doc_manifest, bundle {number}"
        if len(bundle) > largest:
            raise UserError(
                f"{place} has {len(bundle)} documents, but sdg.max_docs_per_bundle is {largest}; split the bundle or "
                "raise that option."
            )
        members = []
        for name in bundle:
            if name in used:
                # in two bundles its chunks would be on both sides of the split into training and test
                raise UserError(f"{place}: {name} is named before; a document can be in one bundle only.")
            used.add(name)
            if name in have:
                members.append(name)
            elif exists(name):
                left_out.append(name)
            else:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {close[0]}?" if close else " Paths are relative to corpus_dir."
                raise UserError(f"{place}: the corpus has no document {name}.{hint}")
        if members:
            groups.append(members)
    rest = [name for name in names if name not in used]
    return [*groups, *neighbours(rest, size, largest)], left_out


def neighbours(names: Sequence[str], size: int, largest: int) -> list[list[str]]:
    """Neighbours in groups of ``size`` to ``largest``; the last may be smaller.

    Where the sizes leave a choice, a name's hash decides whether it opens a group. So groups do not depend on how many
    names there are before them, and one that is added changes a few groups behind it, not all: each is a document that
    would be asked about anew.
    """
    groups: list[list[str]] = []
    for name in names:
        count = len(groups[-1]) if groups else largest
        if count == largest or (count >= size and int(sha256_text(name), 16) % 2):
            groups.append([])
        groups[-1].append(name)
    return groups


def read_manifest(path: str | Path) -> list[list[str]]:
    """Bundles of a JSON or YAML file: a list of lists of paths, or ``{"bundles": [{"docs": [...]}]}``.

    Raises:
        UserError: The file is missing, malformed or of another form; the message says where.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"sdg.multi_doc_manifest {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"sdg.multi_doc_manifest {path} is not UTF-8 (byte {error.start}).") from error
    value = _parse(text, path)
    if isinstance(value, dict):
        if set(value) != {"bundles"}:
            raise UserError(f"sdg.multi_doc_manifest {path}: expected the one key `bundles`, found {', '.join(value)}.")
        value = value["bundles"]
    if not isinstance(value, list) or not value:
        raise UserError(f"sdg.multi_doc_manifest {path}: expected a list of bundles, each a list of paths.")
    return [_bundle(item, f"sdg.multi_doc_manifest {path}, bundle {number}") for number, item in enumerate(value, 1)]


def _parse(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"sdg.multi_doc_manifest {path}, line {error.lineno}, column {error.colno}: {error.msg}."
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"sdg.multi_doc_manifest {path} is no YAML: {' '.join(str(error).split())}") from error


def _bundle(value: Any, place: str) -> list[str]:
    if isinstance(value, dict):
        value = value.get("docs")
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise UserError(f"{place}: expected a list of paths, or an object with such a list under `docs`.")
    return [PurePosixPath(name).as_posix() for name in value]


def join(texts: Sequence[str]) -> tuple[str, list[int]]:
    """The texts of a bundle as one, and where each of them starts in it."""
    lengths = [len(text) + len(BOUNDARY) for text in texts[:-1]]
    return BOUNDARY.join(texts), [0, *itertools.accumulate(lengths)]
