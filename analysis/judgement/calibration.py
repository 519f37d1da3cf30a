"""Is the model calibrated? Bins, Brier score, expected calibration error."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.judgement.bootstrap import BOOTSTRAPS, CELLS, Estimate, Floats, mean_of_images
from analysis.judgement.predicted import labels_of, probabilities, rights
from analysis.levels import CONFIDENCE
from analysis.statistics import Interval, wilson
from analysis.wording import counted, number, percent, points

BINS: Final = 10
"""Of the predicted probability, each a tenth wide, as is usual (Guo et al. 2017 use 15)."""


@dataclass(frozen=True)
class Bin:
    """The images with a predicted probability above `low` (or 0) and up to `high`."""

    low: float
    high: float
    images: int
    positives: int
    probability: float
    """Mean predicted probability of these images."""
    share: float
    """Share of these images that are positive."""
    interval: Interval
    """Confidence interval of the share (Wilson)."""


@dataclass(frozen=True)
class Calibration:
    """Are images predicted with 80 % positive in 80 % of cases? Shares and probabilities in 0…1."""

    bins: tuple[Bin, ...]
    """Those that contain an image."""
    brier: Estimate
    """Mean squared difference of probability and label (Brier 1950)."""
    brier_of_share: float
    """The Brier score of always predicting the share of positives."""
    error: float
    """Expected calibration error over `bins`: mean distance of probability and share, weighted by images."""
    error_by_chance: Interval
    """The middle 95 % of what a perfectly calibrated model with these probabilities would show on these images."""
    confidence: float
    """Mean probability that the model assigns to the class that it predicts."""
    accuracy: float

    def said(self) -> Iterator[str]:
        """In sentences."""
        yield (
            f"Brier score {self.brier.said()}; always predicting the share of positives would score "
            f"{number(self.brier_of_share)}"
        )
        low, high = self.error_by_chance.low, self.error_by_chance.high
        beyond = self.error > high
        yield (
            f"expected calibration error {_points(self.error)} over {counted(len(self.bins), 'bin')} of width 0.1; "
            f"with perfect calibration, chance alone would give {_points(low)} to {_points(high)}, so "
            + ("the model is miscalibrated" if beyond else "there is no evidence of miscalibration")
        )
        excess = self.confidence - self.accuracy
        yield (
            f"mean confidence is {percent(self.confidence)}, accuracy {percent(self.accuracy)}"
            + (
                f": {'over' if excess > 0 else 'under'}confident by {_points(abs(excess))}"
                if beyond
                else ""
            )
        )

    def frame(self) -> pd.DataFrame:
        """One row per bin: low, high, images, probability, share, share_low, share_high."""
        rows = [
            (b.low, b.high, b.images, b.probability, b.share, b.interval.low, b.interval.high)
            for b in self.bins
        ]
        names = ["low", "high", "images", "probability", "share", "share_low", "share_high"]
        return pd.DataFrame(rows, columns=names)


def calibration_of(predictions: pd.DataFrame) -> Calibration:
    """From `predictions` (label, logit), at least one row, no logit NaN."""
    labels, probability = labels_of(predictions), probabilities(predictions)
    edges = np.linspace(0, 1, BINS + 1)
    place = np.digitize(probability, edges[1:-1], right=True)
    bins = []
    for n in np.unique(place):
        inside = place == n
        images, positives = int(inside.sum()), int(labels[inside].sum())
        bins.append(
            Bin(
                float(edges[n]),
                float(edges[n + 1]),
                images,
                positives,
                float(probability[inside].mean()),
                positives / images,
                wilson(positives, images),
            )
        )
    share = float(labels.mean())
    return Calibration(
        tuple(bins),
        mean_of_images((probability - labels) ** 2, labels),
        share * (1 - share),
        sum(b.images * abs(b.probability - b.share) for b in bins) / len(labels),
        _error_by_chance(probability, place),
        float(np.maximum(probability, 1 - probability).mean()),
        float(rights(predictions).mean()),
    )


def _error_by_chance(probability: Floats, place: "np.ndarray[Any, Any]") -> Interval:
    """The calibration error if labels are drawn with the predicted probabilities: BOOTSTRAPS draws, always the same."""
    random, images = np.random.default_rng(0), len(probability)
    inside = (place[:, None] == np.unique(place)).astype(float)
    expected, errors = probability @ inside, []
    at_once = max(1, CELLS // images)
    for start in range(0, BOOTSTRAPS, at_once):
        drawn = random.random((min(at_once, BOOTSTRAPS - start), images)) < probability
        errors.append(np.abs(drawn @ inside - expected).sum(axis=1) / images)
    low, high = np.quantile(np.concatenate(errors), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high), method="simulated")


def _points(share: float) -> str:
    """Percentage points without a sign."""
    return points(share).removeprefix("+")
