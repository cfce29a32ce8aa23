"""Vectors that were computed once, found again by what determines them.

A store is a folder per contract side (key: :meth:`Contract.key`). Each writer appends to a pair of files of its own,
``<writer>.vec`` (float32 rows) or ``<writer>.f16`` (float16 rows), and ``<writer>.idx`` (one fixed record a row: 32
bytes SHA-256 of the text, 4 bytes CRC-32 of the row). Nothing is ever rewritten, so a kill costs at most the batch
under way, several jobs may write at once, also on a shared file system, and a torn or corrupted row is simply missing
and computed again.
"""

import hashlib
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from scripts.common.contract import Contract, Side
from scripts.common.errors import UserError
from scripts.common.job import log

# Missing texts to ``(indices into them, vectors [len(indices), dimension])``, as ``Encoder.batches`` gives them
EncodeMissing = Callable[[list[str]], Iterable[tuple[list[int], np.ndarray]]]
RECORD = struct.Struct("<32sI")
SUFFIXES = {"float32": ".vec", "float16": ".f16"}
# A row's place is one number, file and row: a store of millions must fit into memory
ROW_BITS = 40


def text_key(text: str) -> bytes:
    """SHA-256 of a text, 32 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class VectorStore:
    """The vectors of one contract side.

    Args:
        root: Folder of all stores, usually ``<output_dir>/cache/vectors``.
        contract: Decides the key and the row length.
        side: ``query`` or ``passage``.
    """

    def __init__(self, root: str | Path, contract: Contract, side: Side) -> None:
        self.folder = Path(root) / contract.key(side)
        self.dimension, self.model = contract.dimension, contract.model
        self._rows: dict[bytes, int] = {}
        self._files: list[np.ndarray] = []
        self._checks: list[np.ndarray] = []
        self._sound_rows: list[np.ndarray] = []
        self.refresh()

    def refresh(self) -> None:
        """Read what is on disk now."""
        self._rows.clear()
        self._files.clear()
        self._checks.clear()
        self._sound_rows.clear()
        for index_file in sorted(self.folder.glob("*.idx")):
            dtype = np.dtype("float16" if index_file.with_suffix(SUFFIXES["float16"]).is_file() else "float32")
            vector_file = index_file.with_suffix(SUFFIXES[dtype.name])
            count = min(
                index_file.stat().st_size // RECORD.size, _size(vector_file) // (dtype.itemsize * self.dimension)
            )
            if not count:
                continue
            records = np.fromfile(index_file, np.dtype([("key", "V32"), ("crc", "<u4")]), count)
            self._files.append(np.memmap(vector_file, dtype, "r", shape=(count, self.dimension)))
            self._checks.append(records["crc"])
            self._sound_rows.append(np.zeros(count, bool))
            first = (len(self._files) - 1) << ROW_BITS
            self._rows.update((key.tobytes(), first + row) for row, key in enumerate(records["key"]))

    def __contains__(self, text: str) -> bool:
        return text_key(text) in self._rows

    def missing(self, texts: Sequence[str], dtype: str = "float16") -> list[str]:
        """Texts without a sound vector of at least the precision ``dtype``, each once, in order."""
        wanted = {text_key(text): text for text in texts}
        least = np.dtype(dtype).itemsize
        gone = {key for key in wanted if not self._sound(key, least)}
        return [text for key, text in wanted.items() if key in gone]

    def complete(self, texts: Sequence[str], encode: EncodeMissing) -> int:
        """Compute and store the vectors that are missing of ``texts``; returns how many those were."""
        missing = self.missing(texts)
        if missing:
            with self.writer() as writer:
                for indices, rows in encode(missing):
                    writer.add([missing[index] for index in indices], rows)
            self.refresh()
        return len(missing)

    def gather(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 vectors ``[len(texts), dimension]``; each row is checked when it is first read.

        Raises:
            UserError: A text has no vector, or a damaged one: files of the cache were deleted or changed since rule
                ``embed`` said that all is there.
        """
        try:
            places = np.fromiter((self._rows[text_key(text)] for text in texts), np.int64, len(texts))
        except KeyError:
            raise UserError(self._remedy("lacks vectors of")) from None
        vectors = np.empty((len(texts), self.dimension), np.float32)
        numbers, rows = divmod(places, 1 << ROW_BITS)
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            self._verify(int(number), rows[chosen])
            vectors[chosen] = self._files[number][rows[chosen]]
        return vectors

    def view(self, texts: Sequence[str]) -> "Vectors":
        """The vectors of ``texts``, like :meth:`gather` but read where they are sliced, in the memory of a slice.

        Raises:
            UserError: A text has no vector.
        """
        if not all(text_key(text) in self._rows for text in texts):
            raise UserError(self._remedy("lacks vectors of"))
        return Vectors(self, texts)

    def writer(self, dtype: str = "float32") -> "StoreWriter":
        """A context manager that appends rows of type ``float32`` or ``float16`` to files of its own."""
        return StoreWriter(self.folder, self.dimension, dtype)

    def _sound(self, key: bytes, least: int) -> bool:
        place = self._rows.get(key)
        if place is None:
            return False
        number, row = divmod(place, 1 << ROW_BITS)
        if self._files[number].itemsize < least:
            return False
        if self._is_sound(number, row):
            return True
        log.warning("vector store %s: a row is damaged and will be computed again", self.folder)
        del self._rows[key]
        return False

    def _verify(self, number: int, rows: np.ndarray) -> None:
        """Check rows of a file that were not checked before."""
        sound = self._sound_rows[number]
        for row in rows[~sound[rows]].tolist():
            if not self._is_sound(number, row):
                raise UserError(self._remedy("has a damaged vector of"))
            sound[row] = True

    def _is_sound(self, number: int, row: int) -> bool:
        vector = self._files[number][row]
        return zlib.crc32(vector.tobytes()) == self._checks[number][row] and bool(np.isfinite(vector).all())

    def _remedy(self, what: str) -> str:
        return (
            f"the vector store {self.folder.parent} {what} {self.model}. Were files below cache/ deleted or changed? "
            "Delete the manifests below vectors/ as well, and run again: what is missing is computed."
        )


class Vectors:
    """Vectors of texts in a store, ``[texts, dimension]``; a slice of them is read, as float32, when it is taken."""

    def __init__(self, store: VectorStore, texts: Sequence[str]) -> None:
        self._store, self._texts = store, texts
        self.shape = (len(texts), store.dimension)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, part: slice) -> np.ndarray:
        return self._store.gather(self._texts[part])


class StoreWriter:
    """Appends rows; every :meth:`add` is on disk when it returns."""

    def __init__(self, folder: Path, dimension: int, dtype: str = "float32") -> None:
        self.dimension, self.dtype = dimension, np.dtype(dtype)
        folder.mkdir(parents=True, exist_ok=True)
        # numbered, so that a recomputed row is read after, and wins over, a damaged one
        self.base = folder / f"{_next_number(folder):06d}-{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> "StoreWriter":
        self._vectors = self.base.with_suffix(SUFFIXES[self.dtype.name]).open("ab", buffering=0)
        self._index = self.base.with_suffix(".idx").open("ab", buffering=0)
        return self

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append the rows of ``texts``; ``vectors`` is ``[len(texts), dimension]``.

        Raises:
            ValueError: The shape is wrong, or a value is not finite or beyond float16 where that is the type.
        """
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(vectors, self.dtype)
        if rows.shape != (len(texts), self.dimension):
            raise ValueError(f"vectors have shape {rows.shape}, expected {(len(texts), self.dimension)}")
        if not np.isfinite(rows).all():
            raise ValueError("the model returned vectors with NaN or infinite values")
        records = b"".join(
            RECORD.pack(text_key(text), zlib.crc32(row.tobytes())) for text, row in zip(texts, rows, strict=True)
        )
        # rows before records: a kill between the two leaves rows that no record names
        self._vectors.write(rows.tobytes())
        os.fsync(self._vectors.fileno())
        self._index.write(records)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._index.fileno())
        self._vectors.close()
        self._index.close()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _next_number(folder: Path) -> int:
    numbers = [int(path.name[:6]) for path in folder.glob("*.idx") if path.name[:6].isdigit()]
    return max(numbers, default=0) + 1
