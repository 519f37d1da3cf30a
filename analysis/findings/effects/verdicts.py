"""The model's verdict on each setting: better, no difference that matters, or not known from these trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np

from analysis.findings.effects.claims import Effect, Mattered, Together, Trend, Verdict
from analysis.findings.effects.fitted import PLACES, Fitted
from analysis.findings.effects.learning import (
    Count,
    LearningCurve,
    Moment,
    apart_of,
    counts_of,
    part,
    slow_values,
)
from analysis.findings.effects.model import (
    LISTED,
    RATE,
    STRATEGY,
    Settings,
    Term,
    model_of,
    terms_of,
)
from analysis.image_variance import Uncertain
from analysis.levels import ALPHA, NEGLIGIBLE
from analysis.statistics import holm
from analysis.wording import SECONDARY
from sweep.request.space import Choice, Dimension

FEWEST_SPARE: Final = 4
"""The fewest degrees of freedom of the error (trials minus parameters) for any conclusion; assumed."""
TOGETHER: Final = "strategy with lr"


def what_mattered(
    curves: Sequence[LearningCurve],
    rights: Sequence[Any] | None,
    dimensions: Sequence[Dimension],
    moment: Moment,
    chance: float,
    matters: float | None = NEGLIGIBLE,
) -> Mattered:
    """Verdicts on all settings.

    curves: the trials of the search. rights: for each of them each image's value at the best epoch until the moment
        (images,), with the score as mean; None if not known. chance: the largest area that counts as chance.
    matters: a smaller difference does not matter; None if the metric has no such size.
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
    stands_for = np.array([curves[place].stands_for for place in parted.compared])
    model = model_of(settings, terms, stands_for, together=False)
    if model.spare < FEWEST_SPARE:
        return replace(found, lacking=FEWEST_SPARE - model.spare)
    values = (
        np.array([curves[place].scores[: moment.epoch].max() for place in parted.compared])[:, None]
        if rights is None
        else np.array([rights[place] for place in parted.compared])
    )
    effects, trends, together = _verdicts(Fitted(model, settings, values), matters)
    slow = slow_values(curves, parted, counts)
    return replace(
        found,
        effects=tuple(_unless_slow(effect, slow) for effect in effects),
        trends=tuple(trends),
        together=together,
        with_images=rights is not None,
    )


def _is_listed(dimension: Dimension, curves: Sequence[LearningCurve]) -> bool:
    seen = {c.settings[dimension.name] for c in curves if dimension.name in c.settings}
    return isinstance(dimension.domain, Choice) or len(seen) <= LISTED


def _unless_slow(effect: Effect, slow: Sequence[Count]) -> Effect:
    for count in slow:
        if count.name == effect.name and count.value in (effect.first, effect.second):
            return replace(effect, verdict=Verdict.CANT_TELL, not_yet=count)
    return effect


def _verdicts(
    added: Fitted, matters: float | None
) -> tuple[list[Effect], list[Trend], Together | None]:
    """Holm's correction covers one test per setting, and that of the interaction of strategy and rate."""
    tests = {term.name: p for term in added.model.terms if (p := added.p_of(term.name)) is not None}
    crossed, p_together = _together(added)
    if crossed is None or p_together is None:
        return *_of_each(added, _holm(tests), {}, len(tests), matters), None
    family, best = len(tests) + 1, crossed.best_rates()
    holms = _holm({**tests, TOGETHER: p_together})
    together = Together(holms[TOGETHER], {str(name): rate for name, rate in best.items()})
    if not together.is_claimed:
        return *_of_each(added, holms, {}, family, matters), together
    tests.pop(RATE, None)
    holms = _holm({**tests, STRATEGY: crossed.p_at(best), TOGETHER: p_together})
    return *_of_each(crossed, holms, best, family, matters), together


def _holm(tests: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(tests, holm(list(tests.values())), strict=True))


def _together(added: Fitted) -> tuple[Fitted | None, float | None]:
    """The model with the interaction of strategy and rate, and p of the F test that there is none; None if unknown."""
    if not {STRATEGY, RATE} <= {term.name for term in added.model.terms}:
        return None, None
    crossed = added.together()
    p = crossed.p_beyond(added.model) if crossed.model.spare >= FEWEST_SPARE else None
    return crossed, p


def _of_each(
    fitted: Fitted,
    holms: Mapping[str, float],
    best: Mapping[Any, float],
    tests: int,
    matters: float | None,
) -> tuple[list[Effect], list[Trend]]:
    """Effects and trends of the settings in `holms`; strategies are compared at their `best` rates if given."""
    effects, trends = list[Effect](), list[Trend]()
    for term in fitted.model.terms:
        if term.name not in holms:
            continue
        if not term.is_listed:
            trends.append(_trend(fitted, term, holms[term.name]))
            continue
        at_best = bool(best) and term.name == STRATEGY
        points = {
            value: {STRATEGY: value, RATE: best[value]} if at_best else {term.name: value}
            for value in term.values
        }
        effects += _effects(
            fitted, points, _Family(term.name, holms[term.name], tests, matters, at_best)
        )
    return effects, trends


def _trend(fitted: Fitted, term: Term, p: float) -> Trend:
    low, high = term.values
    spaced = np.geomspace if low > 0 else np.linspace
    best = fitted.best(term.name, spaced(low, high, PLACES).tolist(), {})
    return Trend(term.name, low, high, best, p)


@dataclass(frozen=True)
class _Family:
    """What the effects of a setting have in common."""

    name: str
    p_holm: float
    tests: int
    matters: float | None
    at_best_rates: bool


def _effects(fitted: Fitted, points: Mapping[Any, Settings], family: _Family) -> list[Effect]:
    """The best value against each other one; with more than two values, p is corrected for all pairs of them."""
    ordered = sorted(points, key=lambda value: -fitted.at(points[value]))
    leads = {
        (first, second): lead
        for first, second in combinations(ordered, 2)
        if (lead := fitted.lead(points[first], points[second])) is not None
    }
    adjusted = (
        holm([lead.p for lead in leads.values()])
        if len(ordered) > 2
        else [family.p_holm] * len(leads)
    )
    return [
        _effect(fitted, family, values, lead, max(p, family.p_holm))
        for (values, lead), p in zip(leads.items(), adjusted, strict=True)
        if values[0] == ordered[0]
    ]


def _effect(
    fitted: Fitted, family: _Family, values: tuple[Any, Any], lead: Uncertain, p_holm: float
) -> Effect:
    low, high = lead.interval()
    matters = family.matters
    verdict = Verdict.CANT_TELL
    if p_holm < ALPHA:
        verdict = Verdict.BETTER
    elif matters is not None and -matters < low and high < matters:
        verdict = Verdict.NO_DIFFERENCE
    return Effect(
        family.name,
        *values,
        lead.estimate,
        low,
        high,
        p_holm,
        verdict,
        lead.visible(ALPHA / family.tests),
        _pairs(fitted, family.name, *values),
        family.at_best_rates,
    )


def _pairs(fitted: Fitted, name: str, first: Any, second: Any) -> tuple[int, int]:
    """Pairs of trials that differ only in this setting: in how many `first` is ahead, and how many there are.

    The seed counts as another setting. (0, 0) if some trials stand for others: the pairs that ran were selected.
    """
    if (fitted.model.stands_for != 1).any():
        return 0, 0
    reached: dict[str, dict[Any, float]] = {}
    for settings, mean in zip(fitted.settings, fitted.means, strict=True):
        others = repr(sorted((key, value) for key, value in settings.items() if key != name))
        reached.setdefault(others, {})[settings.get(name)] = float(mean)
    both = [each for each in reached.values() if first in each and second in each]
    return sum(each[first] > each[second] for each in both), len(both)
