"""Intervals and counts behind the final number, thin over statsmodels and scikit-learn's conventions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = 0.95


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


def confusion(logits: "Tensor", labels: "Tensor") -> Confusion:
    """Counts from logits (n,) and labels (n,) of 0 and 1; sigmoid > 0.5 predicts 1."""
    predicted, actual = logits > 0, labels > 0.5
    return Confusion(
        true_negative=int((~predicted & ~actual).sum()),
        false_positive=int((predicted & ~actual).sum()),
        false_negative=int((~predicted & actual).sum()),
        true_positive=int((predicted & actual).sum()),
    )
