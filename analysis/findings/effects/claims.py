"""Conclusions about settings, as data."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from analysis.findings.effects.learning import Apart, Count, Moment
from analysis.levels import ALPHA


class Verdict(StrEnum):
    """The conclusion about two values of a setting."""

    BETTER = "better"
    NO_DIFFERENCE = "no difference that matters"
    CANT_TELL = "can't tell"


@dataclass(frozen=True)
class Effect:
    """Two values of a setting, averaged over the other settings; the first did better, significantly or not."""

    name: str
    first: Any
    second: Any
    difference: float
    """Of the metric, signed so that higher is better."""
    low: float
    high: float
    """95 % confidence interval."""
    p_holm: float
    verdict: Verdict
    visible: float
    """The smallest difference that such a run detects with 80 % power."""
    pairs: tuple[int, int]
    """Pairs of trials that differ only in this setting: in how many the first is ahead, and how many there are."""
    at_best_rates: bool = False
    """Strategies are compared, each at its own best learning rate."""
    not_yet: Count | None = None
    """Set if too many trials of a value were not yet learning: then there is no conclusion."""


@dataclass(frozen=True)
class Trend:
    """A setting from a range, modelled as a parabola."""

    name: str
    low: float
    high: float
    """The range that was tried."""
    best: float
    """Where the parabola is highest within the range."""
    p_holm: float

    @property
    def is_claimed(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Together:
    """Does the best learning rate depend on the strategy?"""

    p_holm: float
    best: dict[str, float]
    """The best rate of each strategy, by the model with their interaction."""

    @property
    def is_claimed(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Mattered:
    """What the trials of a search show about its settings, at one moment of training."""

    moment: Moment
    trials: int
    """That had learned by then, and are compared."""
    broken: int
    """That did not learn, and are not compared."""
    counts: tuple[Count, ...]
    """For each listed value, how many did not learn, or not yet."""
    apart: tuple[Apart, ...]
    """Settings from a range in which the trials that did not learn are separated from the others."""
    effects: tuple[Effect, ...] = ()
    trends: tuple[Trend, ...] = ()
    together: Together | None = None
    """None if strategy and rate don't both vary, or there are too few trials."""
    lacking: int = 0
    """How many more trials are needed for conclusions about settings."""
    with_images: bool = False
    """Standard errors cover other images too; if not, conclusions hold on these images only."""
