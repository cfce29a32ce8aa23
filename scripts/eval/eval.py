"""All evaluations in one file, in the recipe's shape, and a table base against tuned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log

HELDOUT = "heldout"


def gather(files: Sequence[str | Path], target: str | Path, *, metadata: dict[str, Any], gate: dict[str, Any]) -> None:
    """Write ``eval_results.json`` from the files of rule ``evaluate``.

    Args:
        files: ``stage3_eval/{model}/{test set}.json``.
        target: ``eval_results.json``: metrics of the held-out set (or the only one) by model, those of all sets under
            ``_test_sets``, and ``_metadata``.
        metadata: What ``_metadata`` says besides.
        gate: ``served``, ``tolerance``, ``low_k_tolerance`` and ``fail`` of the drift of a served model.

    Raises:
        UserError: The served model drifts beyond the tolerance and the configuration forbids that.
    """
    by_set: dict[str, dict[str, Any]] = {}
    sizes = {}
    for path in map(Path, files):
        value = read_json(path, "evaluation")
        by_set.setdefault(path.stem, {})[path.parent.name] = value["metrics"]
        sizes[path.stem] = {name: value[name] for name in ("queries", "passages")}
    main = HELDOUT if HELDOUT in by_set else next(iter(by_set))
    drift = compare_served(by_set[main], gate)
    metadata = {**metadata, "test_set": main, "sizes": sizes}
    if drift is not None:
        metadata["nim_metric_comparison"] = drift
    write_json(target, {**by_set[main], "_test_sets": by_set, "_metadata": metadata})
    for name, models in by_set.items():
        show(name, models, sizes[name])
    if drift is not None and not drift["within_tolerance"]:
        message = f"the metrics of {gate['served']} drift from the checkpoint's beyond the tolerance, see {target}"
        if gate["fail"]:
            raise UserError(f"{message} (eval.fail_on_nim_metric_drift).")
        log.warning("%s", message)


def compare_served(models: dict[str, Any], gate: dict[str, Any]) -> dict[str, Any] | None:
    """Differences between the served model's metrics and the checkpoint's, in the recipe's form; else ``None``."""
    served, tuned = models.get(gate["served"]), models.get("finetuned")
    if served is None or tuned is None:
        return None
    deltas: dict[str, dict[str, Any]] = {}
    for group in ("NDCG", "Recall"):
        for name, value in tuned[group].items():
            k = int(name.rsplit("@", 1)[1])
            tolerance = gate["low_k_tolerance"] if k < 5 else gate["tolerance"]
            delta = round(served[group][name] - value, 5)
            deltas.setdefault(group, {})[name] = {
                "checkpoint": value,
                gate["served"]: served[group][name],
                "delta": delta,
                "tolerance": tolerance,
                "within_tolerance": abs(delta) <= tolerance,
            }
    within = all(row["within_tolerance"] for rows in deltas.values() for row in rows.values())
    return {
        "kind": "aggregate_behavioral_metric_drift",
        "model_identity_proof": False,
        "within_tolerance": within,
        "fail_on_drift": gate["fail"],
        "deltas": deltas,
    }


def show(name: str, models: dict[str, Any], size: dict[str, int]) -> None:
    """A table of all models on a test set, with the change from base to tuned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name}: {size['queries']} queries, {size['passages']} passages", title_justify="left")
    table.add_column("metric")
    for model in models:
        table.add_column(model, justify="right")
    compare = {"base", "finetuned"} <= set(models)
    if compare:
        table.add_column("change", justify="right")
    first = next(iter(models.values()))
    for group, values in first.items():
        for metric in values:
            row = [f"{models[model][group][metric]:.4f}" for model in models]
            if compare:
                row.append(change(models["base"][group][metric], models["finetuned"][group][metric]))
            table.add_row(metric, *row)
    Console(stderr=True).print(table)


def change(base: float, tuned: float) -> str:
    """Difference in points, and in per cent where the base is not zero."""
    points = f"{100 * (tuned - base):+.2f}"
    return f"{points} ({100 * (tuned - base) / base:+.1f} %)" if base else points


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        gather(
            snakemake.input.evaluations,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            metadata=snakemake.params.metadata,  # noqa: F821
            gate=snakemake.params.gate,  # noqa: F821
        )
