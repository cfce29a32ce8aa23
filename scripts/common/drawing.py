"""What figures of all stages share: the frame they are drawn in, and the table of their data."""

import contextlib
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.common.files import atomic_path, write_text


@contextlib.contextmanager
def drawing(name: str, size: tuple[float, float], style: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield matplotlib's ``(figure, axes)``, to be drawn on and saved inside the block.

    Args:
        name: Ids in an SVG follow from it and not from chance, so that the same data gives the same bytes.
        size: Width and height in inches.
        style: More of matplotlib's settings by name.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        **style,
    }
    with mpl.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=size, layout="constrained")
        try:
            yield figure, axes
        finally:
            pyplot.close(figure)


def save_figure(figure: Any, path: Path) -> None:
    """Save as what the name ends with; an SVG bears neither date nor program."""
    kind = path.suffix[1:]
    extra: dict[str, Any] = {"metadata": {"Date": None, "Creator": None}} if kind == "svg" else {"dpi": 160}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, **extra)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The data of a figure as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())
