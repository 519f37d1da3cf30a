"""The linear model of what trials reached: a column for each listed value, a parabola for a range."""

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
"""Numbers with at most so many values are taken one by one, and drawn as a list of them; assumed."""
LOG_SPAN: Final = 9
"""Numbers that span more than this factor are taken and drawn by their logarithm: about a decade; assumed."""


@dataclass(frozen=True)
class Term:
    """A setting in the model."""

    name: str
    values: tuple[Any, ...]
    """Listed values; of a range the lowest and the highest that were tried."""
    is_listed: bool
    row: Callable[[Any], Numbers]
    """The columns (columns,) of a trial with this value; 0 in all of them where the setting does not act."""

    def columns(self, settings: Sequence[Settings]) -> Numbers:
        """(trials, columns)."""
        width = len(self.row(self.values[0]))
        rows = [self.row(s[self.name]) if self.name in s else np.zeros(width) for s in settings]
        return np.array(rows).reshape(len(settings), width)


def terms_of(settings: Sequence[Settings], dimensions: Sequence[Dimension]) -> list[Term]:
    """A term for each searched setting with two values or more among these trials. Seeds are no settings."""
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
    """Terms that add up, and strategy with rate where `together`."""

    terms: tuple[Term, ...]
    together: bool
    design: Numbers
    """(trials, parameters), the intercept first."""
    stands_for: Numbers
    """(trials,): of how many trials each is a random draw; least squares are weighted so."""

    @property
    def spare(self) -> int:
        """Trials more than the model has parameters."""
        return len(self.design) - int(np.linalg.matrix_rank(self.design))

    def row(self, point: Settings) -> Numbers:
        """(parameters,) of a trial with these settings; the others at their mean."""
        return _row(self.terms, self.together, point)

    def contrast(self, first: Settings, second: Settings) -> Numbers | None:
        """Weights (trials,) of what trials at `first` reach less what those at `second` do, other settings alike.

        None where the trials can't tell it from what other settings do.
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


SMALL: Final = 1e-8  # share of the longest column below which one is a rounding error; assumed


def added_by(larger: Model, smaller: Numbers) -> Numbers | None:
    """Weights (contrasts, trials) that are all 0 where the `smaller` design explains what `larger` does.

    An orthonormal basis of what the larger model can follow and the smaller can't, where each trial counts by the root
    of what it stands for; None where there is nothing.
    """
    root = larger.stands_for**0.5
    base, sizes, _ = np.linalg.svd(smaller * root[:, None], full_matrices=False)
    base = base[:, sizes > SMALL * sizes.max()]
    scaled = larger.design * root[:, None]
    found, sizes, _ = np.linalg.svd(scaled - base @ (base.T @ scaled), full_matrices=False)
    weights: Numbers = found[:, sizes > SMALL * np.linalg.norm(scaled)].T * root
    return weights if len(weights) else None


def without(model: Model, name: str) -> Numbers:
    """The design of the model with one setting left out."""
    start = 1
    for term in model.terms:
        width = len(term.row(term.values[0]))
        if term.name == name:
            return np.delete(model.design, np.s_[start : start + width], axis=1)
        start += width
    raise KeyError(name)
