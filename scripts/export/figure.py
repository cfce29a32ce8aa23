"""The parity gate's figure: how far vectors of the export are from PyTorch's, with the limit, and its data."""

from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.drawing import drawing, save_figure, write_table

# Float32 cannot tell cosines that are nearer to 1
FLOOR = 1e-8
COLOURS = {"query": "#7d7d88", "passage": "#1f6feb"}


def write_figure(values: dict[str, np.ndarray], facts: dict[str, Any], limit: float, targets: dict[str, Path]) -> None:
    """Write the figure.

    Args:
        values: Cosines by side.
        facts: The comparison, for the title.
        limit: The lowest cosine allowed.
        targets: ``svg`` and ``png`` of the figure, ``csv`` of its data (one row a text).
    """
    rows = [(side, f"{value:.9f}") for side, found in values.items() for value in found]
    write_table(targets["csv"], ("side", "cosine"), rows)
    with drawing("parity", (7.2, 3.2), {"font.size": 9}) as (canvas, axes):
        distances = {side: np.maximum(1 - found, FLOOR) for side, found in values.items() if len(found)}
        most = max(*(part.max() for part in distances.values()), 1 - limit, 10 * FLOOR)
        bins = np.geomspace(FLOOR, 1.5 * most, 40)
        axes.hist(
            list(distances.values()),
            bins,
            stacked=True,
            color=[COLOURS[side] for side in distances],
            label=[f"{side} (n = {len(found)})" for side, found in distances.items()],
        )
        if limit < 1:
            axes.axvline(1 - limit, color="#1b1b1f", linewidth=1, label=f"limit: cosine {limit:g}")
        axes.set_xscale("log")
        axes.set_xlabel(f"1 − cosine to PyTorch's vector of the same text (values below {FLOOR:g} are shown there)")
        axes.set_ylabel("texts")
        low, high = facts["ndcg_difference_interval"]
        axes.set_title(
            f"lowest cosine {facts['cosine']['min']:.6f}; {100 * facts['top_10_agreement']:.1f} % of the ten best "
            f"passages alike;\nnDCG@10 {facts['ndcg_difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, "
            f"{facts['queries']} queries, {facts['passages']} passages)",
            fontsize=9,
            loc="left",
        )
        axes.legend(fontsize=8)
        for kind in ("svg", "png"):
            save_figure(canvas, targets[kind])
