"""The fitted linear model: what trials reach according to it, with standard errors over seeds and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from analysis.findings.effects.model import (
    RATE,
    STRATEGY,
    Model,
    Numbers,
    Settings,
    added_by,
    model_of,
    without,
)
from analysis.image_variance import Uncertain, jointly, uncertain

PLACES: Final = 61
"""Places in a range at which a fitted parabola is evaluated to find its best: every sixtieth of it; assumed."""


@dataclass(frozen=True)
class Fitted:
    """A model, and what the trials that it was fitted to reached."""

    model: Model
    settings: Sequence[Settings]
    """The searched settings of each trial."""
    values: Numbers
    """(trials, images), or (trials, 1) where only the metric is known."""

    @cached_property
    def means(self) -> Numbers:
        """(trials,)."""
        found: Numbers = self.values.mean(axis=1, dtype=np.float64)
        return found

    def at(self, point: Settings) -> float:
        """What trials with these settings reach, the other settings at their mean."""
        return float(self._coefficients @ self.model.row(point))

    def best(self, name: str, places: Sequence[float], point: Settings) -> float:
        """The one of `places` at which a numeric setting does best."""
        return float(max(places, key=lambda place: self.at({**point, name: place})))

    def lead(self, first: Settings, second: Settings) -> Uncertain | None:
        """What trials reach at `first` minus at `second`; None if that is confounded with other settings."""
        weights = self.model.contrast(first, second)
        if weights is None:
            return None
        return uncertain(weights, self.model.design, self.values, self.model.stands_for)

    def p_of(self, name: str) -> float | None:
        """p-value of the F test that a setting has no effect; None if that is confounded with other settings."""
        return self._p(added_by(self.model, without(self.model, name)))

    def p_beyond(self, smaller: Model) -> float | None:
        """p-value of the F test that the smaller model is sufficient; None if it fits all that this one can."""
        return self._p(added_by(self.model, smaller.design))

    def together(self) -> "Fitted":
        """The same with the interaction of strategy and rate."""
        stands_for = self.model.stands_for
        model = model_of(self.settings, self.model.terms, stands_for, together=True)
        return Fitted(model, self.settings, self.values)

    def best_rates(self) -> dict[Any, float]:
        """The rate at which each strategy does best, among those (or within the range) that it was tried with."""
        by_name = {term.name: term for term in self.model.terms}
        found = {}
        for strategy in by_name[STRATEGY].values:
            tried = [s[RATE] for s in self.settings if s[STRATEGY] == strategy]
            rates = (
                sorted(set(tried))
                if by_name[RATE].is_listed
                else np.geomspace(min(tried), max(tried), PLACES).tolist()
            )
            found[strategy] = self.best(RATE, rates, {STRATEGY: strategy})
        return found

    def p_at(self, rates: Mapping[Any, float]) -> float:
        """p-value of the F test that strategies, each at its own rate, do equally well."""
        first, *others = ({STRATEGY: strategy, RATE: rate} for strategy, rate in rates.items())
        weights = [self.model.contrast(first, other) for other in others]
        known = [each for each in weights if each is not None]
        p = self._p(np.array(known) if known else None)
        return 1.0 if p is None else p

    def _p(self, weights: Numbers | None) -> float | None:
        if weights is None:
            return None
        return jointly(weights, self.model.design, self.values, self.model.stands_for).p

    @cached_property
    def _coefficients(self) -> Numbers:
        return self.model.coefficients(self.means)
