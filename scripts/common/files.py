"""Files that are either complete or absent, and readers that name the line that is wrong."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError

# Half a surrogate pair (of a file name that is not UTF-8, or a cut JSON string) has no UTF-8; this error handler writes
# it as ``\udXXX``, which is how JSON spells it, so it comes back as it was
HALF_PAIRS = "backslashreplace"


def without_half_pairs(text: str) -> str:
    """A text with a question mark for each half of a surrogate pair: no endpoint and no tokenizer takes one."""
    return text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without error.

    The temporary name is unique, so two writers never meet in one file; a kill leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    # not by mkstemp: its files are the owner's alone, artefacts follow the user's umask as any other file
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder`` that takes its place when the block ends without error.

    What was there before goes away only then.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        # one below: the temporary folder is the owner's alone, artefacts follow the user's umask
        work = Path(scratch, "new")
        work.mkdir()
        yield work
        if folder.exists():
            folder.rename(Path(scratch, "old"))
        work.rename(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any, *, indent: int = 2, sort_keys: bool = False) -> None:
    """Write strict JSON (NaN and infinities are refused with ``ValueError``), atomically."""
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors=HALF_PAIRS, newline="\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write one JSON value a line, atomically; returns the number of lines."""
    count = 0
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors=HALF_PAIRS, newline="\n") as out,
    ):
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_json(path: str | Path, what: str = "file") -> Any:
    """Read a JSON file; :class:`UserError` names file, line and column of the first mistake."""
    path = Path(path)
    try:
        # Windows editors put a byte order mark in front
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{what} {path} does not exist.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{what} {path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}.") from error


def read_jsonl(path: str | Path, what: str = "file") -> Iterator[tuple[int, Any]]:
    """Yield ``(line number, value)`` of a JSON Lines file; :class:`UserError` names the line that is wrong."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist.")
    try:
        lines = path.open("rb")
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}.") from error
    with lines:
        for number, raw in enumerate(lines, start=1):
            if not raw.strip():
                continue
            try:
                yield number, json.loads(raw)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{what} {path}, line {number}: not valid JSON ({error}).") from error


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes; :class:`UserError` when it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Put ``source`` at ``target``, atomically, as a hard link, or a copy where links are not possible."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        # resolved: a link to a symbolic link (such as the hub cache has) would point nowhere from another folder
        os.link(Path(source).resolve(), temporary)
        temporary.replace(target)
    except OSError:
        with atomic_path(target) as copy:
            shutil.copyfile(source, copy)
    finally:
        # also when source and target were one file already: replacing does nothing then
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
