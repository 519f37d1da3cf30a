"""The linear model of what trials reached: indicator columns for listed values, a parabola for a range."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from analysis.wording import SECONDARY
from sweep.request.space import Choice, Dimension

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Settings = Mapping[str, Any]
STRATEGY, RATE = "strategy", "lr"
LISTED: Final = 6
"""Numbers with at most this many values are modelled one by one, and drawn as a list; assumed."""
LOG_SPAN: Final = 9
"""Numbers that span more than this factor are modelled and drawn on a log scale: about a decade; assumed."""


@dataclass(frozen=True)
class Term:
    """A setting in the model."""

    name: str
    values: tuple[Any, ...]
    """Listed values; for a range, the lowest and the highest value that was tried."""
    is_listed: bool
    row: Callable[[Any], Numbers]
    """The columns (columns,) of a trial with this value; all are 0 where the setting has no effect."""


def terms_of(settings: Sequence[Settings], dimensions: Sequence[Dimension]) -> list[Term]:
    """A term for each searched setting with two or more values among these trials. Seeds don't count as settings."""
    found = []
    for dimension in dimensions:
        if dimension.name in SECONDARY:
            continue
        seen = [s[dimension.name] for s in settings if dimension.name in s]
        term = _term(dimension, seen)
        if term is not None:
            found.append(term)
    return found


def _term(dimension: Dimension, seen: Sequence[Any]) -> Term | None:
    name, domain = dimension.name, dimension.domain
    listed: tuple[Any, ...] = (
        domain.values if isinstance(domain, Choice) else tuple(sorted(set(seen)))
    )
    values = tuple(value for value in listed if value in seen)
    if len(values) < 2:
        return None
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    stepped = isinstance(domain, Choice) or domain.kind in ("int", "logint", "quniform")
    if not numeric or (stepped and len(values) <= LISTED):
        return Term(name, values, True, _dummies(values))
    low, high = min(values), max(values)
    logarithmic = low > 0 and (name == RATE or high > LOG_SPAN * low)
    return Term(name, (low, high), False, _parabola(seen, logarithmic))


def _dummies(values: Sequence[Any]) -> Callable[[Any], Numbers]:
    places = {value: place for place, value in enumerate(values)}
    rows = np.eye(len(values))[:, 1:] if len(values) > 2 else np.array([[-0.5], [0.5]])

    def row(value: Any) -> Numbers:
        found: Numbers = rows[places[value]]
        return found

    return row


def _parabola(seen: Sequence[float], logarithmic: bool) -> Callable[[Any], Numbers]:
    scaled = np.log10(seen) if logarithmic else np.asarray(seen, float)
    middle, half = float(scaled.mean()), float(np.ptp(scaled)) / 2
    square = float((((scaled - middle) / half) ** 2).mean())

    def row(value: Any) -> Numbers:
        place = ((math.log10(value) if logarithmic else float(value)) - middle) / half
        return np.array([place, place**2 - square])

    return row


@dataclass(frozen=True)
class Model:
    """Additive terms, and the interaction of strategy and rate if `together`."""

    terms: tuple[Term, ...]
    together: bool
    design: Numbers
    """(trials, parameters), the intercept first."""
    stands_for: Numbers
    """(trials,): how many trials each represents as a random draw; the weights of least squares."""

    @property
    def spare(self) -> int:
        """The number of trials minus the number of parameters (the rank)."""
        return len(self.design) - int(np.linalg.matrix_rank(self.design))

    def row(self, point: Settings) -> Numbers:
        """(parameters,) of a trial with these settings, the other settings at their mean."""
        return _row(self.terms, self.together, point)

    def contrast(self, first: Settings, second: Settings) -> Numbers | None:
        """Weights (trials,) of the difference between trials at `first` and at `second`, other settings being equal.

        None if the difference is confounded with other settings.
        """
        difference = self.row(first) - self.row(second)
        weights: Numbers = difference @ self._estimator
        return weights if np.allclose(weights @ self.design, difference, atol=1e-6) else None

    def coefficients(self, values: Numbers) -> Numbers:
        """(parameters,) by weighted least squares from (trials,)."""
        found: Numbers = self._estimator @ values
        return found

    @cached_property
    def _estimator(self) -> Numbers:
        """(parameters, trials)."""
        root = self.stands_for**0.5
        found: Numbers = np.linalg.pinv(self.design * root[:, None]) * root
        return found


def model_of(
    settings: Sequence[Settings], terms: Sequence[Term], stands_for: Numbers, together: bool
) -> Model:
    """The model of trials with these settings."""
    rows = [_row(terms, together, each) for each in settings]
    return Model(tuple(terms), together, np.array(rows), stands_for)


def _row(terms: Sequence[Term], together: bool, point: Settings) -> Numbers:
    parts = {
        term.name: term.row(point[term.name])
        if term.name in point
        else np.zeros(len(term.row(term.values[0])))
        for term in terms
    }
    products = np.outer(parts[STRATEGY], parts[RATE]).ravel() if together else np.zeros(0)
    return np.concatenate([np.ones(1), *parts.values(), products])


SMALL: Final = 1e-8  # a column shorter than this share of the longest is a rounding error; assumed


def added_by(larger: Model, smaller: Numbers) -> Numbers | None:
    """Weights (contrasts, trials) that give 0 for all that the `smaller` design can fit.

    An orthonormal basis of what the larger model can fit and the smaller can't, with each trial weighted by the root
    of what it stands for; None if there is no such direction.
    """
    root = larger.stands_for**0.5
    base, sizes, _ = np.linalg.svd(smaller * root[:, None], full_matrices=False)
    base = base[:, sizes > SMALL * sizes.max()]
    scaled = larger.design * root[:, None]
    found, sizes, _ = np.linalg.svd(scaled - base @ (base.T @ scaled), full_matrices=False)
    weights: Numbers = found[:, sizes > SMALL * np.linalg.norm(scaled)].T * root
    return weights if len(weights) else None


def without(model: Model, name: str) -> Numbers:
    """The design of the model without one setting."""
    widths = [len(term.row(term.values[0])) for term in model.terms]
    place = [term.name for term in model.terms].index(name)
    start = 1 + sum(widths[:place])
    return np.delete(model.design, np.s_[start : start + widths[place]], axis=1)
