"""Retrieval metrics by pytrec_eval, in the recipe's names and shape."""

from collections.abc import Sequence
from typing import Any

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]
# The recipe's groups: name, pytrec_eval's measure, prefix of the inner keys
GROUPS = (
    ("NDCG", "ndcg_cut", "NDCG"),
    ("MAP", "map_cut", "MAP"),
    ("Recall", "recall", "Recall"),
    ("Precision", "P", "P"),
)


def evaluate_run(qrels: Qrels, run: Run, k_values: Sequence[int]) -> dict[str, dict[str, float]]:
    """Per query ``{"NDCG@10": …}``; a judged query that the run lacks counts as zero everywhere.

    Args:
        qrels: Judged scores by query and passage.
        run: Retrieval scores by query and passage.
        k_values: Cut-offs.
    """
    import pytrec_eval

    cuts = ",".join(str(k) for k in k_values)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"{measure}.{cuts}" for _, measure, _ in GROUPS})
    scored = evaluator.evaluate({query: run[query] for query in qrels if run.get(query)})
    return {
        query: {
            f"{prefix}@{k}": scored.get(query, {}).get(f"{measure}_{k}", 0.0)
            for _, measure, prefix in GROUPS
            for k in k_values
        }
        for query in qrels
    }


def mean_metrics(per_query: dict[str, dict[str, float]], k_values: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Means over queries, grouped and rounded to five decimals as the recipe's ``eval_results.json`` has them."""
    return {
        group: {
            f"{prefix}@{k}": round(sum(row[f"{prefix}@{k}"] for row in per_query.values()) / len(per_query), 5)
            for k in k_values
        }
        for group, _, prefix in GROUPS
    }
