"""Configuration values as files, pages and messages may show them.

The configuration names environment variables instead of keys, so nothing should be there to hide; this is for what
somebody writes there all the same.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

HIDDEN = "(not shown)"
_SECRET = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def redacted(value: Any, name: str = "") -> Any:
    """A configuration without secrets: by an option's ``name``, and in addresses."""
    if isinstance(value, Mapping):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if _SECRET.search(name):
        return HIDDEN
    return redacted_url(value) if _ADDRESS.match(value) else value


def redacted_url(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
