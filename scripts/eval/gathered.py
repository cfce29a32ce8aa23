"""What other stages left for the report, by their documented paths; what is not there is left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.common.job import log
from scripts.eval.figures import Figure, bars, curve, histogram, intervals
from scripts.eval.slices import FEWEST

SHOWN_METRICS = ("NDCG", "Recall", "MRR", "Hit")
BINS = 24


def optional(path: Path, read: Callable[[str], Any] = json.loads) -> Any:
    """The content of a file, or ``None`` where it is absent or no longer has the form it had."""
    try:
        return read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is left out of the report: %s", path, error)
        return None


def json_lines(text: str) -> list[Any]:
    """Values of a JSON Lines file."""
    # not splitlines(), which ends a line at signs that a text may hold, too
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def figures(output: Path, comparisons: dict[str, dict[str, Any]], *, trained_here: bool) -> list[Figure]:
    """All figures for which there is data; the training's only where the tuned model is the workflow's own."""
    made = [figure for name, value in comparisons.items() for figure in _of_set(name, value)]
    for make, path in (
        *([(_training, output / "stage2_finetune")] if trained_here else []),
        (_mining, output / "stage1_data_prep" / "train_mined.automodel.json"),
        (_yield, output / "stage0_sdg" / "sdg_report.json"),
    ):
        try:
            figure = make(path)
        except (KeyError, TypeError, AttributeError) as error:
            log.warning("%s has another form than expected and is left out of the report: %r", path, error)
            continue
        made += [figure] if figure else []
    return made


def _of_set(name: str, value: dict[str, Any]) -> list[Figure]:
    metric, size = value["primary_metric"], f"n = {value['queries']} queries, {value['passages']} passages"
    level = f"{100 * value['confidence']:g} %"
    scores = [
        (system, means[metric], system == "finetuned")
        for system, means in sorted(value["systems"].items(), key=lambda item: -item[1][metric])
    ]
    made = [
        Figure(
            f"systems-{name}",
            f"{metric} of each system on {name}",
            f"{metric}, 0 to 1, higher is better; {size}.",
            ("system", metric, "emphasised"),
            scores,
            lambda axes, rows: (bars(axes, rows), axes.set_xlabel(metric)),
            0.8 + 0.36 * len(scores),
        )
    ]
    if not value["differences"]:
        return made
    first = value["differences"][0]
    k = metric.rsplit("@", 1)[1]
    rows = [
        (f"{prefix}@{k}", row["queries"], *(round(100 * row[key], 4) for key in ("delta", "low", "high")))
        for prefix in SHOWN_METRICS
        if (row := first["metrics"].get(f"{prefix}@{k}"))
    ]
    pair = f"{first['candidate']} against {first['baseline']}"
    columns = ("what", "queries", "delta_points", "low_points", "high_points")
    made.append(
        Figure(
            f"change-{name}",
            f"Change on {name}, {pair}",
            f"Points (hundredths of the metric), {pair}, with {level} paired bootstrap intervals; {size}. "
            "Grey: the interval holds zero, so the change could be chance.",
            columns,
            rows,
            intervals,
            0.9 + 0.36 * len(rows),
        )
    )
    parts = [
        (
            f"{row['property']}: {row['value']}",
            row["queries"],
            *(round(100 * row[key], 4) if row.get(key) is not None else None for key in ("delta", "low", "high")),
        )
        for row in value.get("breakdown", [])
        # a property that all queries share tells nothing of for whom, nor do a few queries
        if FEWEST <= row["queries"] < value["queries"]
    ]
    if parts:
        made.append(
            Figure(
                f"breakdown-{name}",
                f"For which queries of {name}, {pair}",
                f"Change of {metric} in points (hundredths), with {level} intervals; {size}, kinds of fewer than "
                f"{FEWEST} left out. Grey: could be chance. Among many rows some look clear by chance alone: hints "
                "where to look, no findings.",
                columns,
                parts,
                intervals,
                0.9 + 0.42 * len(parts),
            )
        )
    return made


def _training(folder: Path) -> Figure | None:
    steps = optional(folder / "training.jsonl", json_lines)
    if not steps:
        return None
    summary = optional(folder / "finetune.json") or {}
    metric = {
        row["step"]: row["ndcg@10"] for row in summary.get("validation") or [] if row.get("share", 1) in {1, None}
    }
    losses = {row["step"]: row["loss"] for row in steps}
    base = [row["ndcg@10"] for row in summary.get("validation") or [] if row.get("share") == 0]
    if base:
        metric.setdefault(0, base[0])
    rows = [(step, losses.get(step), metric.get(step)) for step in sorted({*losses, *metric})]
    checked = f", {summary['validation_questions']} validation questions" if "validation_questions" in summary else ""
    examples = f"n = {summary['examples']} training pairs{checked}; " if "examples" in summary else ""
    return Figure(
        "training",
        "Training curve",
        f"{examples}{len(losses)} steps; step 0 is the base model.",
        ("step", "loss_nats", "validation_ndcg@10"),
        rows,
        curve,
        4.0 if metric else 2.4,
    )


def _mining(path: Path) -> Figure | None:
    import numpy as np

    mined = optional(path)
    if not mined:
        return None
    scores = [
        [item["score"] for row in mined["data"] for item in row[kind] if item.get("score") is not None]
        for kind in ("pos_doc", "neg_doc")
    ]
    if not all(scores):
        return None
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(part) for part in scores]), BINS)
    counts = [np.histogram(part, edges)[0].tolist() for part in scores]
    bounds = [round(float(edge), 5) for edge in edges]
    return Figure(
        "mining",
        "Scores of positives and of mined hard negatives",
        f"Cosine under the base model; n = {len(mined['data'])} training queries.",
        ("from", "to", "positives", "negatives"),
        list(zip(bounds, bounds[1:], *counts, strict=False)),
        histogram,
    )


def _yield(path: Path) -> Figure | None:
    report = optional(path)
    if not report or "kept_by_query_type" not in report:
        return None
    rows = [(f"kept: {kind}", count, True) for kind, count in report["kept_by_query_type"].items()]
    rows += [(f"dropped: {why}", count, False) for why, count in report.get("dropped_by_reason", {}).items()]
    if not rows:
        return None
    return Figure(
        "yield",
        "Questions made, kept and dropped",
        f"n = {report.get('pairs', sum(row[1] for row in rows))} questions, "
        f"{report.get('documents', 'unknown number of')} documents.",
        ("what", "questions", "emphasised"),
        rows,
        lambda axes, data: (bars(axes, data), axes.set_xlabel("questions")),
        0.8 + 0.42 * len(rows),
    )
