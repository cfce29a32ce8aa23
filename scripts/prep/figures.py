"""Figures of stage 1, each an SVG with its numbers as CSV beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.drawing import drawing, save_figure, write_table

FIRST, SECOND = "#0072b2", "#d55e00"  # Okabe and Ito: told apart by colour-blind readers as well
BINS = 40


def draw_all(report: Mapping[str, Any], data: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Draw scores of positives and negatives, negatives per question, sizes of the parts, and what was left out."""
    scores = {
        kind: np.array([entry["score"] for item in data for entry in item[kind] if entry.get("score") is not None])
        for kind in ("pos_doc", "neg_doc")
    }
    both = np.concatenate(list(scores.values()))
    edges = np.histogram_bin_edges(both if len(both) else np.array([0.0, 1.0]), BINS)
    counts = [np.histogram(values, edges)[0].tolist() for values in scores.values()]
    rows = list(zip(edges[:-1].round(4).tolist(), edges[1:].round(4).tolist(), *counts, strict=True))
    save(folder / "scores", ("from", "to", "positives", "negatives"), rows, _histogram)
    per_question = np.bincount([len(item["neg_doc"]) for item in data] or [0])
    rows = [(str(number), int(count)) for number, count in enumerate(per_question)]
    save(folder / "negatives_per_question", ("negatives", "questions"), rows, _bars)
    sizes = [(f"{kind}: {part}", count) for kind, parts in report["sizes"].items() for part, count in parts.items()]
    save(folder / "sizes", ("part", "count"), sizes, _bars)
    left_out = list(report["left_out"].items()) or [("nothing", 0)]
    save(folder / "left_out", ("reason", "pairs"), left_out, _bars)


def save(
    path: Path, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], draw: Callable[[Any, Any, Sequence[str]], None]
) -> None:
    """Write ``<path>.csv`` and ``<path>.svg``, the same bytes for the same rows."""
    write_table(path.with_suffix(".csv"), columns, rows)
    height = 3.2 if draw is _histogram else 0.9 + 0.32 * len(rows)
    with drawing(path.name, (7.5, height), {"font.size": 10}) as (figure, axes):
        draw(axes, rows, columns)
        save_figure(figure, path.with_suffix(".svg"))


def _histogram(axes: Any, rows: Sequence[tuple[Any, ...]], _columns: Sequence[str]) -> None:
    for column, colour, label in ((3, FIRST, "hard negatives"), (2, SECOND, "positives")):
        heights = [row[column] for row in rows]
        axes.bar(
            [row[0] for row in rows],
            heights,
            [row[1] - row[0] for row in rows],
            align="edge",
            color=colour,
            alpha=0.7,
            label=f"{label} (n = {sum(heights):,})",
        )
    axes.set_xlabel("cosine with the question, base model")
    axes.set_ylabel("passages")
    axes.legend()


def _bars(axes: Any, rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> None:
    places = range(len(rows))
    drawn = axes.barh(places, [row[1] for row in rows], color=FIRST)
    axes.bar_label(drawn, labels=[f"{row[1]:,}" for row in rows], padding=3)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(columns[1])
    if columns[0] == "negatives":
        axes.set_ylabel("hard negatives")
