"""How sure a difference is: paired bootstrap, paired randomisation, correction for several metrics, power.

Units of resampling are groups of queries: questions about one document rise and fall together, and taken for
independent they would make intervals too narrow. Where nothing is known of their origin every query is a group of its
own, which is the usual paired bootstrap (Sakai 2006) and randomisation test (Smucker, Allan and Carterette 2007).
"""

import dataclasses
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from scripts.common.bootstrap import RESAMPLES, blocks, bootstrap_interval


@dataclasses.dataclass(frozen=True)
class Difference:
    """A paired difference of means, candidate minus baseline.

    Attributes:
        delta: The difference.
        low, high: Percentile bootstrap interval.
        p: Two-sided randomisation p-value.
        p_adjusted: The same, corrected for all metrics tested together (step-down max-T).
        detectable: Smallest difference that a test with so many queries finds with 80 % probability; ``None`` where
            a single group, or values that are all alike, leave that open.
        queries, groups: How many, and in how many independent groups.
    """

    delta: float
    low: float
    high: float
    p: float
    p_adjusted: float
    detectable: float | None
    queries: int
    groups: int


def compare(
    differences: np.ndarray,
    groups: Sequence[object] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Difference]:
    """Evidence for each metric.

    Args:
        differences: Candidate minus baseline, float ``[queries, metrics]``.
        groups: Group of each query; ``None`` takes every query by itself.
        confidence: Of the intervals.
        resamples: Bootstrap samples, and sign vectors of the randomisation test.
        seed: Of the random numbers, so that a second run says the same.
    """
    differences = np.asarray(differences, np.float64)
    sums, sizes = _by_group(differences, groups)
    low, high = bootstrap_interval(sums, sizes, confidence, resamples, seed)
    p, adjusted = randomisation(sums, resamples, seed + 1)
    error = standard_error(sums, sizes)
    factor = NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(0.8)
    return [
        Difference(
            *map(float, values),
            detectable=float(least) if np.isfinite(least) and least > 0 else None,
            queries=len(differences),
            groups=len(sums),
        )
        for *values, least in zip(differences.mean(0), low, high, p, adjusted, factor * error, strict=True)
    ]


def randomisation(sums: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values when the two systems' labels are swapped at random, group by group.

    The second array is corrected for testing all metrics at once by the step-down max-T procedure (Westfall and Young
    1993), which takes from the same swaps how metrics hang together and so loses less than Holm's.

    Returns:
        ``(p, adjusted p)``, each ``[metrics]``; never zero: the observed labelling counts as one of the swaps.
    """
    random = np.random.default_rng(seed)
    # the swaps keep the sum of squares, so scaling by its root makes metrics comparable and changes no single p
    scale = np.sqrt((sums**2).sum(0))
    scaled = np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0)
    observed = np.abs(scaled.sum(0)) - 1e-12
    order = np.argsort(-observed)
    single = np.ones(len(observed))
    joint = np.ones(len(observed))
    for _, size in blocks(resamples, len(sums)):
        signs = random.integers(0, 2, (size, len(sums)), np.int8) * 2.0 - 1
        swapped = np.abs(signs @ scaled)
        single += (swapped >= observed).sum(0)
        # the largest among this metric and those less significant than it
        largest = np.maximum.accumulate(swapped[:, order[::-1]], axis=1)[:, ::-1]
        joint += (largest >= observed[order]).sum(0)
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate(joint / (resamples + 1))
    return single / (resamples + 1), adjusted


def standard_error(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Standard error of the mean over groups of unequal size (ratio estimator, Cochran 1977, section 6.4)."""
    count, total = len(sums), sizes.sum()
    if count < 2:
        return np.full(sums.shape[1], np.inf)
    residuals = sums - (sums.sum(0) / total) * sizes[:, None]
    return np.sqrt(count / (count - 1) * (residuals**2).sum(0)) / total


def _by_group(values: np.ndarray, groups: Sequence[object] | None) -> tuple[np.ndarray, np.ndarray]:
    if groups is None:
        return values, np.ones(len(values))
    numbers: dict[object, int] = {}
    member = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, member, values)
    return sums, np.bincount(member).astype(np.float64)
