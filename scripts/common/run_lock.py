"""One run at a time in an output folder, without a lock that outlives a kill.

Snakemake's own lock files stay behind after ``kill -9`` and ask for ``--unlock``; the profiles switch them off. This
lock belongs to the process, so the kernel lifts it whatever ends the run.
"""

import fcntl
import os
from pathlib import Path
from typing import IO

from scripts.common.errors import UserError
from scripts.common.job import log

_held: list[IO[str]] = []


def hold_run_lock(output_dir: str | Path) -> None:
    """Hold the folder's lock until this process ends, or a job of it calls :func:`release_run_lock`.

    Raises:
        UserError: Another run has it, or the folder cannot be written.
    """
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not _take(folder):
            pass
    except OSError as error:
        raise UserError(f"output_dir {folder} cannot be written: {error.strerror}. Set another output_dir.") from error


def release_run_lock(output_dir: str | Path) -> None:
    """Let other runs into the folder, though the run that this job belongs to goes on.

    The lock itself is the run's; another process can only take away the file that it lies on.
    """
    _file(Path(output_dir)).unlink(missing_ok=True)


def _file(folder: Path) -> Path:
    return folder / ".run.lock"


def _take(folder: Path) -> bool:
    """Take the lock; false when its file was taken away meanwhile, and another run may have the new one."""
    lock = _file(folder).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise UserError(
            f"another run (process {lock.read().strip() or '?'}) is at work in {folder}. "
            "Wait for it, or give this run another output_dir."
        ) from None
    except OSError as error:
        # some network file systems have no locks; that is no reason to refuse the work
        log.warning("%s cannot be locked (%s): see to it that no other run works there", folder, error.strerror)
    if not (_file(folder).is_file() and os.path.samestat(os.fstat(lock.fileno()), _file(folder).stat())):
        lock.close()
        return False
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    _held.append(lock)
    return True
