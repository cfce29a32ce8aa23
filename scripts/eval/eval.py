"""All evaluations in one file, in the recipe's shape, with the verdict and a table on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.redaction import redacted
from scripts.eval.results import read_result
from scripts.eval.verdict import SHIP, decide

HELDOUT = "heldout"
# Systems that are no embedding model: compared with, but not among the models of the recipe's file
REFERENCES = ("bm25", "fusion")
VERDICTS = {
    SHIP: "SHIP the tuned model",
    "do_not_ship": "DO NOT SHIP the tuned model",
    "insufficient_data": "TOO LITTLE DATA to say whether to ship the tuned model",
}
# What a comparison says in eval_results.json; breakdown and examples stay in the test set's own file
KEPT = ("queries", "groups", "passages", "confidence", "primary_metric", "systems", "differences")


def gather(
    files: Sequence[str | Path],
    comparisons: Sequence[str | Path],
    target: str | Path,
    *,
    metadata: dict[str, Any],
    gate: dict[str, Any],
    limits: dict[str, Any],
    served_contract: str | Path | None = None,
    served_vectors: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Write ``eval_results.json`` from the files of the rules ``evaluate`` and ``compare``.

    Args:
        files: ``stage3_eval/{system}/{test set}.json``.
        comparisons: ``stage3_eval/comparison/{test set}.json``.
        target: ``eval_results.json``: metrics of the held-out set (or the only one) by model, those of all sets under
            ``_test_sets``, differences under ``_comparison``, the decision under ``_verdict``, and ``_metadata``.
        metadata: What ``_metadata`` says besides.
        gate: ``served``, ``tolerance``, ``low_k_tolerance`` and ``fail`` of the drift of a served model.
        limits: ``decide_on``, ``worthwhile_gain`` and ``min_queries`` of the verdict.
        served_contract: Contract of the served model, if one was evaluated.
        served_vectors: What rule ``embed`` wrote on its vectors.

    Raises:
        UserError: ``eval.decide_on`` names no test set.
    """
    by_set: dict[str, dict[str, Any]] = {}
    for path in map(Path, files):
        by_set.setdefault(path.stem, {})[path.parent.name] = read_result(path)["metrics"]
    compared = {Path(path).stem: read_json(path, "comparison") for path in comparisons}
    main = HELDOUT if HELDOUT in by_set else next(iter(by_set))
    models = {name: metrics for name, metrics in by_set[main].items() if name not in REFERENCES}
    drift = compare_served(models, gate)
    sizes = {name: {key: value[key] for key in ("queries", "passages")} for name, value in compared.items()}
    # an address may hold a password
    metadata = redacted({**metadata, "test_set": main, "sizes": sizes})
    if served_contract is not None:
        contract = Contract.load(served_contract)
        metadata["nim_diagnostics"] = {
            "api_backend": contract.backend,
            "requested_model": contract.model,
            "embedding_dimension": contract.dimension,
            # of the runs that made these vectors; those that were in the store already were asked for by none
            "invalid_embedding_retry_requests": sum(
                read_json(path, "manifest of vectors").get("invalid_embedding_retry_requests", 0)
                for path in served_vectors
            ),
        }
    if drift is not None:
        metadata["nim_metric_comparison"] = drift
    # queries that people typed say more than synthetic ones
    decides = limits["decide_on"] or next((name for name in by_set if name != HELDOUT), main)
    if decides not in by_set:
        raise UserError(f"eval.decide_on is {decides}, which is no test set; there are {', '.join(by_set)}.")
    verdict = decide(compared, decides, worthwhile=limits["worthwhile_gain"], fewest=limits["min_queries"], drift=drift)
    results = {
        **models,
        "_test_sets": by_set,
        "_comparison": {name: {key: value[key] for key in KEPT} for name, value in compared.items()},
        "_verdict": verdict,
        "_metadata": metadata,
    }
    write_json(target, results)
    for name, comparison in compared.items():
        show(name, comparison)
    log.info("%s\n  %s", VERDICTS[verdict["decision"]], "\n  ".join(verdict["reasons"]))
    return results


def enforce(results: dict[str, Any], target: str | Path, *, fail_on_drift: bool, require: str | None) -> None:
    """End with an error where the configuration wants one, with a copy of the results that outlives the failed job.

    Raises:
        UserError: The served model drifts beyond the tolerance, or the verdict is not the required one.
    """
    drift, verdict = results["_metadata"].get("nim_metric_comparison"), results["_verdict"]
    drifts = drift is not None and not drift["within_tolerance"]
    refused = require and verdict["decision"] != require
    if drifts and not fail_on_drift:
        log.warning("the served model's metrics drift from the checkpoint's beyond the tolerance, see %s", target)
    if not refused and not (drifts and fail_on_drift):
        return
    # Snakemake deletes the outputs of a failed job
    copy = Path(target).parent / "refused" / Path(target).name
    write_json(copy, results)
    if refused:
        raise UserError(
            f"eval.require is {require}, but the verdict is {verdict['decision']}: {verdict['reasons'][0]} See {copy}."
        )
    raise UserError(
        "the served model's metrics drift from the checkpoint's beyond the tolerance "
        f"(eval.fail_on_nim_metric_drift), see _metadata in {copy}."
    )


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


def show(name: str, comparison: dict[str, Any]) -> None:
    """A table of all systems on a test set, with the change from base to tuned and its interval."""
    from rich.console import Console
    from rich.table import Table

    size = f"{comparison['queries']} queries, {comparison['passages']} passages"
    table = Table(title=f"{name}: {size}", title_justify="left")
    table.add_column("metric")
    systems = comparison["systems"]
    for system in systems:
        table.add_column(system, justify="right")
    tuned = [row for row in comparison["differences"] if (row["candidate"], row["baseline"]) == ("finetuned", "base")]
    if tuned:
        table.add_column("change in points", justify="right")
        table.add_column(f"{100 * comparison['confidence']:g} % interval", justify="right")
        table.add_column("p", justify="right")
        table.add_column("p, corrected", justify="right")
    for metric in next(iter(systems.values())):
        row = [f"{means[metric]:.4f}" for means in systems.values()]
        for difference in tuned:
            values = difference["metrics"][metric]
            row += [
                change(systems["base"][metric], systems["finetuned"][metric]),
                f"{100 * values['low']:+.1f} to {100 * values['high']:+.1f}",
                f"{values['p']:.2g}",
                f"{values['p_adjusted']:.2g}",
            ]
        table.add_row(metric, *row)
    console = Console(stderr=True)
    # a log has no width of its own; at 80 columns the table would break inside its numbers
    Console(stderr=True, width=None if console.is_terminal else 140).print(table)


def change(base: float, tuned: float) -> str:
    """Difference in points, and in per cent where the base is not zero."""
    points = f"{100 * (tuned - base):+.2f}"
    return f"{points} ({100 * (tuned - base) / base:+.1f} %)" if base else points


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        everything = gather(
            snakemake.input.evaluations,  # noqa: F821
            snakemake.input.comparisons,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            metadata=snakemake.params.metadata,  # noqa: F821
            gate=snakemake.params.gate,  # noqa: F821
            limits=snakemake.params.limits,  # noqa: F821
            served_contract=next(iter(snakemake.input.served), None),  # noqa: F821
            served_vectors=snakemake.input.served[1:],  # noqa: F821
        )
        enforce(
            everything,
            snakemake.output[0],  # noqa: F821
            fail_on_drift=snakemake.params.gate["fail"],  # noqa: F821
            require=snakemake.params.require,  # noqa: F821
        )
