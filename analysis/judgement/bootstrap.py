"""Bootstrap intervals over the images, always with the same draws.

Images are resampled within each class, because the split fixes the class shares. Draws are weights (draws, images):
how often an image was drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.levels import CONFIDENCE
from analysis.statistics import Interval
from analysis.wording import number

BOOTSTRAPS: Final = 1_000  # draws; assumed
CELLS: Final = 2**21  # weights held at once: 16 MiB; assumed
FEWEST: Final = 20
"""Images of each class that an interval needs: with fewer, it would be too narrow; assumed."""
GRID: Final = np.linspace(0, 1, 101)
"""False positive rates, or recalls, at which the bands are computed: every hundredth; by eye."""
BAND: Final = ["place", "recall_low", "recall_high", "precision_low", "precision_high"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.bool_]]
"""(images,): is it of class 1?"""
Places = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval over other images like these."""

    value: float
    interval: Interval | None
    """None if a class has fewer than FEWEST images, or all draws are equal."""

    def said(self) -> str:
        """The number with its interval, if there is one."""
        if self.interval is None:
            return number(self.value)
        low, high = number(self.interval.low), number(self.interval.high)
        return f"{number(self.value)} (95 % confidence interval {low} to {high})"


def draws(labels: Labels, count: int = BOOTSTRAPS, seed: int = 0) -> Iterator[Floats]:
    """Weights for `count` draws in total, some at a time: each (draws, images)."""
    random = np.random.default_rng(seed)
    images, at_once = len(labels), max(1, CELLS // len(labels))
    classes = [np.flatnonzero(labels == value) for value in (False, True)]
    for start in range(0, count, at_once):
        rows = min(at_once, count - start)
        offset = images * np.arange(rows)[:, None]
        drawn = [
            (c[random.integers(len(c), size=(rows, len(c)))] + offset) for c in classes if len(c)
        ]
        flat = np.concatenate([each.ravel() for each in drawn])
        yield np.bincount(flat, minlength=rows * images).reshape(rows, images).astype(np.float64)


def on_logits(value: float, drawn: Floats, images: int) -> Interval | None:
    """A value in 0…1 plus and minus 1.96 standard deviations of its draws (draws,), all on the logit scale.

    In simulations with 300 images and areas of 0.76 to 0.99, it covered the true value in 94 to 96 %; plain percentiles
    did in 93 %, BCa (Efron 1987) in 91 to 95 %. None if the value is 0 or 1, or all draws are equal.
    """
    from scipy.special import expit, logit, ndtri

    if not 0 < value < 1 or np.ptp(drawn) == 0:
        return None
    least = 1 / images**2  # less than one pair of images is worth
    deviation = float(logit(np.clip(drawn, least, 1 - least)).std(ddof=1))
    low, high = expit(
        logit(value) + ndtri([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) * deviation
    )
    return Interval(float(low), float(high), method="bootstrap on logits")


def enough(labels: Labels) -> bool:
    return min(int(labels.sum()), int((~labels).sum())) >= FEWEST


def mean_of_images(values: Floats, labels: Labels, count: int = BOOTSTRAPS) -> Estimate:
    """The mean of a value of each image (images,), in 0…1."""
    value = float(values.mean())
    if not enough(labels):
        return Estimate(value, None)
    drawn = np.concatenate([weights @ values for weights in draws(labels, count)]) / len(values)
    return Estimate(value, on_logits(value, drawn, len(values)))


# ---------------------------------------------------------------- areas and bands


@dataclass(frozen=True)
class Ranked:
    """Images from the highest score to the lowest; those with the same score form one step."""

    labels: Labels
    order: Places
    starts: Places
    """Where in `order` each step begins."""

    @staticmethod
    def by(scores: Floats, labels: Labels) -> "Ranked":
        order = np.argsort(-scores, kind="stable")
        return Ranked(labels, order, np.flatnonzero(np.diff(scores[order], prepend=np.inf)))

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """True and false positives if all images down to a step are predicted positive: (draws, steps) each."""
        ordered, positive = weights[:, self.order], self.labels[self.order]
        true = np.add.reduceat(ordered * positive, self.starts, axis=1).cumsum(axis=1)
        false = np.add.reduceat(ordered * ~positive, self.starts, axis=1).cumsum(axis=1)
        return true, false


def roc_auc(true: Floats, false: Floats) -> Floats:
    """Area under the ROC curve by trapezoids: (draws,)."""
    before = np.pad(true, ((0, 0), (1, 0)))[:, :-1]
    width = np.diff(false, axis=1, prepend=0)
    area: Floats = ((true + before) / 2 * width).sum(axis=1) / (true[:, -1] * false[:, -1])
    return area


def average_precision(true: Floats, false: Floats) -> Floats:
    """Mean over positive images of the precision where each one is found, as in scikit-learn: (draws,)."""
    precision = true / np.maximum(true + false, 1)
    mean: Floats = (np.diff(true, axis=1, prepend=0) * precision).sum(axis=1) / true[:, -1]
    return mean


def areas(scores: Floats, labels: Labels, count: int = BOOTSTRAPS) -> tuple[Estimate, Estimate]:
    """ROC AUC and average precision of scores (images,), with at least one image of each class."""
    return _areas(Ranked.by(scores, labels), count, np.empty(0))[:2]


def areas_and_bands(
    scores: Floats, labels: Labels, count: int = BOOTSTRAPS
) -> tuple[Estimate, Estimate, pd.DataFrame]:
    """The same, and a band with 95 % of the draws at each place of GRID: a frame of
    place, recall_low, recall_high (of the ROC curve, where place is a false positive rate),
    precision_low, precision_high (where it is a recall); without rows if there are too few images.
    """
    return _areas(Ranked.by(scores, labels), count, GRID)


def _areas(ranked: Ranked, count: int, grid: Floats) -> tuple[Estimate, Estimate, pd.DataFrame]:
    true, false = ranked.counts(np.ones((1, len(ranked.labels))))
    values = float(roc_auc(true, false)[0]), float(average_precision(true, false)[0])
    if not enough(ranked.labels):
        return Estimate(values[0], None), Estimate(values[1], None), pd.DataFrame(columns=BAND)
    found: list[tuple[Floats, ...]] = []
    for weights in draws(ranked.labels, count):
        true, false = ranked.counts(weights)
        found.append(
            (roc_auc(true, false), average_precision(true, false), *_heights(true, false, grid))
        )
    area, precision, recall_at, precision_at = map(np.concatenate, zip(*found, strict=True))
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    band = pd.DataFrame(
        np.column_stack(
            [grid, *np.quantile(recall_at, ends, axis=0), *np.quantile(precision_at, ends, axis=0)]
        ),
        columns=BAND,
    )
    return (
        Estimate(values[0], on_logits(values[0], area, len(ranked.labels))),
        Estimate(values[1], on_logits(values[1], precision, len(ranked.labels))),
        band,
    )


def _heights(true: Floats, false: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """Recall at each false positive rate, precision at each recall of `grid`: (draws, grid) each."""
    rows, positives, negatives = len(true), true[0, -1], false[0, -1]
    recalls, precisions = np.empty((rows, len(grid))), np.empty((rows, len(grid)))
    if len(grid):
        precision = true / np.maximum(true + false, 1)
        for n in range(rows):
            recalls[n] = np.interp(grid * negatives, np.append(0, false[n]), np.append(0, true[n]))
            precisions[n] = precision[
                n, np.searchsorted(true[n], np.maximum(grid * positives, 1) - 1e-9)
            ]
    return recalls / positives, precisions
