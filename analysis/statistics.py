"""Confidence intervals, counts and tests: a thin layer over scipy and statsmodels, with scikit-learn's conventions."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np

from analysis.image_variance import Uncertain, uncertain
from analysis.levels import CONFIDENCE
from trainable.metric import predicted_classes

EXACT_BELOW = 25  # discordant images; from there on McNemar's chi-squared with continuity correction, as is usual

Numbers = np.ndarray[Any, np.dtype[Any]]
TINY: Final = 1e-9  # below it a number is a rounding error; assumed
UNBOUNDED: Final = (float("-inf"), float("inf"))
Right = np.ndarray[Any, np.dtype[np.bool_]]
"""(images,): was the prediction right?"""
Labels = np.ndarray[Any, np.dtype[np.int64]]
"""(images,): 0 or 1."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a share, both ends in 0…1."""

    low: float
    high: float
    confidence: float = CONFIDENCE
    method: str = "Wilson"


def wilson(successes: int, images: int) -> Interval:
    """The Wilson score interval of `successes` of `images` (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint  # takes a second, and few need it

    low, high = proportion_confint(successes, images, alpha=1 - CONFIDENCE, method="wilson")
    return Interval(float(low), float(high))


def wilson_of_proportion(share: float, variance: float, images: int) -> Interval:
    """Wilson's score interval of a share whose estimate has this variance, for the number of images that would give it.

    With the variance share (1 - share) / images it equals `wilson`; at a share of 0 or 1, where the variance carries no
    information, it is the interval for `images`. Both ends lie in 0…1.
    """
    from scipy.special import ndtri

    full = share * (1 - share)
    effective = full / variance if full > 0 and variance > 0 else float(images)
    z = float(ndtri((1 + CONFIDENCE) / 2))
    middle = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * sqrt(full / effective + (z / (2 * effective)) ** 2)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Confusion:
    """Counts of images by actual and predicted class; class 1 is the positive one."""

    true_negative: int
    false_positive: int
    false_negative: int
    true_positive: int

    @property
    def images(self) -> int:
        return self.true_negative + self.false_positive + self.false_negative + self.true_positive

    @property
    def correct(self) -> int:
        return self.true_negative + self.true_positive

    @property
    def precision(self) -> float | None:
        """Share of the images predicted 1 that are 1; None if no image is predicted 1."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """Share of the images of class 1 that are predicted 1; None if there is none."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None if class 1 neither occurs nor is predicted."""
        found = 2 * self.true_positive
        return _ratio(found, found + self.false_positive + self.false_negative)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def sigmoid(logits: Numbers) -> Numbers:
    """The probability of class 1, of any logit without overflow."""
    from scipy.special import expit

    found: Numbers = expit(logits)
    return found


def confusion(logits: Numbers, labels: Numbers) -> Confusion:
    """Counts from logits (n,) and labels (n,) of 0 and 1."""
    predicted, actual = predicted_classes(logits), labels > 0.5
    return Confusion(
        true_negative=int((~predicted & ~actual).sum()),
        false_positive=int((predicted & ~actual).sum()),
        false_negative=int((~predicted & actual).sum()),
        true_positive=int((predicted & actual).sum()),
    )


@dataclass(frozen=True)
class Paired:
    """Two models on the same images: where they differ, and how likely a difference this large is by chance."""

    only_first: int
    """Images that the first model alone gets right."""
    only_second: int
    p: float
    """Two-sided, of McNemar's test (McNemar 1947); the null hypothesis is that both are right equally often."""


def mcnemar(first: Right, second: Right) -> Paired:
    """McNemar's test: exact if only one of the models is right on fewer than EXACT_BELOW images."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    table = [
        [int((first & second).sum()), only_first],
        [only_second, int((~first & ~second).sum())],
    ]
    exact = only_first + only_second < EXACT_BELOW
    return Paired(only_first, only_second, float(test(table, exact=exact).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that the family-wise error rate is controlled (Holm 1979).

    statsmodels has this too, but runs Python's garbage collector at each call, which takes up to a second.
    """
    found = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(found, kind="stable")
    larger = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(larger, 1)
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class Mean:
    """The mean of a few runs, with its confidence interval."""

    runs: int
    mean: float
    deviation: float
    """Standard deviation of the runs."""
    interval: Interval
    """Student's t interval of the mean over other seeds, and over other images where values of images are known."""


def mean_of(values: Numbers, ends: tuple[float, float] = UNBOUNDED) -> Mean:
    """Mean, standard deviation and t interval (Student 1908) of two runs or more; values (runs, images).

    With several images the standard error is that of `uncertain`, which covers runs and images; with one column it
    covers runs only. The true value lies within `ends`, so the interval is cut off there, which loses no coverage.
    """
    runs = len(values)
    found = uncertain(np.full(runs, 1 / runs), np.ones((runs, 1)), values)
    deviation = float(values.mean(axis=1).std(ddof=1))
    return Mean(runs, found.estimate, deviation, _within(found, ends))


def _within(
    found: Uncertain, ends: tuple[float, float], confidence: float = CONFIDENCE
) -> Interval:
    low, high = found.interval(confidence)
    method = (
        "t" if ends[0] <= low and high <= ends[1] else f"t, cut off at {ends[0]:g} and {ends[1]:g}"
    )
    return Interval(float(max(low, ends[0])), float(min(high, ends[1])), confidence, method)


@dataclass(frozen=True)
class Difference:
    """By how much the mean (of runs) or the share (of images) of one group is higher than that of another."""

    difference: float
    interval: Interval
    p: float


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Welch's t test for groups of two runs or more with unequal variances (Welch 1947)."""
    from scipy.stats import ttest_ind

    difference = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == np.ptp(second) == 0:  # no spread: nothing to divide by
        p = 0.0 if difference else 1.0
        return Difference(difference, Interval(difference, difference, method="Welch"), p)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Precision loss", RuntimeWarning
        )  # one may have no spread
        found = ttest_ind(first, second, equal_var=False)
    low, high = found.confidence_interval(CONFIDENCE)
    interval = Interval(float(low), float(high), method="Welch")
    return Difference(difference, interval, float(found.pvalue))


def between(
    first: Numbers, second: Numbers, ends: tuple[float, float] = UNBOUNDED, pairs: int = 1
) -> tuple[Difference, float]:
    """The mean of the runs `first` minus that of `second`, and the difference that such a test detects with 80 % power.

    Both are (runs, images) on the same images, with two runs or more. The standard error covers runs and images
    (`uncertain`); with one column of values, runs only. The interval is Student's, cut off at `ends`; the intervals of
    this many `pairs` have simultaneous coverage CONFIDENCE (Bonferroni), so pairs may be picked for their difference.
    """
    level = (1 - CONFIDENCE) / pairs
    counts = len(first), len(second)
    weights = np.repeat([1 / counts[0], -1 / counts[1]], counts)
    found = uncertain(
        weights, np.repeat(np.eye(2), counts, axis=0), np.concatenate([first, second])
    )
    interval = _within(found, ends, 1 - level)
    return Difference(found.estimate, interval, found.p), found.visible(level)


@dataclass(frozen=True)
class Superiority:
    """How often a run of one setting comes out ahead of a run of another."""

    share: float
    """Share of all pairs of runs; a tie counts half."""
    interval: Interval
    """Of the probability that the first comes out ahead when both are trained again."""
    pairs: int


def superiority(first: Sequence[float], second: Sequence[float]) -> Superiority:
    """The probability that a run of the first setting scores higher than one of the second: Mann and Whitney's share.

    Values can be infinite: -inf stands for a run that did not learn. The interval is Newcombe's score method (2006,
    method 5), which needs no spread: winning all of 5 × 5 pairs gives 65 to 100 %, not 100 to 100 %.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    a, b = np.asarray(first)[:, None], np.asarray(second)[None, :]
    share, pairs = float(((a > b) + (a == b) / 2).mean()), a.size * b.size
    z, more = float(ndtri((1 + CONFIDENCE) / 2)), (a.size + b.size) / 2 - 1

    def beyond(p: float) -> float:
        variance = p * (1 - p) * (1 + more * ((1 - p) / (2 - p) + p / (1 + p))) / pairs
        return (share - p) ** 2 - z**2 * variance

    # at 0 and 1 the share itself is a root and one end of the interval; the other end still has to be found
    inside = min(max(share, TINY), 1 - TINY)
    low, high = float(brentq(beyond, 0, inside)), float(brentq(beyond, inside, 1))
    return Superiority(share, Interval(low, high, method="Newcombe"), pairs)


def two_proportions(right: int, images: int, other_right: int, other_images: int) -> Difference:
    """The share `right` of `images` minus the same share of other images.

    Interval: Newcombe's, from the two Wilson intervals (1998, his method 10). p: Fisher's exact test of equal shares.
    """
    from scipy.stats import fisher_exact
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(
        right,
        images,
        other_right,
        other_images,
        compare="diff",
        method="newcomb",
        alpha=1 - CONFIDENCE,
    )
    table = [[right, images - right], [other_right, other_images - other_right]]
    return Difference(
        right / images - other_right / other_images,
        Interval(float(low), float(high), method="Newcombe"),
        float(fisher_exact(table).pvalue),
    )
