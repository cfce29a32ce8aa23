"""What every script does around its work: log file, messages, threads, and errors without a stack trace."""

import contextlib
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError

log = logging.getLogger("embed-recipe")


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a rule's work: log to terminal and log file, obey the rule's threads, end on ``UserError`` plainly."""
    set_threads(snakemake.threads)
    path = Path(snakemake.log[0]) if len(snakemake.log) else None
    with log_to(path, snakemake.rule, snakemake.config.get("log_level", "INFO")):
        yield


def set_threads(threads: int) -> None:
    """Give numeric libraries this many threads. Must run before they are imported.

    A second busy thread pool on the same cores makes both collapse (spinning barriers), so the number is never
    more than the rule declared.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@contextlib.contextmanager
def log_to(path: Path | None, name: str, level: str = "INFO") -> Iterator[None]:
    """Send messages to standard error and, when ``path`` is given, to that file with everything an error tells."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setFormatter(logging.Formatter(f"{name}: %(message)s"))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False
    start = time.monotonic()
    try:
        yield
        log.info("done in %.1f s, peak memory %d MB", time.monotonic() - start, peak_memory_mb())
    except UserError as error:
        log.error("%s", error)
        raise SystemExit(1) from None
    except Exception:
        log.exception("failed; this is a fault of the workflow or its environment, please report it with this log:")
        raise SystemExit(1) from None
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def peak_memory_mb() -> int:
    """Peak resident memory of this process so far, in megabytes.

    From /proc where there is one: ``getrusage`` starts from the parent's peak at the fork.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
