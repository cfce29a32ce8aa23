"""Replies of language models, paid for once.

A folder of append-only JSON Lines files, one writer each. The key of a reply is the digest of everything that
determines it (provider, model, messages, sampling, format), so an edited document asks anew for itself alone. Each
reply is on disk before it is used: a kill loses only requests under way. A torn last line is passed over.
"""

import hashlib
import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from scripts.common.job import log


class ReplyStore:
    """All replies below a folder; this process appends to a file of its own."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._replies: dict[str, dict[str, Any]] = {}
        self._file = self.folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:12]}.jsonl"
        self._out: Any = None
        for path in sorted(self.folder.glob("*.jsonl")):
            self._read(path)

    @staticmethod
    def key(request: dict[str, Any]) -> str:
        """Digest of a request."""
        return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored reply ``{"content", "usage", …}``, if there is one."""
        return self._replies.get(key)

    def put(self, key: str, reply: dict[str, Any]) -> None:
        """Store a reply; it is on disk when this returns."""
        line = json.dumps({"key": key, "time": round(time.time(), 3), **reply}, ensure_ascii=False)
        with self._lock:
            if self._out is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._out = self._file.open("a", encoding="utf-8")
            self._out.write(line + "\n")
            self._out.flush()
            os.fsync(self._out.fileno())
            self._replies[key] = reply

    def _read(self, path: Path) -> None:
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                reply = json.loads(line)
                self._replies[reply.pop("key")] = reply
            except (ValueError, KeyError, AttributeError):
                log.warning("%s, line %d: torn by a kill, passed over", path, number)
