"""Do curves still rise at their end, beyond their own wobble?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.findings.effects.learning import Numbers
from analysis.statistics import CONFIDENCE

FEWEST_EPOCHS: Final = 3
"""That a slope is taken over, at least: through two points there is no error; assumed."""


@dataclass(frozen=True)
class Rise:
    """The slope of curves over their last epochs, one for all of them."""

    trials: int
    epochs: int
    """The last ones, so many of each trial: the second half, at least FEWEST_EPOCHS."""
    slope: float
    """Of the metric, turned so that higher is better, in an epoch."""
    low: float
    high: float
    """95 % interval, by how far single epochs lie off the line."""

    @property
    def is_seen(self) -> bool:
        return self.low > 0


def rise_of(curves: Sequence[Numbers]) -> Rise | None:
    """One slope for all curves (epochs,), each about its own mean, by least squares; None where there is too little.

    Each trial is scored on the same images in every epoch, so what images have in common cancels.
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
