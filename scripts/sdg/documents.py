"""Reading documents: from a folder or the hub, in whatever encoding they come; nothing is left out silently."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from scripts.common.corpus import HUB, list_documents
from scripts.common.errors import UserError

_HUB_URI = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<subdir>.+?))?/?$")
# Byte values that text files do not contain; NUL alone would miss UTF-16 and flag it at the same time
_CONTROL = bytes(set(range(32)) - {7, 8, 9, 10, 12, 13, 27})
# Of UTF-32 before UTF-16, whose mark it begins with
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Stands for bytes that are no UTF-8; a text with so many times more characters beyond ASCII is UTF-8 all the same, as
# other encodings hardly ever look like it
_REPLACEMENT, _MOSTLY = "\ufffd", 5


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its corpus-relative POSIX path, and what was wrong with its file."""

    name: str
    text: str
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


def read_documents(
    corpus_dir: str | Path, extensions: Iterable[str], *, min_length: int, max_bytes: int, limit: int | None
) -> tuple[list[Document], list[Skipped]]:
    """Read a corpus folder: sorted, filtered, then capped.

    Args:
        corpus_dir: Local folder.
        extensions: As given by :func:`scripts.common.corpus.parse_extensions`.
        min_length: Shorter texts (characters, outer white space not counted) are left out.
        max_bytes: Larger files are left out.
        limit: Keep the first so many documents.

    Raises:
        UserError: No document is left; the message says why each of the first was left out.
    """
    documents: list[Document] = []
    skipped: list[Skipped] = []
    for name in list_documents(corpus_dir, extensions):
        read = _read(Path(corpus_dir, name), max_bytes)
        if not isinstance(read, Skipped) and len(read[0].strip()) < min_length:
            read = Skipped("", f"shorter than {min_length} characters")
        if isinstance(read, Skipped):
            skipped.append(Skipped(name, read.reason))
        else:
            documents.append(Document(name, *read))
    if not documents:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:3])
        raise UserError(f"no document of {corpus_dir} can be used ({reasons}).")
    return documents[:limit], skipped


def _read(path: Path, max_bytes: int) -> tuple[str, str] | Skipped:
    try:
        if path.stat().st_size > max_bytes:
            return Skipped("", f"larger than {max_bytes} bytes (sdg.max_file_size)")
        raw = path.read_bytes()
    except OSError as error:
        return Skipped("", f"not readable ({error.strerror})")
    return decode(raw)


def decode(raw: bytes) -> tuple[str, str] | Skipped:
    """Text of a file, and what was wrong with it.

    UTF-8, else UTF-16 or UTF-32 by byte order mark, else detected; binary files are refused.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            try:
                return _lines(raw.decode(encoding)), ""
            except UnicodeDecodeError:
                break
    control = sum(raw.count(bytes([value])) for value in _CONTROL)
    if control > len(raw) // 200:
        return Skipped("", "binary, not text")
    text = raw.decode("utf-8", "replace")
    strange = text.count(_REPLACEMENT) - raw.count(_REPLACEMENT.encode())
    if not strange:
        return _lines(text), ""
    if sum(not letter.isascii() for letter in text) > _MOSTLY * strange:
        return _lines(text), f"{strange} places are not UTF-8, as the rest is, and are read as {_REPLACEMENT}"
    return _detected(raw)


def _detected(raw: bytes) -> tuple[str, str] | Skipped:
    from charset_normalizer import from_bytes

    best = from_bytes(raw[:200_000]).best()
    if best is None:
        return Skipped("", "text in an encoding that cannot be told; save it as UTF-8")
    try:
        return _lines(raw.decode(best.encoding)), ""
    except UnicodeDecodeError:
        # the part that was looked at fitted, a later one does not; Latin-1 reads every byte
        return _lines(raw.decode("latin-1")), f"neither UTF-8 nor {best.encoding} throughout, and read as Latin-1"


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fetch_from_hub(uri: str) -> Path:
    """Download ``hf://org/dataset[@revision][/subdir]`` (only the subfolder) and return the local folder.

    Raises:
        UserError: The address is malformed, or the hub does not give the files.
    """
    repo, revision, subdir = parse_hub_uri(uri)
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            repo, repo_type="dataset", revision=revision, allow_patterns=f"{subdir}/**" if subdir else None
        )
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"corpus_dir {uri}: the hub cannot be reached, and the data set is not in its cache."
        ) from error
    except (HfHubHTTPError, ValueError) as error:
        raise UserError(f"corpus_dir {uri}: the hub refused it: {error}") from error
    return Path(folder, subdir or "")


def parse_hub_uri(uri: str) -> tuple[str, str | None, str | None]:
    """``(repository, revision, subfolder)`` of an ``hf://`` address."""
    match = _HUB_URI.match(uri)
    if not uri.startswith(HUB) or not match or ".." in uri:
        raise UserError(f"corpus_dir {uri} is not of the form hf://org/dataset[@revision][/subfolder].")
    return match["repo"], match["revision"], match["subdir"]
