"""What the model says of each setting: better, no difference that matters, or not to be told from these trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from typing import Any, Final

import numpy as np

from analysis.effects.learning import (
    Apart,
    Count,
    Curve,
    Moment,
    Numbers,
    apart_of,
    counts_of,
    part,
    slow_values,
)
from analysis.effects.model import (
    LISTED,
    RATE,
    STRATEGY,
    Model,
    Settings,
    Term,
    added_by,
    model_of,
    terms_of,
    without,
)
from analysis.image_variance import jointly, uncertain
from analysis.statistics import holm
from analysis.wording import SECONDARY
from sweep.space import Choice, Dimension

ALPHA: Final = 0.05
FEWEST_SPARE: Final = 4
"""Trials more than the model has parameters, for anything to be said."""
MATTERS: Final = 0.01
"""A difference of a share or area up to here is taken for none that matters: one point."""
RATES: Final = 61
"""Places in a range of rates at which the fitted parabola is looked at for its best."""


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


@dataclass(frozen=True)
class Trials:
    """The trials that are compared."""

    settings: Sequence[Settings]
    """Those that were searched."""
    values: Numbers
    """(trials, images), or (trials, 1) where only the metric is known."""

    @property
    def means(self) -> Numbers:
        found: Numbers = self.values.mean(axis=1, dtype=np.float64)
        return found


def what_mattered(
    curves: Sequence[Curve],
    rights: Sequence[Any] | None,
    dimensions: Sequence[Dimension],
    moment: Moment,
    chance: float,
    matters: float | None = MATTERS,
) -> Mattered:
    """Verdicts on all settings.

    curves: the trials of the search. rights: for each of them what each image gave at the best epoch until the moment
        (images,), whose mean is the score; None where that is not known. chance: the area that chance reaches.
    matters: a smaller difference is none; None where the metric has no such size.
    """
    parted = part(curves, moment, chance)
    listed = [d.name for d in dimensions if d.name not in SECONDARY and _is_listed(d, curves)]
    counts = counts_of(curves, parted, listed)
    ranges = [d.name for d in dimensions if d.name not in (*SECONDARY, *listed)]
    searched = {dimension.name for dimension in dimensions}
    settings = [
        {name: value for name, value in curves[place].settings.items() if name in searched}
        for place in parted.compared
    ]
    found = Mattered(
        moment,
        len(settings),
        len(parted.broken),
        tuple(counts),
        tuple(apart_of(curves, parted, ranges)),
    )
    terms = terms_of(settings, dimensions)
    if not terms:
        return found
    model = model_of(settings, terms, together=False)
    if model.spare < FEWEST_SPARE:
        return replace(found, lacking=FEWEST_SPARE - model.spare)
    values = (
        np.array([curves[place].scores[: moment.epoch].max() for place in parted.compared])[:, None]
        if rights is None
        else np.array([rights[place] for place in parted.compared])
    )
    effects, trends, together = _verdicts(Trials(settings, values), model, matters)
    slow = slow_values(curves, parted, counts)
    return replace(
        found,
        effects=tuple(_unless_slow(effect, slow) for effect in effects),
        trends=tuple(trends),
        together=together,
        with_images=rights is not None,
    )


def _is_listed(dimension: Dimension, curves: Sequence[Curve]) -> bool:
    seen = {c.settings[dimension.name] for c in curves if dimension.name in c.settings}
    return isinstance(dimension.domain, Choice) or len(seen) <= LISTED


def _unless_slow(effect: Effect, slow: Sequence[Count]) -> Effect:
    for count in slow:
        if count.name == effect.name and count.value in (effect.first, effect.second):
            return replace(effect, verdict=Verdict.CANT_TELL, not_yet=count)
    return effect


def _verdicts(
    trials: Trials, model: Model, matters: float | None
) -> tuple[list[Effect], list[Trend], Together | None]:
    """Holm's correction runs over one test a setting and that of strategy with rate."""
    tests = {term.name: _p_of(trials, model, term.name) for term in model.terms}
    known = {name: p for name, p in tests.items() if p is not None}
    full, p_together = _together(trials, model)
    family = [*known.values(), *([] if p_together is None else [p_together])]
    adjusted = holm(family)
    together = None
    best: dict[Any, float] = {}
    if full is not None and p_together is not None:
        best = _best_rates(trials, full)
        together = Together(adjusted[-1], {str(name): rate for name, rate in best.items()})
        if together.is_claimed:
            known.pop(RATE, None)
            known[STRATEGY] = _p_at_best(trials, full, best)
            adjusted = holm([*known.values(), p_together])
            model = full
    holms = dict(zip(known, adjusted, strict=False))
    at_best = together is not None and together.is_claimed
    effects: list[Effect] = []
    trends = []
    for term in model.terms:
        if term.name not in holms:
            continue
        if not term.is_listed:
            trends.append(_trend(trials, model, term, holms[term.name]))
            continue
        points = {
            value: {STRATEGY: value, RATE: best[value]}
            if at_best and term.name == STRATEGY
            else {term.name: value}
            for value in term.values
        }
        effects += _effects(
            trials, model, points, _Family(term.name, holms[term.name], len(family), matters)
        )
    return effects, trends, together


@dataclass(frozen=True)
class _Family:
    """What the effects of a setting have in common."""

    name: str
    p_holm: float
    tests: int
    matters: float | None


def _p_of(trials: Trials, model: Model, name: str) -> float | None:
    """Of the F test that a setting does nothing; None where the trials can't tell it from what others do."""
    weights = added_by(model, without(model, name))
    return None if weights is None else jointly(weights, model.design, trials.values).p


def _together(trials: Trials, model: Model) -> tuple[Model | None, float | None]:
    """The model in which strategy and rate act together, and p of the F test that they add up."""
    if not {STRATEGY, RATE} <= {term.name for term in model.terms}:
        return None, None
    full = model_of(trials.settings, model.terms, together=True)
    weights = added_by(full, model.design)
    if weights is None or full.spare < FEWEST_SPARE:
        return None, None
    return full, jointly(weights, full.design, trials.values).p


def _best_rates(trials: Trials, full: Model) -> dict[Any, float]:
    """The rate at which each strategy is best by the model, of those (or within the range) that it was tried with."""
    coefficients = full.coefficients(trials.means)
    by_name = {term.name: term for term in full.terms}
    found = {}
    for strategy in by_name[STRATEGY].values:
        tried = [s[RATE] for s in trials.settings if s[STRATEGY] == strategy]
        rates = (
            sorted(set(tried))
            if by_name[RATE].is_listed
            else np.geomspace(min(tried), max(tried), RATES)
        )
        reached = [coefficients @ full.row({STRATEGY: strategy, RATE: rate}) for rate in rates]
        found[strategy] = float(rates[int(np.argmax(reached))])
    return found


def _p_at_best(trials: Trials, full: Model, best: Mapping[Any, float]) -> float:
    """Of the F test that strategies, each at its own best rate, are alike."""
    first, *others = ({STRATEGY: strategy, RATE: rate} for strategy, rate in best.items())
    weights = [full.contrast(first, other) for other in others]
    known = np.array([each for each in weights if each is not None])
    return jointly(known, full.design, trials.values).p if len(known) else 1.0


def _trend(trials: Trials, model: Model, term: Term, p: float) -> Trend:
    low, high = term.values
    coefficients = model.coefficients(trials.means)
    spaced = np.geomspace if low > 0 else np.linspace
    places = spaced(low, high, RATES)
    reached = [coefficients @ model.row({term.name: place}) for place in places]
    return Trend(term.name, low, high, float(places[int(np.argmax(reached))]), p)


def _effects(
    trials: Trials, model: Model, points: Mapping[Any, Settings], family: _Family
) -> list[Effect]:
    """The best value against each other one; of more than two, p is made larger for all pairs among them."""
    means = trials.means
    reached = {
        value: model.coefficients(means) @ model.row(point) for value, point in points.items()
    }
    ordered = sorted(points, key=lambda value: -reached[value])
    pairs = [
        (first, second, weights)
        for first, second in combinations(ordered, 2)
        if (weights := model.contrast(points[first], points[second])) is not None
    ]
    found = [uncertain(weights, model.design, trials.values) for *_, weights in pairs]
    adjusted = (
        holm([each.p for each in found]) if len(ordered) > 2 else [family.p_holm] * len(found)
    )
    effects = []
    for (first, second, _), one, p in zip(pairs, found, adjusted, strict=True):
        if first != ordered[0]:
            continue
        low, high = one.interval()
        p_holm = max(p, family.p_holm)
        matters = family.matters
        verdict = Verdict.CANT_TELL
        if p_holm < ALPHA:
            verdict = Verdict.BETTER
        elif matters is not None and -matters < low and high < matters:
            verdict = Verdict.NO_DIFFERENCE
        effects.append(
            Effect(
                family.name,
                first,
                second,
                one.estimate,
                low,
                high,
                p_holm,
                verdict,
                one.visible(ALPHA / family.tests),
                _pairs(trials, family.name, first, second),
                len(points[first]) > 1,
            )
        )
    return effects


def _pairs(trials: Trials, name: str, first: Any, second: Any) -> tuple[int, int]:
    """In how many of how many pairs of trials that differ in this setting alone `first` is ahead; the seed is one."""
    reached: dict[str, dict[Any, float]] = {}
    for settings, mean in zip(trials.settings, trials.means, strict=True):
        others = repr(sorted((key, value) for key, value in settings.items() if key != name))
        reached.setdefault(others, {})[settings.get(name)] = float(mean)
    both = [each for each in reached.values() if first in each and second in each]
    return sum(each[first] > each[second] for each in both), len(both)
