"""Progress of long work, with rate and remaining time."""

import sys
from typing import Any

from tqdm import tqdm


def progress(total: int, what: str, unit: str = "it", **options: Any) -> tqdm:
    """A progress bar on standard error: live on a terminal, a line every 30 seconds in a log."""
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=total > 20_000,
        mininterval=0.3 if live else 30,
        maxinterval=1 if live else 60,
        dynamic_ncols=live,
        ascii=not live,
        **options,
    )
