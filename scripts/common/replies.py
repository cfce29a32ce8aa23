"""Replies of language models, paid for once.

A folder of append-only JSON Lines files, one writer each. The key of a reply is the digest of everything that
determines it (provider, model, messages, sampling, format), so an edited document asks anew for itself alone. Each
reply is on disk before it is used: a kill loses only requests under way. A torn last line is passed over.
"""

import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from scripts.common.files import sha256_text
from scripts.common.job import log

# Where a reply is: its file, and the first byte and the length of its line
Place = tuple[Path, int, int]


class ReplyStore:
    """All replies below a folder; this process appends to a file of its own.

    In memory is where they are, not what they say: each of many jobs opens the whole store for its share of it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._synced = 0
        self._places: dict[str, Place] = {}
        self._file = self.folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:12]}.jsonl"
        self._out: Any = None
        self._read_to: dict[Path, int] = {}
        self._usage: dict[str, dict[str, float]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what other writers have added."""
        with self._lock:
            for path in sorted(self.folder.glob("*.jsonl")):
                if path != self._file:
                    self._read(path)

    @staticmethod
    def key(request: dict[str, Any]) -> str:
        """Digest of a request."""
        return sha256_text(json.dumps(request, sort_keys=True, ensure_ascii=False))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored reply ``{"content", "usage", …}``, if there is one."""
        place = self._places.get(key)
        if place is None:
            return None
        path, first, length = place
        with path.open("rb") as stream:
            stream.seek(first)
            reply = json.loads(stream.read(length))
        del reply["key"]
        return reply

    def usage(self) -> dict[str, dict[str, float]]:
        """``requests``, ``prompt_tokens``, ``completion_tokens`` and ``seconds`` of all stored replies, by model."""
        with self._lock:
            return {model: dict(usage) for model, usage in self._usage.items()}

    def put(self, key: str, reply: dict[str, Any]) -> None:
        """Store a reply; it is on disk when this returns."""
        line = json.dumps({"key": key, "time": round(time.time(), 3), **reply}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            if self._out is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._out = self._file.open("ab")
            place = (self._file, self._out.tell(), len(line))
            self._out.write(line)
            self._out.flush()
            self._written += 1
            mine = self._written
        # one fsync for all that were written while the one before ran: it takes longer than many a reply
        with self._syncing:
            if self._synced < mine:
                written = self._written
                os.fsync(self._out.fileno())
                self._synced = written
        with self._lock:
            self._keep(key, reply, place)

    def _read(self, path: Path) -> None:
        with path.open("rb") as stream:
            stream.seek(self._read_to.get(path, 0))
            for line in stream:
                if not line.endswith(b"\n"):
                    # torn by a kill, or being written just now
                    log.debug("%s: an unfinished last line is passed over", path)
                    break
                first = self._read_to.get(path, 0)
                self._read_to[path] = first + len(line)
                try:
                    reply = json.loads(line)
                    self._keep(reply["key"], reply, (path, first, len(line)))
                except (ValueError, KeyError, TypeError):
                    log.warning("%s, before byte %d: a damaged line is passed over", path, self._read_to[path])

    def _keep(self, key: str, reply: dict[str, Any], place: Place) -> None:
        if key not in self._places and "model" in reply:
            total = self._usage.setdefault(
                reply["model"], {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}
            )
            total["requests"] += 1
            total["seconds"] += reply.get("seconds") or 0.0
            for name in ("prompt_tokens", "completion_tokens"):
                total[name] += (reply.get("usage") or {}).get(name) or 0
        self._places[key] = place
