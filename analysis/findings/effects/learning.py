"""Which trials learned, and at which moment of training they are compared: pure functions of curves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from trainable.records.rows import BROKEN, Status

Numbers = np.ndarray[Any, np.dtype[np.float64]]
MANY: Final = 0.25
"""If more than this share of a value's trials were not yet learning, the others don't represent it; assumed."""


@dataclass(frozen=True)
class LearningCurve:
    """One trial as it was observed."""

    settings: Mapping[str, Any]
    """Those that have an effect in it."""
    status: Status
    scores: Numbers
    """(epochs,): the metric, signed so that higher is better."""
    areas: Numbers
    """(epochs,): area under the ROC curve on the validation images."""
    stands_for: float = 1.0
    """How many trials of the search it represents as a random draw, itself included."""

    def best(self, until: int | None = None) -> int | None:
        """Index of the best of the first `until` epochs, the earliest if several are equal; None before the first."""
        seen = self.scores[:until]
        return int(np.argmax(seen)) if len(seen) else None

    def is_flat(self, chance: float, until: int | None = None) -> bool:
        """Is its area at the best of the first `until` epochs within chance (0.5 plus three standard errors)?"""
        best = self.best(until)
        return best is not None and not self.areas[best] > chance

    def did_not_learn(self, chance: float) -> bool:
        """It collapsed or diverged, or ran to its end and is flat."""
        return self.status in BROKEN or (self.status is Status.FINISHED and self.is_flat(chance))


@dataclass(frozen=True)
class Moment:
    """The epoch at which trials are compared, by their best value until then."""

    epoch: int
    epochs: int
    """The budget of a trial."""

    @property
    def is_end(self) -> bool:
        return self.epoch >= self.epochs

    @property
    def said(self) -> str:
        """`after 2 epochs`."""
        return f"after {self.epoch} epoch{'' if self.epoch == 1 else 's'}"


def moment_of(rungs: Sequence[int], epochs: int) -> Moment:
    """The first rung, which every trial reaches without selection; the end of the budget if nothing is pruned."""
    return Moment(min(rungs, default=epochs), epochs)


@dataclass(frozen=True)
class Parted:
    """Trials by their state at a moment; indices in the given order."""

    compared: tuple[int, ...]
    """They had learned by then."""
    broken: tuple[int, ...]
    """They collapsed, diverged, or ran to the end and are flat."""
    not_yet: tuple[int, ...]
    """They had reached the moment and were still flat, whether they learned later or were pruned."""


def part(curves: Sequence[LearningCurve], moment: Moment, chance: float) -> Parted:
    """Divide trials into groups. Trials that have not reached the moment are in none of them."""
    groups: dict[str, list[int]] = {"compared": [], "broken": [], "not_yet": []}
    for place, curve in enumerate(curves):
        if curve.did_not_learn(chance):
            groups["broken"].append(place)
        elif len(curve.scores) >= moment.epoch:
            flat = curve.is_flat(chance, moment.epoch)
            groups["not_yet" if flat else "compared"].append(place)
    return Parted(*(tuple(each) for each in groups.values()))


@dataclass(frozen=True)
class Count:
    """How many of a value's trials did not learn, or not yet."""

    name: str
    value: Any
    trials: int
    broken: int
    not_yet: int
    finished: int
    """Of those that learned, how many ran to the end."""


def counts_of(curves: Sequence[LearningCurve], parted: Parted, names: Sequence[str]) -> list[Count]:
    """For each value of each of `names`, in the order in which values first occur."""
    found = []
    for name in names:
        tallies = [
            Counter(
                curves[place].settings[name] for place in places if name in curves[place].settings
            )
            for places in (parted.compared, parted.broken, parted.not_yet)
        ]
        for value in dict.fromkeys(curve.settings.get(name) for curve in curves):
            seen = [tally[value] for tally in tallies]
            finished = sum(
                curves[place].settings.get(name) == value
                and curves[place].status is Status.FINISHED
                for place in (*parted.compared, *parted.not_yet)
            )
            if sum(seen):
                found.append(Count(name, value, sum(seen), seen[1], seen[2], finished))
    return found


@dataclass(frozen=True)
class Apart:
    """A setting from a range in which the trials that did not learn lie on one side of all others."""

    name: str
    low: float
    high: float
    others_low: float
    others_high: float


def apart_of(curves: Sequence[LearningCurve], parted: Parted, names: Sequence[str]) -> list[Apart]:
    """For each of `names`, which are numeric settings from a range."""
    found = []
    for name in names:
        broken, others = (
            [curves[place].settings[name] for place in places if name in curves[place].settings]
            for places in (parted.broken, (*parted.compared, *parted.not_yet))
        )
        if broken and others and (min(broken) > max(others) or max(broken) < min(others)):
            found.append(Apart(name, min(broken), max(broken), min(others), max(others)))
    return found


def slow_values(
    curves: Sequence[LearningCurve], parted: Parted, counts: Sequence[Count]
) -> list[Count]:
    """Values of which too many trials were not yet learning for the others to represent them.

    If no trial of a value is compared, its trials are put down to that value and count against no other.
    """
    out = {(c.name, c.value) for c in counts if c.broken + c.not_yet == c.trials}
    kept = [
        place
        for place in parted.not_yet
        if not any((name, value) in out for name, value in curves[place].settings.items())
    ]
    names = tuple(dict.fromkeys(count.name for count in counts))
    others = Parted(parted.compared, (), tuple(kept))
    found = counts_of(curves, others, names)
    return [count for count in found if count.not_yet > MANY * count.trials]
