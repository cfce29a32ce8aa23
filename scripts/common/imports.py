"""Where scripts find this checkout."""

import os
from pathlib import Path


def share_imports(root: str | Path) -> None:
    """Let every process started from here, also on cluster nodes, import ``scripts.*`` from this checkout."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *(path for path in known if path and path != str(root))])
