"""What is said of settings, as data."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from analysis.findings.effects.learning import Apart, Count, Moment
from analysis.statistics import ALPHA


class Verdict(StrEnum):
    """What can be said of two values of a setting."""

    BETTER = "better"
    NO_DIFFERENCE = "no difference that matters"
    CANT_TELL = "can't tell"


@dataclass(frozen=True)
class Effect:
    """Two values of a setting, whatever else trials have: the first did better, or seemed to."""

    name: str
    first: Any
    second: Any
    difference: float
    """Of the metric, turned so that higher is better."""
    low: float
    high: float
    """95 % interval."""
    p_holm: float
    verdict: Verdict
    visible: float
    """The smallest difference that is claimed in four of five such runs."""
    pairs: tuple[int, int]
    """In how many of how many pairs of trials that differ in this alone the first is ahead."""
    at_best_rates: bool = False
    """Strategies, each at the learning rate at which it is best."""
    not_yet: Count | None = None
    """Where too many trials of a value were not yet learning: then nothing is told."""


@dataclass(frozen=True)
class Trend:
    """A setting from a range, as a parabola."""

    name: str
    low: float
    high: float
    """The range that was tried."""
    best: float
    """Where the parabola is highest within it."""
    p_holm: float

    @property
    def is_claimed(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Together:
    """Does the best learning rate depend on the strategy?"""

    p_holm: float
    best: dict[str, float]
    """The best rate of each strategy by the model in which they act together."""

    @property
    def is_claimed(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Mattered:
    """What the trials of a search say of its settings, at one moment of training."""

    moment: Moment
    trials: int
    """That had learned by then, and are compared."""
    broken: int
    """That did not learn, and are not."""
    counts: tuple[Count, ...]
    """By listed value, how many did not learn, or not yet."""
    apart: tuple[Apart, ...]
    """Settings from a range in which those that did not learn lie apart from the others."""
    effects: tuple[Effect, ...] = ()
    trends: tuple[Trend, ...] = ()
    together: Together | None = None
    """None where strategy and rate don't both vary, or trials are too few."""
    lacking: int = 0
    """Trials that are missing for anything to be said of settings."""
    with_images: bool = False
    """Other images were taken into account; else all holds on these images."""
