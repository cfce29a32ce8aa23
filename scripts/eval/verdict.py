"""May I ship it: the evidence of all test sets as one decision, with its reasons in plain words."""

from typing import Any

SHIP, DO_NOT_SHIP, UNSURE = "ship", "do_not_ship", "insufficient_data"
# With fewer independent groups the bootstrap interval is known to be too narrow
FEWEST_GROUPS = 10


def decide(
    comparisons: dict[str, dict[str, Any]], main: str, *, worthwhile: float, fewest: int, drift: dict[str, Any] | None
) -> dict[str, Any]:
    """The verdict on the tuned model.

    It ships when it is surely better on the set that decides (the whole interval lies above zero, p is below the level)
    and on no set surely worse. It does not when it is surely worse anywhere, or surely not better by what would be
    worth the change. All else is too little data to say. One metric on one set is named beforehand and decides alone,
    so its p needs no correction for the other metrics (theirs do: ``p_adjusted``).

    Args:
        comparisons: By test set, what ``scripts.eval.compare`` wrote.
        main: The test set that decides.
        worthwhile: Smallest gain of the primary metric that would be worth shipping for.
        fewest: Queries below which nothing is decided.
        drift: Comparison of a served model with its checkpoint, if there was one.

    Returns:
        ``decision`` and ``reasons``, and what they rest on.
    """
    evidence = {name: _evidence(comparison) for name, comparison in comparisons.items()}
    if evidence[main] is None:
        return {"decision": UNSURE, "reasons": ["Base and tuned model were not both evaluated: nothing to compare."]}
    metric = comparisons[main]["primary_metric"]
    worse = [name for name, row in evidence.items() if row and _surely_worse(row, comparisons[name])]
    judged, reason = _on_main(evidence[main], comparisons[main], main, worthwhile, fewest)
    decision = DO_NOT_SHIP if worse else judged
    # what decides comes first
    reasons = [
        f"On {name} the tuned model is surely worse than the base: {_words(evidence[name], metric)}."
        for name in worse
        if name != main
    ]
    reasons.append(reason)
    reasons += [
        f"On {name}: {_words(row, metric)}." for name, row in evidence.items() if row and name not in {main, *worse}
    ]
    if drift is not None and not drift["within_tolerance"]:
        reasons.append("The served model's metrics drift from the checkpoint's beyond the tolerance.")
        decision = DO_NOT_SHIP
    reasons += _remarks(comparisons[main], main, metric, fewest)
    return {
        "decision": decision,
        "reasons": reasons,
        "test_set": main,
        "metric": metric,
        "worthwhile_gain": worthwhile,
        "evidence": evidence,
    }


def _evidence(comparison: dict[str, Any]) -> dict[str, Any] | None:
    for row in comparison["differences"]:
        if (row["candidate"], row["baseline"]) == ("finetuned", "base"):
            return row["metrics"][comparison["primary_metric"]]
    return None


def _surely_worse(row: dict[str, Any], comparison: dict[str, Any]) -> bool:
    return row["high"] < 0 and row["p"] < 1 - comparison["confidence"]


def _on_main(
    row: dict[str, Any], comparison: dict[str, Any], main: str, worthwhile: float, fewest: int
) -> tuple[str, str]:
    words = _words(row, comparison["primary_metric"])
    level = 1 - comparison["confidence"]
    if row["queries"] < fewest:
        return UNSURE, f"{main} has {row['queries']} queries; below {fewest} nothing is decided ({words})."
    if row["groups"] < FEWEST_GROUPS:
        return UNSURE, (
            f"The queries of {main} come from {row['groups']} documents; "
            f"below {FEWEST_GROUPS} nothing is decided ({words})."
        )
    if _surely_worse(row, comparison):
        return DO_NOT_SHIP, f"On {main} the tuned model is surely worse: {words}."
    if row["high"] < worthwhile:
        return DO_NOT_SHIP, (
            f"On {main} there is no gain of {100 * worthwhile:g} points, which would be worth the change: {words}."
        )
    if row["low"] > 0 and row["p"] < level:
        return SHIP, f"On {main} the tuned model is surely better: {words}."
    more = ""
    if row["detectable"] and row["delta"]:
        # the error falls with the root of the number of queries
        needed = round(row["queries"] * (row["detectable"] / row["delta"]) ** 2)
        more = f" A difference of this size would show with about {max(needed, row['queries'] + 1)} queries."
    return UNSURE, (
        f"On {main} the difference could be chance: {words}. This test finds differences from "
        f"{100 * (row['detectable'] or 0):.1f} points on.{more}"
    )


def _words(row: dict[str, Any], metric: str) -> str:
    return (
        f"{metric} {100 * row['delta']:+.1f} points, interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f}, "
        f"p = {row['p']:.2g}, {row['queries']} queries"
    )


def _remarks(comparison: dict[str, Any], main: str, metric: str, fewest: int) -> list[str]:
    """What no reader should overlook, though it decides nothing."""
    remarks = [
        f"Plain BM25 is surely better than the tuned model on {main}: consider it, or the fusion."
        for row in comparison["differences"]
        if (row["candidate"], row["baseline"]) == ("finetuned", "bm25")
        and comparison["queries"] >= fewest
        and row["metrics"][metric]["high"] < 0
    ]
    if main == "heldout" and comparison["groups"] < comparison["queries"]:
        remarks.append(
            f"The {comparison['queries']} questions of {main} are synthetic and come from {comparison['groups']} "
            "documents; queries that people typed (eval.test_sets) would say more."
        )
    return remarks
