"""Bootstrap intervals of means, for evaluation and for the parity of exports."""

import numpy as np

RESAMPLES = 10_000
# Random numbers held at once
AT_ONCE = 8_000_000


def bootstrap_interval(
    sums: np.ndarray, sizes: np.ndarray, confidence: float, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean when groups are drawn with replacement (Efron and Tibshirani 1993, chapter 13).

    Args:
        sums: Sums of the values in each group ``[groups, metrics]``.
        sizes: Number of queries in each group.
        confidence: Of the interval.
        resamples: Samples.
        seed: Of the random numbers.

    Returns:
        ``(low, high)``, each ``[metrics]``.
    """
    random = np.random.default_rng(seed)
    count = len(sums)
    means = np.empty((resamples, sums.shape[1]))
    for start, size in blocks(resamples, count):
        drawn = random.integers(0, count, (size, count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        means[start : start + size] = (times @ sums) / (times @ sizes)[:, None]
    tail = (1 - confidence) / 2
    return np.quantile(means, tail, axis=0), np.quantile(means, 1 - tail, axis=0)


def blocks(total: int, width: int) -> list[tuple[int, int]]:
    """``(start, size)`` of steps through ``total`` rows of ``width`` random numbers each."""
    step = max(1, AT_ONCE // max(1, width))
    return [(start, min(step, total - start)) for start in range(0, total, step)]
