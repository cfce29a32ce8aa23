"""Configuration values as they may be shown."""

import re
from typing import Any


def redacted(value: Any, name: str = "") -> Any:
    """The configuration without what could be a secret: it names environment variables, so nothing should be there."""
    if isinstance(value, dict):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, name) for item in value]
    if isinstance(value, str):
        if re.search(r"(?i)(secret|password|token$|api_key$)", name):
            return "(not shown)"
        return re.sub(r"(?<=://)[^/@\s]+@", "(not shown)@", value)
    return value
