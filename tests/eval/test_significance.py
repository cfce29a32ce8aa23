"""Intervals and p-values against scipy, the rate of false alarms, and what grouping and correction do."""

import numpy as np
import pytest
from scipy import stats

from scripts.eval.significance import bootstrap_interval, compare, randomisation, standard_error

RANDOM = np.random.default_rng(11)
DIFFERENCES = np.clip(RANDOM.normal(0.03, 0.2, (120, 1)), -1, 1)


def test_interval_equals_scipys_percentile_bootstrap() -> None:
    theirs = stats.bootstrap(
        (DIFFERENCES[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = bootstrap_interval(DIFFERENCES, np.ones(120), 0.95, 20_000, 3)
    assert low[0] == pytest.approx(theirs.low, abs=0.002)
    assert high[0] == pytest.approx(theirs.high, abs=0.002)


def test_p_value_equals_scipys_paired_permutation_test() -> None:
    theirs = stats.permutation_test(
        (DIFFERENCES[:, 0], np.zeros(120)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    p, adjusted = randomisation(DIFFERENCES, 20_000, 3)
    assert p[0] == pytest.approx(theirs, abs=0.01)
    assert adjusted[0] == pytest.approx(p[0])


def test_standard_error_of_single_queries_is_the_usual_one() -> None:
    assert standard_error(DIFFERENCES, np.ones(120))[0] == pytest.approx(stats.sem(DIFFERENCES[:, 0]))


def test_false_alarms_are_near_the_level_when_there_is_no_difference() -> None:
    alarms, outside, family = 0, 0, 0
    trials = 400
    for trial in range(trials):
        random = np.random.default_rng(trial)
        # metrics of real runs: most queries tie, the others move by steps, and metrics hang together
        shared = random.choice([0, 0, 0.37, -0.37, 1, -1], 60)
        matrix = np.stack([shared, shared * random.random(60), random.choice([0, 0.5, -0.5], 60)], axis=1)
        rows = compare(matrix, resamples=500, seed=trial)
        alarms += rows[0].p < 0.05
        outside += not rows[0].low <= 0 <= rows[0].high
        family += min(row.p_adjusted for row in rows) < 0.05
    # 5 % of 400 are 20, with a standard deviation of 4.4
    assert 8 <= alarms <= 34
    assert 8 <= outside <= 38
    assert 6 <= family <= 34


def test_uncorrected_p_values_would_raise_more_alarms() -> None:
    alarms = {"p": 0, "p_adjusted": 0}
    for trial in range(150):
        matrix = np.random.default_rng(trial).normal(size=(40, 12))
        rows = compare(matrix, resamples=400, seed=trial)
        for kind in alarms:
            alarms[kind] += min(getattr(row, kind) for row in rows) < 0.05
    assert alarms["p"] > 45
    assert alarms["p_adjusted"] < 18


def test_a_real_difference_is_found_and_its_size_is_detectable() -> None:
    (row,) = compare(np.random.default_rng(2).normal(0.1, 0.2, (100, 1)))
    assert row.low > 0
    assert row.p_adjusted < 0.01
    # 2.8 standard errors: 1.96 for the level, 0.84 for the power
    assert row.detectable == pytest.approx(2.8016 * 0.2 / 10, rel=0.15)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    found = 0
    for trial in range(200):
        values = np.random.default_rng(trial).normal(2.8016 * 0.2 / 10, 0.2, (100, 1))
        found += compare(values, resamples=400, seed=trial)[0].p < 0.05
    assert 140 <= found <= 178


def test_questions_of_one_document_make_the_interval_wider_and_false_alarms_rarer() -> None:
    groups = np.repeat(np.arange(15), 8)
    alone = together = 0
    for trial in range(150):
        random = np.random.default_rng(trial)
        values = (random.normal(0, 0.2, 15)[groups] + random.normal(0, 0.05, 120))[:, None]
        alone += compare(values, resamples=400, seed=trial)[0].p < 0.05
        together += compare(values, groups, resamples=400, seed=trial)[0].p < 0.05
    assert alone > 40
    assert together < 20


def test_no_difference_at_all_is_not_significant() -> None:
    (row,) = compare(np.zeros((30, 1)))
    assert (row.delta, row.low, row.high, row.p, row.p_adjusted) == (0, 0, 0, 1, 1)


def test_one_group_says_nothing_about_what_could_be_found() -> None:
    assert compare(np.ones((4, 1)), ["a"] * 4)[0].detectable is None


def test_the_same_seed_says_the_same() -> None:
    assert compare(DIFFERENCES) == compare(DIFFERENCES)
