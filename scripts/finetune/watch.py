"""What can be watched while training runs, and afterwards: log files, TensorBoard, Weights & Biases, a figure."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import atomic_path
from scripts.common.job import log
from scripts.common.progress import progress

Row = dict[str, Any]


class Watch:
    """Where the rows of a run go: ``training.jsonl``, ``validation.jsonl``, and what ``report_to`` names.

    Args:
        folder: Folder of the files.
        report_to: ``tensorboard`` and ``wandb``.
        options: Shown with the run in Weights & Biases.
        run: Name of the run, the same after a resume.

    Raises:
        UserError: A package is missing.
    """

    def __init__(self, folder: Path, report_to: Sequence[str] = (), options: Row | None = None, run: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.training, self.validation = folder / "training.jsonl", folder / "validation.jsonl"
        self._bar: Any = None
        self._board = _tensorboard(folder / "tensorboard") if "tensorboard" in report_to else None
        self._wandb = _wandb(options or {}, run) if "wandb" in report_to else None

    def start(self, rows: Sequence[Row], total: int) -> None:
        """Begin, with the rows of the steps that are done already."""
        write_rows(self.training, rows)
        self._bar = progress(total, "train", "step", initial=len(rows))

    def step(self, row: Row) -> None:
        """A training step."""
        with self.training.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        self._bar.set_postfix(loss=f"{row['loss']:.3f}", lr=f"{row['lr']:.1e}", refresh=False)
        self._bar.update()
        self._send("train", row, ("loss", "lr", "grad_norm", "time_per_step", "mem"))

    def validated(self, rows: Sequence[Row]) -> None:
        """All validations so far."""
        write_rows(self.validation, rows)
        if rows and rows[-1]["share"] == 1:
            self._send("validation", rows[-1], ("ndcg@10",))

    def close(self) -> None:
        """End the displays."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _send(self, group: str, row: Row, names: Sequence[str]) -> None:
        if self._board is not None:
            for name in names:
                self._board.add_scalar(f"{group}/{name}", row[name], row["step"])
        if self._wandb is not None:
            self._wandb.log({f"{group}/{name}": row[name] for name in names}, step=row["step"])


class Silent(Watch):
    """For the processes beside the first: nothing."""

    def __init__(self) -> None:
        pass

    def start(self, rows: Sequence[Row], total: int) -> None:
        """See :meth:`Watch.start`."""

    def step(self, row: Row) -> None:
        """See :meth:`Watch.step`."""

    def validated(self, rows: Sequence[Row]) -> None:
        """See :meth:`Watch.validated`."""

    def close(self) -> None:
        """See :meth:`Watch.close`."""


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """One JSON object a line, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def draw(path: Path, training: Sequence[Row], validation: Sequence[Row]) -> None:
    """Loss by step above, validation nDCG@10 by step and share of the tuning below, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # the same bytes for the same rows
    mpl.rcParams["svg.hashsalt"] = "embed-recipe"
    figure = Figure(figsize=(7, 6 if validation else 3.2), layout="constrained")
    axes = figure.subplots(2 if validation else 1, 1, squeeze=False)[:, 0]
    axes[0].plot([row["step"] for row in training], [row["loss"] for row in training], linewidth=1)
    axes[0].set(xlabel="step", ylabel="training loss")
    if validation:
        _draw_validation(axes[1], validation)
    for axis in axes:
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _draw_validation(axis: Any, rows: Sequence[Row]) -> None:
    whole = sorted((row["step"], row["ndcg@10"]) for row in rows if row["share"] == 1)
    axis.plot([step for step, _ in whole], [score for _, score in whole], marker="o", label="tuned")
    between = [row for row in rows if 0 < row["share"] < 1]
    if between:
        axis.scatter([row["step"] for row in between], [row["ndcg@10"] for row in between], marker="x", label="between")
        for row in between:
            axis.annotate(f"{row['share']:g}", (row["step"], row["ndcg@10"]), textcoords="offset points", xytext=(5, 0))
    for row in rows:
        if row["share"] == 0:
            axis.axhline(row["ndcg@10"], color="gray", linestyle="--", label="base")
    axis.set(xlabel="step", ylabel="validation nDCG@10")
    axis.legend()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "finetune.report_to names tensorboard, which is not installed: pip install tensorboard, or take it out."
        ) from None
    log.info("watch with: tensorboard --logdir %s", folder)
    return SummaryWriter(str(folder))


def _wandb(options: Row, run: str) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError(
            "finetune.report_to names wandb, which is not installed: pip install wandb, or take it out."
        ) from None
    project = os.environ.get("WANDB_PROJECT", "embed-recipe")
    return wandb.init(project=project, id=run, resume="allow", config=options)
