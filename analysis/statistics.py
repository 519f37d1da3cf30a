"""Intervals, counts and paired tests behind the numbers, thin over statsmodels and scikit-learn's conventions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
EXACT_BELOW = 25  # discordant images; beyond them McNemar's chi-squared with continuity correction
BOOTSTRAPS = 2_000

Numbers = np.ndarray[Any, np.dtype[Any]]
Right = np.ndarray[Any, np.dtype[np.bool_]]
"""(images,): was the prediction right?"""


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
        """Share of the images predicted 1 that are 1; None where none is predicted 1."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """Share of the images of class 1 that are predicted 1; None where there is none."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where class 1 is neither there nor predicted."""
        found = 2 * self.true_positive
        return _ratio(found, found + self.false_positive + self.false_negative)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def confusion(logits: Numbers, labels: Numbers) -> Confusion:
    """Counts from logits (n,) and labels (n,) of 0 and 1; sigmoid > 0.5 predicts 1."""
    predicted, actual = logits > 0, labels > 0.5
    return Confusion(
        true_negative=int((~predicted & ~actual).sum()),
        false_positive=int((predicted & ~actual).sum()),
        false_negative=int((~predicted & actual).sum()),
        true_positive=int((predicted & actual).sum()),
    )


@dataclass(frozen=True)
class Paired:
    """Two models on the same images: where they differ, and how likely so much of a difference is by chance."""

    only_first: int
    """Images that the first model alone gets right."""
    only_second: int
    p: float
    """Of McNemar's test (McNemar 1947): two-sided, that both are right equally often."""


def mcnemar(first: Right, second: Right) -> Paired:
    """McNemar's test: exact where fewer than EXACT_BELOW images tell the models apart."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    table = [
        [int((first & second).sum()), only_first],
        [only_second, int((~first & ~second).sum())],
    ]
    exact = only_first + only_second < EXACT_BELOW
    return Paired(only_first, only_second, float(test(table, exact=exact).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, made larger so that one false alarm in all is as rare as said (Holm 1979).

    statsmodels has it too, and collects all of Python's garbage at each call: up to a second.
    """
    found = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(found, kind="stable")
    larger = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(larger, 1)
    return [float(p) for p in adjusted]


def optimism(right: "np.ndarray[Any, np.dtype[np.bool_]]", seed: int = 0) -> float:
    """By how much the best of several accuracies on the same images is too high, because it was chosen on them.

    `right` is (models, images). Efron's bootstrap (1983): images are drawn again, the best model chosen on the draw,
    and its accuracy there compared with its accuracy on the images as they are; the mean of BOOTSTRAPS such
    differences. Epochs were chosen on the same images too, which this does not see.
    """
    draw = np.random.default_rng(seed)
    images = right.shape[1]
    weights = draw.multinomial(images, np.full(images, 1 / images), size=BOOTSTRAPS)
    drawn = right.astype(np.float64) @ weights.T / images  # (models, bootstraps)
    best = drawn.argmax(axis=0)
    return float((drawn[best, np.arange(BOOTSTRAPS)] - right.mean(axis=1)[best]).mean())


@dataclass(frozen=True)
class Mean:
    """The mean of a few runs, and what it could be."""

    runs: int
    mean: float
    deviation: float
    """Standard deviation of the runs."""
    interval: Interval
    """Of the mean, by Student's t."""


def mean_of(values: Sequence[float]) -> Mean:
    """Mean, standard deviation and t interval of two values or more (Student 1908)."""
    from scipy.stats import t

    found = np.asarray(values, dtype=np.float64)
    deviation = float(found.std(ddof=1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(found) - 1)) * deviation / np.sqrt(len(found))
    mean = float(found.mean())
    return Mean(len(found), mean, deviation, Interval(mean - half, mean + half, method="t"))


@dataclass(frozen=True)
class Difference:
    """By how much the mean (of runs) or the share (of images) of one group is higher than that of another."""

    difference: float
    interval: Interval
    p: float


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Welch's t test for groups of two runs or more with variances of their own (Welch 1947)."""
    from scipy.stats import ttest_ind

    difference = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == np.ptp(second) == 0:  # no spread: nothing to divide by
        p = 0.0 if difference else 1.0
        return Difference(difference, Interval(difference, difference, method="Welch"), p)
    found = ttest_ind(first, second, equal_var=False)
    low, high = found.confidence_interval(CONFIDENCE)
    interval = Interval(float(low), float(high), method="Welch")
    return Difference(difference, interval, float(found.pvalue))


def two_shares(right: int, images: int, other_right: int, other_images: int) -> Difference:
    """The share `right` of `images` less that of other images.

    Interval: Newcombe's, from the two Wilson intervals (1998, his method 10). p: Fisher's exact test, that the shares
    are equal.
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
