"""The report's figures: SVG and PNG with their data as CSV beside them, units and n on each.

Drawn once in ink and two series colours; inside the page these become style sheet variables, so that one drawing serves
light, dark and print.
"""

import dataclasses
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.common.drawing import drawing, save_figure, write_table
from scripts.common.files import write_text

INK, GRID, FIRST, SECOND = "#1b1b1f", "#d9d9de", "#7d7d88", "#1f6feb"
VARIABLES = {INK: "var(--ink)", GRID: "var(--grid)", FIRST: "var(--first)", SECOND: "var(--second)"}
# Inches: so narrow that on a telephone the text is still large enough to read
WIDTH = 5.6
LABEL_CHARACTERS = 26


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure to draw.

    Attributes:
        name: File name without ending.
        title: What is to be seen.
        note: Units, n, and how to read it; also its description for those who cannot see it.
        columns: Names of the data's columns.
        rows: The data that is drawn.
        draw: Draws ``rows`` on matplotlib axes.
        height: In inches.
    """

    name: str
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    draw: Callable[[Any, Sequence[Sequence[Any]]], None]
    height: float = 3.0


def render(figure: Figure, folder: Path) -> str:
    """Write ``name.svg``, ``.png`` and ``.csv``; returns the SVG for the page."""
    style = {
        "font.family": "sans-serif",
        "font.size": 9,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
        "grid.color": GRID,
        "figure.facecolor": "white",
    }
    with drawing(figure.name, (WIDTH, figure.height), style) as (canvas, axes):
        axes.set_axisbelow(True)
        figure.draw(axes, figure.rows)
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Title": figure.title})
        save_figure(canvas, folder / f"{figure.name}.png")
    svg = stream.getvalue()
    write_text(folder / f"{figure.name}.svg", svg)
    write_table(folder / f"{figure.name}.csv", figure.columns, figure.rows)
    return for_page(svg, figure)


def for_page(svg: str, figure: Figure) -> str:
    """The SVG as part of a page: its colours as variables, ids of its own, a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in {**VARIABLES, "#ffffff": "none"}.items():
        svg = svg.replace(colour, variable)
    names = set(re.findall(r'\bid="([^"]+)"', svg))
    for name in sorted(names, key=len, reverse=True):
        unique = f"{figure.name}-{name}"
        svg = svg.replace(f'id="{name}"', f'id="{unique}"').replace(f'"#{name}"', f'"#{unique}"')
        svg = svg.replace(f"url(#{name})", f"url(#{unique})")
    return re.sub(r"<svg ", f'<svg role="img" aria-labelledby="{figure.name}-title" ', svg, count=1)


def folded(label: str) -> str:
    """A label over as many lines as leave the drawing its room."""
    return textwrap.fill(label, LABEL_CHARACTERS)


def intervals(axes: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Rows ``(label, n, delta, low, high)`` in points: a dot with its interval each, grey where that holds zero."""
    places = range(len(rows))[::-1]
    for place, (_, _, delta, low, high) in zip(places, rows, strict=True):
        clear = low is not None and (low > 0 or high < 0)
        colour = SECOND if clear else FIRST
        if low is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(delta, place, "o" if clear else "D", color=colour, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(
        list(places), [folded(f"{label} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n})") for label, n, *_ in rows]
    )
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("change in points")
    axes.grid(axis="x")


def bars(axes: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Rows ``(label, value, emphasised)``: horizontal bars with their values."""
    places = list(range(len(rows))[::-1])
    axes.barh(places, [row[1] for row in rows], color=[SECOND if row[2] else FIRST for row in rows], height=0.62)
    for place, (_, value, _) in zip(places, rows, strict=True):
        axes.annotate(
            f"{value:.3f}" if isinstance(value, float) else f"{value:,}",
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(places, [folded(row[0]) for row in rows])
    axes.margins(x=0.12)
    axes.grid(axis="x")


def curve(axes: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Rows ``(step, loss or None, validation metric or None)``: the loss, and below it the metric if there is one."""
    loss = [(step, value) for step, value, _ in rows if value is not None]
    metric = [(step, value) for step, _, value in rows if value is not None]
    panels = [axes]
    if metric:
        # two quantities, two panels: on one pair of axes the eye would compare what has no common unit
        canvas = axes.figure
        axes.remove()
        panels = list(canvas.subplots(2, 1, sharex=True))
        panels[1].plot(*zip(*metric, strict=True), "o-", color=SECOND, markersize=4)
        panels[1].set_ylabel("validation\nnDCG@10 (0 to 1)")
    panels[0].plot(*zip(*loss, strict=True), color=FIRST, linewidth=1.5, marker="o" if len(loss) == 1 else None)
    panels[0].set_ylabel("training loss\n(nats)")
    panels[-1].set_xlabel("optimizer step")
    for panel in panels:
        panel.grid(axis="y")


def histogram(axes: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Rows ``(from, to, positives, negatives)``: shares of each kind in a bin of scores."""
    totals = [max(1, sum(row[kind] for row in rows)) for kind in (2, 3)]
    edges = [row[0] for row in rows] + [rows[-1][1]]
    for kind, colour, label in ((3, FIRST, "hard negatives"), (2, SECOND, "positives")):
        shares = [100 * row[kind] / totals[kind - 2] for row in rows]
        count = sum(row[kind] for row in rows)
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(shares, edges, color=colour, linewidth=1.5, label=f"{label} (n = {count:,})")
    axes.set_xlabel("similarity to the query under the base model (cosine)")
    axes.set_ylabel("share of the kind (%)")
    axes.grid(axis="y")
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
