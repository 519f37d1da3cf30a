"""Do curves still rise at their end, by more than their own noise?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.findings.effects.learning import Numbers
from analysis.levels import CONFIDENCE

FEWEST_EPOCHS: Final = 3
"""The fewest epochs for a slope: a line through two points has no error; assumed."""


@dataclass(frozen=True)
class Rise:
    """The common slope of all curves over their last epochs."""

    trials: int
    epochs: int
    """The number of last epochs used of each trial: the second half, at least FEWEST_EPOCHS."""
    slope: float
    """Of the metric per epoch, signed so that higher is better."""
    low: float
    high: float
    """95 % confidence interval, from the residuals of single epochs."""

    @property
    def is_seen(self) -> bool:
        return self.low > 0


def rise_of(curves: Sequence[Numbers]) -> Rise | None:
    """One least-squares slope for all curves (epochs,), each around its own mean; None if there is too little data.

    Each trial is scored on the same images in every epoch, so the effect of images cancels.
    """
    from scipy.stats import t

    known = [curve for curve in curves if len(curve) >= FEWEST_EPOCHS]
    if not known:
        return None
    last = max(FEWEST_EPOCHS, -(-min(len(curve) for curve in known) // 2))
    ends = np.array([curve[-last:] for curve in known])
    ends = ends - ends.mean(axis=1, keepdims=True)
    epochs = np.arange(last) - (last - 1) / 2
    spread = len(known) * float(epochs @ epochs)
    slope = float((ends @ epochs).sum()) / spread
    free = len(known) * (last - 1) - 1
    error = float(np.sqrt(((ends - slope * epochs) ** 2).sum() / free / spread))
    half = float(t.ppf((1 + CONFIDENCE) / 2, free)) * error
    return Rise(len(known), last, slope, slope - half, slope + half)
