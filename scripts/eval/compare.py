"""All systems on one test set against each other: differences with their evidence, by kind of query, with examples."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import read_beir
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.job import job, log
from scripts.eval.examples import near_misses, origin, wins_and_losses
from scripts.eval.results import read_per_query, read_result, read_run
from scripts.eval.significance import compare
from scripts.eval.slices import breakdown, labels

EXAMPLES = 25


def primary_metric(k_values: Sequence[int]) -> str:
    """What decides: nDCG at 10, or at the cut-off next to it."""
    return f"NDCG@{min(k_values, key=lambda k: (abs(k - 10), k))}"


def compare_systems(
    test_set: str | Path,
    files: Sequence[str | Path],
    target: str | Path,
    *,
    pairs: Sequence[tuple[str, str]],
    k_values: Sequence[int],
    confidence: float,
    language: str | None,
) -> dict[str, Any]:
    """Write the comparison.

    Args:
        test_set: Folder in BEIR layout.
        files: ``stage3_eval/{system}/{test set}.json``, with ``.parquet`` and ``.trec`` beside them.
        target: JSON file.
        pairs: ``(candidate, baseline)``; the first one is broken down and shown by examples.
        k_values: Cut-offs.
        confidence: Of the intervals.
        language: Of the words that query and passage may share.

    Raises:
        UserError: The systems were evaluated on different queries.
    """
    collection = read_beir(test_set)
    paths = {read_result(path)["model"]: Path(path) for path in files}
    values = {}
    for system, path in paths.items():
        queries, values[system] = read_per_query(path.with_suffix(".parquet"))
        if queries != list(collection.queries):
            raise UserError(f"{path} was made with other queries than those of {test_set}; delete it and run again.")
    groups = [origin(collection.metadata.get(query, {}), query) for query in collection.queries]
    metric = primary_metric(k_values)
    result: dict[str, Any] = {
        "test_set": str(test_set),
        "queries": len(collection.queries),
        "groups": len(set(groups)),
        "passages": len(collection.corpus),
        "confidence": confidence,
        "primary_metric": metric,
        "systems": {system: read_result(path)["means"] for system, path in paths.items()},
        "differences": [
            {
                "candidate": candidate,
                "baseline": baseline,
                "metrics": differences(values[candidate], values[baseline], groups, confidence),
            }
            for candidate, baseline in pairs
        ],
    }
    if pairs:
        candidate, baseline = pairs[0]
        scores = values[baseline][metric], values[candidate][metric]
        runs = {system: read_run(path.with_suffix(".trec")) for system, path in paths.items()}
        shown = {system: runs[system] for system in (baseline, candidate, *(["bm25"] if "bm25" in runs else []))}
        result["breakdown"] = list(breakdown(labels(collection, language), *scores, groups, confidence))
        result.update(wins_and_losses(collection, *scores, shown, EXAMPLES))
        # a fusion is made of the others and would count their votes twice
        alone = {system: run for system, run in runs.items() if not system.startswith("fusion")}
        result["near_misses"] = near_misses(collection, alone, EXAMPLES)
    write_json(target, result)
    log.info("%s: %d systems, %d comparisons", test_set, len(paths), len(pairs))
    return result


def differences(
    candidate: dict[str, np.ndarray], baseline: dict[str, np.ndarray], groups: Sequence[object], confidence: float
) -> dict[str, dict[str, Any]]:
    """Evidence by metric; those that are alike for every query (as ``P@1`` and ``Hit@1``) are tested together too."""
    names = list(candidate)
    matrix = np.stack([candidate[name] - baseline[name] for name in names], axis=1)
    return {
        name: {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        for name, row in zip(
            names, map(dataclasses.asdict, compare(matrix, groups, confidence=confidence)), strict=True
        )
    }


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        compare_systems(
            Path(snakemake.input.queries).parent,  # noqa: F821
            snakemake.input.evaluations,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            pairs=[tuple(pair) for pair in snakemake.params.pairs],  # noqa: F821
            k_values=snakemake.params.k_values,  # noqa: F821
            confidence=snakemake.params.confidence,  # noqa: F821
            language=snakemake.params.language,  # noqa: F821
        )
