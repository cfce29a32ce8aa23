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
HIT = "success"
FIRST = "recip_rank"


def metric_names(k_values: Sequence[int]) -> list[str]:
    """Names of all metrics of a query: the recipe's, then ``MRR@k`` and ``Hit@k``."""
    prefixes = [*(prefix for _, _, prefix in GROUPS), "MRR", "Hit"]
    return [f"{prefix}@{k}" for prefix in prefixes for k in k_values]


def evaluate_run(qrels: Qrels, run: Run, k_values: Sequence[int]) -> dict[str, dict[str, float]]:
    """Per query ``{"NDCG@10": …}`` (see :func:`metric_names`); a judged query that the run lacks counts as zero.

    Args:
        qrels: Judged scores by query and passage.
        run: Retrieval scores by query and passage.
        k_values: Cut-offs.
    """
    import pytrec_eval

    cuts = ",".join(str(k) for k in k_values)
    measures = {f"{measure}.{cuts}" for measure in [HIT, *(measure for _, measure, _ in GROUPS)]}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {FIRST, *measures})
    scored = evaluator.evaluate({query: run[query] for query in qrels if run.get(query)})
    return {query: _named(scored.get(query, {}), k_values) for query in qrels}


def _named(scored: dict[str, float], k_values: Sequence[int]) -> dict[str, float]:
    values = {f"{prefix}@{k}": scored.get(f"{measure}_{k}", 0.0) for _, measure, prefix in GROUPS for k in k_values}
    # trec_eval has no cut-off for the reciprocal rank: 1/11 is beyond 10
    first = scored.get(FIRST, 0.0)
    values.update({f"MRR@{k}": first if first and round(1 / first) <= k else 0.0 for k in k_values})
    values.update({f"Hit@{k}": scored.get(f"{HIT}_{k}", 0.0) for k in k_values})
    return values


def mean_metrics(per_query: dict[str, dict[str, float]], k_values: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Means over queries, grouped and rounded to five decimals as the recipe's ``eval_results.json`` has them."""
    means = flat_means(per_query)
    return {group: {f"{prefix}@{k}": means[f"{prefix}@{k}"] for k in k_values} for group, _, prefix in GROUPS}


def flat_means(per_query: dict[str, dict[str, float]]) -> dict[str, float]:
    """Means over queries of every metric, rounded to five decimals."""
    names = next(iter(per_query.values()))
    return {name: round(sum(row[name] for row in per_query.values()) / len(per_query), 5) for name in names}
