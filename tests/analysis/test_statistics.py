"""Intervals and tests are those of the literature: by statsmodels, scipy, or sums and scans that anybody can follow."""

from math import inf, sqrt

import numpy as np
import pytest
from scipy.stats import binom, binomtest, chi2, hypergeom, mannwhitneyu, norm, t, ttest_ind
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from analysis.levels import ALPHA, CONFIDENCE
from analysis.statistics import (
    Interval,
    between,
    confusion,
    holm,
    mcnemar,
    mean_of,
    superiority,
    two_proportions,
    welch,
    wilson,
    wilson_of_proportion,
)


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def wilson_by_scipy(successes: int, images: int) -> tuple[float, float]:
    found = binomtest(successes, images).proportion_ci(CONFIDENCE, method="wilson")
    return found.low, found.high


def test_what_is_claimed_is_what_the_interval_leaves_out() -> None:
    assert pytest.approx(1 - CONFIDENCE) == ALPHA


# ---------------------------------------------------------------- shares of images


@pytest.mark.parametrize(("right", "images"), [(0, 30), (1, 30), (2729, 3000), (30, 30)])
def test_wilsons_interval_is_scipys(right: int, images: int) -> None:
    assert ends(wilson(right, images)) == pytest.approx(wilson_by_scipy(right, images), abs=1e-12)


@pytest.mark.parametrize(
    ("share", "variance", "images", "as_of"),
    [
        (0.8, 0.8 * 0.2 / 50, 50, (40, 50)),
        (0.8, 0.8 * 0.2 / 25, 50, (20, 25)),  # twice the variance: as of half the images
        (0.0, 0.0, 50, (0, 50)),
        (1.0, 0.0, 50, (50, 50)),
        (1.0, 0.1, 50, (50, 50)),
        (0.5, 0.0, 50, (25, 50)),
    ],
)
def test_a_share_with_a_variance_has_the_interval_of_as_many_images_as_give_it(
    share: float, variance: float, images: int, as_of: tuple[int, int]
) -> None:
    found = wilson_of_proportion(share, variance, images)
    assert ends(found) == pytest.approx(wilson_by_scipy(*as_of), abs=1e-12)
    assert 0 <= found.low <= found.high <= 1


def test_images_are_counted_by_class_and_an_even_chance_is_no_prediction_of_1() -> None:
    logits = np.array([0.1, 2, 3, 0, -1, -2, 5, 0, -3, -4])
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    found = confusion(logits, labels)
    assert (found.true_positive, found.false_negative) == (3, 2)
    assert (found.false_positive, found.true_negative) == (1, 4)
    assert (found.images, found.correct) == (10, 7)
    assert (found.precision, found.recall) == (3 / 4, 3 / 5)
    assert found.f1 == pytest.approx(2 / (4 / 3 + 5 / 3))
    nobody = confusion(-np.ones(3), np.zeros(3))
    assert (nobody.precision, nobody.recall, nobody.f1) == (None, None, None)


@pytest.mark.parametrize("only_first", [3, 9, 12, 20])
def test_mcnemar_counts_both_ways_up_to_24_images_that_differ_and_is_chi_squared_from_25(
    only_first: int,
) -> None:
    for differ in (24, 25):
        counts = [40, only_first, differ - only_first, 3]
        first = np.repeat([True, True, False, False], counts)
        second = np.repeat([True, False, True, False], counts)
        expected = (
            min(1, 2 * binom.cdf(min(only_first, 24 - only_first), 24, 0.5))
            if differ == 24
            else chi2.sf((abs(only_first - (25 - only_first)) - 1) ** 2 / 25, 1)
        )
        found = mcnemar(first, second)
        assert (found.only_first, found.only_second) == (only_first, differ - only_first)
        assert found.p == pytest.approx(expected)


def test_holms_correction_is_that_of_statsmodels() -> None:
    p = [0.03, 0.001, 0.03, 0.5, 0.2]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([0.7, 0.8]) == [1, 1]


def test_two_shares_differ_by_newcombes_interval_and_fishers_p() -> None:
    """His method 10 from two Wilson intervals; Fisher's p is the sum over tables that are no likelier."""
    found = two_proportions(56, 70, 48, 80)
    (low, high), (other_low, other_high) = wilson_by_scipy(56, 70), wilson_by_scipy(48, 80)
    difference = 56 / 70 - 48 / 80
    assert found.difference == pytest.approx(difference)
    assert ends(found.interval) == pytest.approx(
        (
            difference - sqrt((0.8 - low) ** 2 + (other_high - 0.6) ** 2),
            difference + sqrt((high - 0.8) ** 2 + (0.6 - other_low) ** 2),
        )
    )
    likely = hypergeom.pmf(np.arange(71), 150, 104, 70)
    assert found.p == pytest.approx(likely[likely <= likely[56] * (1 + 1e-9)].sum())


# ---------------------------------------------------------------- means of runs

RUNS, OTHERS = [0.91, 0.93, 0.90, 0.94], [0.89, 0.90, 0.88]


def column(values: list[float]) -> np.ndarray:
    """Runs that are known by their value alone."""
    return np.array(values)[:, None]


def test_a_mean_of_runs_has_students_interval() -> None:
    found = mean_of(column(RUNS))
    error = np.std(RUNS, ddof=1) / sqrt(4)
    assert (found.runs, found.mean) == (4, pytest.approx(np.mean(RUNS)))
    assert found.deviation == pytest.approx(np.std(RUNS, ddof=1))
    assert ends(found.interval) == pytest.approx(t.interval(CONFIDENCE, 3, np.mean(RUNS), error))
    assert (found.interval.method, found.interval.confidence) == ("t", CONFIDENCE)


def test_the_deviation_of_runs_is_that_of_their_means_over_images() -> None:
    right = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 1, 1]], dtype=float)
    assert mean_of(right).deviation == pytest.approx(np.std([0.75, 0.5, 1.0], ddof=1))
    assert mean_of(right).mean == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([0.94, 0.99], (False, True)),
        ([0.01, 0.06], (True, False)),
        ([0.3, 0.7], (True, True)),
        ([0.5, 0.51], (False, False)),
        ([1.0, 1.0], (False, False)),  # that ends where the values do is not cut off
        ([0.0, 0.0], (False, False)),
    ],
)
def test_an_interval_is_cut_off_where_values_end_and_says_so(
    values: list[float], cut: tuple[bool, bool]
) -> None:
    whole, found = mean_of(column(values)).interval, mean_of(column(values), (0, 1)).interval
    assert found.low == (0 if cut[0] else whole.low)
    assert found.high == (1 if cut[1] else whole.high)
    assert found.method == ("t, cut off at 0 and 1" if any(cut) else "t")


@pytest.mark.parametrize("pairs", [1, 3])
def test_groups_of_runs_differ_by_students_test_and_pairs_by_bonferronis_level(pairs: int) -> None:
    found, visible = between(column(RUNS), column(OTHERS), pairs=pairs)
    theirs = ttest_ind(RUNS, OTHERS)
    assert found.difference == pytest.approx(np.mean(RUNS) - np.mean(OTHERS))
    assert found.p == pytest.approx(theirs.pvalue)
    level = 0.05 / pairs
    interval = theirs.confidence_interval(1 - level)
    assert ends(found.interval) == pytest.approx((interval.low, interval.high))
    assert found.interval.confidence == pytest.approx(1 - level)
    deviation = DescrStatsW(RUNS).get_compare(DescrStatsW(OTHERS)).std_meandiff_pooledvar
    effect = visible / (deviation / sqrt(1 / 4 + 1 / 3))
    power = TTestIndPower().power(effect, 4, level, 3 / 4)
    assert power == pytest.approx(0.8, abs=0.03)


def test_on_the_same_images_what_all_runs_have_in_common_is_no_difference() -> None:
    """Runs of a setting that agree on every image: what is left is the paired test over images (1 - 0 is 1)."""
    draw = np.random.default_rng(0)
    first, second = (draw.random(200) < 0.9).astype(float), (draw.random(200) < 0.8).astype(float)
    found, _ = between(np.stack([first] * 3), np.stack([second] * 2))
    error = (first - second).std(ddof=1) / sqrt(200)
    difference = (first - second).mean()
    assert found.difference == pytest.approx(difference)
    assert ends(found.interval) == pytest.approx(t.interval(CONFIDENCE, 199, difference, error))


def test_a_difference_of_shares_is_cut_off_where_it_can_not_be() -> None:
    found, _ = between(column([0.9, 0.5]), column([0.1, 0.4]), (-1, 1))
    assert (found.interval.high, found.interval.method) == (1, "t, cut off at -1 and 1")


def test_welchs_test_is_that_of_statsmodels() -> None:
    found = welch(RUNS, OTHERS)
    theirs = CompareMeans(DescrStatsW(RUNS), DescrStatsW(OTHERS))
    assert found.difference == pytest.approx(np.mean(RUNS) - np.mean(OTHERS))
    assert found.p == pytest.approx(theirs.ttest_ind(usevar="unequal")[1])
    assert ends(found.interval) == pytest.approx(theirs.tconfint_diff(usevar="unequal"))


def test_runs_without_spread_differ_for_sure_or_not_at_all() -> None:
    apart, equal = welch([0.9, 0.9], [0.8, 0.8]), welch([0.9, 0.9], [0.9, 0.9])
    assert (apart.p, equal.p) == (0, 1)
    assert ends(apart.interval) == pytest.approx((0.1, 0.1))
    assert ends(equal.interval) == (0, 0)
    assert 0 < welch([0.9, 0.9], [0.8, 0.7]).p < 1, "one of them has some"


# ---------------------------------------------------------------- how often one is ahead


def newcombe(share: float, runs: int, others: int) -> tuple[float, float]:
    """By scanning: where the score test accepts, with Hanley and McNeil's variance (1982) of groups of equal size."""
    p = np.linspace(0, 1, 1_000_001)[1:-1]
    both_below, both_above = p / (2 - p), 2 * p**2 / (1 + p)
    more = (runs + others) / 2 - 1
    variance = p * (1 - p) + more * (both_below - p**2) + more * (both_above - p**2)
    accepted = p[np.abs(share - p) <= norm.ppf(0.975) * np.sqrt(variance / (runs * others))]
    return (0 if share == 0 else accepted[0]), (1 if share == 1 else accepted[-1])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RUNS, OTHERS),
        (OTHERS, RUNS),
        ([2.0] * 5, [1.0] * 5),
        ([1.0] * 5, [2.0] * 5),
        ([1.0, 1.0], [1.0, 1.0, 1.0]),
        ([0.9, -inf, 0.8], [-inf, 0.85]),
    ],
)
def test_how_often_a_run_is_ahead_is_mann_and_whitneys_share_with_newcombes_interval(
    first: list[float], second: list[float]
) -> None:
    found = superiority(first, second)
    pairs = len(first) * len(second)
    assert found.pairs == pairs
    assert found.share == pytest.approx(mannwhitneyu(first, second).statistic / pairs)
    expected = newcombe(found.share, len(first), len(second))
    assert ends(found.interval) == pytest.approx(expected, abs=2e-6)
