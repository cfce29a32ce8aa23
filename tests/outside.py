"""What tests and benchmarks find outside the repository: real test collections, a free port."""

import os
import socket
from pathlib import Path

# Collections in BEIR layout: named by the environment, or in a folder `shared` beside the checkout or above it
_SHARED = [folder / "shared" / "collections" for folder in Path(__file__).parents[2:]]
COLLECTIONS = Path(os.environ.get("COLLECTIONS") or next(filter(Path.is_dir, _SHARED), "collections"))


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
