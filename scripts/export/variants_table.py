"""Variants of an export side by side, to choose one: a table to read, its data, and a figure."""

from pathlib import Path
from typing import Any

from scripts.common.drawing import drawing, save_figure, write_table
from scripts.common.files import write_text

COLUMNS = (
    *("variant", "MB", "texts per second", "times PyTorch", "nDCG@10", "difference", "95 % from", "95 % to"),
    *("ten best alike", "lowest cosine", "median cosine"),
)


def rows(table: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each variant, as in :data:`COLUMNS`; ``table`` has PyTorch's speed and the facts of each variant."""
    return [
        (
            name,
            f"{facts['bytes'] / 1e6:.1f}",
            f"{facts['texts_per_second']:.1f}",
            f"{facts['speed_against_pytorch']:.2f}",
            f"{facts['ndcg']:.4f}",
            f"{facts['ndcg_difference']:+.4f}",
            *(f"{value:+.4f}" for value in facts["ndcg_difference_interval"]),
            f"{100 * facts['top_10_agreement']:.1f} %",
            f"{facts['cosine']['min']:.6f}",
            f"{facts['cosine']['median']:.6f}",
        )
        for name, facts in table.items()
        if name != "pytorch"
    ]


def write_tables(table: dict[str, dict[str, Any]], folder: Path) -> None:
    """Write ``variants.md``, ``.csv``, ``.svg`` and ``.png`` into a folder."""
    found = rows(table)
    write_table(folder / "variants.csv", COLUMNS, found)
    whole, speed = table["fp32"], table["pytorch"]["texts_per_second"]
    lines = [
        f"Quality on {whole['queries']} queries and {whole['passages']} passages, against PyTorch (nDCG@10 "
        f"{whole['ndcg_pytorch']:.4f}, {speed:.1f} texts per second); speed on the machine and threads of this run.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *found)),
    ]
    write_text(folder / "variants.md", "\n".join(lines) + "\n")
    with drawing("variants", (7.2, 3.6), {"font.size": 9}) as (canvas, axes):
        for number, (name, facts) in enumerate((name, facts) for name, facts in table.items() if name != "pytorch"):
            low, high = facts["ndcg_difference_interval"]
            middle = facts["ndcg_difference"]
            # an interval by resampling need not hold the mean of the sample
            error = [[max(0, middle - low)], [max(0, high - middle)]]
            label = f"{name} ({facts['bytes'] / 1e6:.0f} MB)"
            axes.errorbar(facts["texts_per_second"], middle, error, fmt="o", capsize=3, color=f"C{number}", label=label)
        axes.axhline(0, color="#1b1b1f", linewidth=0.8)
        axes.set_xlim(left=0)
        axes.set_xlabel("texts per second")
        axes.set_ylabel("nDCG@10 against PyTorch (95 % interval)")
        axes.legend(fontsize=8)
        for kind in ("svg", "png"):
            save_figure(canvas, folder / f"variants.{kind}")
