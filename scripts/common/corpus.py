"""Finding a corpus's documents, and a fingerprint of them that follows content and not dates.

Read while the DAG is built: standard library only.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_file, sha256_text, write_json

DEFAULT_EXTENSIONS = (".txt", ".md", ".text", "")
HUB, SAMPLE = "hf://", "sample:"
# A suffix is an extension when it is short and plain; "notes_research.nvidia.com_x" has none
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,10}$")


def extension(name: str) -> str:
    """Extension of a file name, lower case with its dot, or ``""``."""
    match = _EXTENSION.search(name.removeprefix("."))
    return match.group().lower() if match else ""


def parse_extensions(option: str | None) -> tuple[str, ...]:
    """The option ``sdg.file_extensions`` as a tuple; ``".md,txt"`` reads like ``".md,.txt"``, ``","`` adds none."""
    if option is None:
        return DEFAULT_EXTENSIONS
    parts = [part.strip().lower() for part in option.split(",")]
    return tuple(dict.fromkeys("." + part.lstrip(".") if part else "" for part in parts))


def list_documents(corpus_dir: str | Path, extensions: Iterable[str]) -> list[str]:
    """Corpus-relative POSIX paths of the documents, sorted; hidden files and folders are left out.

    Raises:
        UserError: The folder is missing, unreadable or empty, or holds no file with these extensions.
    """
    root = Path(corpus_dir)
    if not root.is_dir():
        raise UserError(f"corpus_dir {root} is not a folder. Set corpus_dir to the folder with your documents.")
    names = list(_files(root, "", frozenset()))
    if not names:
        raise UserError(f"corpus_dir {root} is empty. Put documents there, or set corpus_dir to another folder.")
    wanted = set(extensions)
    chosen = sorted(name for name in names if extension(name.rsplit("/", 1)[-1]) in wanted)
    if not chosen:
        seen = sorted({extension(name.rsplit("/", 1)[-1]) or "none" for name in names})
        raise UserError(
            f"corpus_dir {root} has {len(names)} file(s), but none with the extensions "
            f"{', '.join(sorted(name or 'none' for name in wanted))} (found: {', '.join(seen)}). "
            "Set sdg.file_extensions."
        )
    return chosen


def _files(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
    """Names of all files that are not hidden; links are followed, but not back to a folder they lie in."""
    here = above | {os.path.realpath(folder)}
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"folder {folder} of the corpus cannot be read: {error.strerror}.") from error
    for entry in entries:
        if not _is_folder(entry):
            # a link to nothing is listed, so that reading it fails rather than a document being left out
            if entry.is_symlink() or entry.is_file():
                yield prefix + entry.name
        elif os.path.realpath(entry.path) not in here:
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/", here)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # a link to itself
        return False


def fingerprint(corpus_dir: str, extensions: Iterable[str], cache_file: str | Path) -> str:
    """Digest of the names and contents of a corpus; a hub address stands for itself.

    Contents are hashed again only for files whose size or dates changed since ``cache_file`` was written. The date of
    the last change of any kind is among them: copying tools set the other one back.
    """
    if corpus_dir.startswith((HUB, SAMPLE)):
        return corpus_dir
    root, cache = Path(corpus_dir), Path(cache_file)
    known = _read_cache(cache)
    entries, changed = {}, False
    for name in list_documents(root, extensions):
        path = root / name
        try:
            status = path.stat()
            stamp = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
            place = str(path.resolve())
            if place not in known or known[place][0] != stamp:
                known[place], changed = [stamp, sha256_file(path)], True
            entries[name] = known[place][1]
        except (OSError, UserError):
            # the rule that reads it reports it and leaves it out
            entries[name] = "unreadable"
    if changed:
        write_json(cache, known, indent=0)
    return sha256_text("\n".join(f"{digest} {name}" for name, digest in entries.items()))[:32]


def _read_cache(path: Path) -> dict[str, list[str]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
