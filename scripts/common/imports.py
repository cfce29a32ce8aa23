"""Where processes find this checkout and its interpreter."""

import os
import sys
from pathlib import Path


def share_imports(root: str | Path) -> None:
    """Let every process started from here, also on cluster nodes, import ``scripts.*`` from this checkout."""
    _put_first("PYTHONPATH", str(root))


def share_interpreter() -> None:
    """Let rules that say ``python`` get the one that runs Snakemake, its environment activated or not.

    An environment that a rule names (conda, modules) is put before it when the rule runs.
    """
    if sys.prefix != sys.base_prefix:
        _put_first("PATH", str(Path(sys.executable).parent))


def _put_first(variable: str, folder: str) -> None:
    known = os.environ.get(variable, "").split(os.pathsep)
    os.environ[variable] = os.pathsep.join([folder, *(path for path in known if path and path != folder)])
