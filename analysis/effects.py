"""What mattered: importances, effects of settings, strategy with rate, the edge of the space, how curves ended."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import results
from analysis.plots.style import LISTED, in_order
from analysis.select import select
from analysis.snapshot import Snapshot, Source
from analysis.statistics import Difference, holm, welch
from analysis.wording import counted, is_rate, number, points, setting_value
from sweep.config import SweepConfig
from sweep.space import Choice
from sweep.study import study_from
from trainable.metric import Metric

FEWEST_TRIALS: Final = 6
"""Complete trials that importances are estimated from."""
MOST_TRIALS: Final = 300
"""The same: of more, so many are taken, evenly in the order of suggestion. A forest of thousands takes minutes."""
FEWEST_RESIDUALS: Final = 4
"""Trials more than a model has parameters, for the interaction to be tested."""
EDGE: Final = 0.1
"""Share of a range at either end that counts as its edge."""
ALPHA: Final = 0.05


@dataclass(frozen=True)
class Effect:
    """Two values of a setting, over all trials that have them, whatever else these have."""

    name: str
    first: str
    second: str
    versus: Difference
    """Mean of the first less mean of the second, turned so that higher is better."""
    p_holm: float


@dataclass(frozen=True)
class Interaction:
    """Does the best learning rate depend on the strategy?"""

    trials: int
    p: float
    """Of the F test of a model in which they act together against one in which they add up."""
    best: dict[str, float]
    """The learning rate of each strategy's best trial."""


@dataclass(frozen=True)
class Edge:
    """The winner lies at the edge of what was searched."""

    name: str
    value: float
    low: float
    high: float
    next_low: float
    next_high: float


@dataclass(frozen=True)
class Curves:
    """How training ended in the trials that ran all their epochs."""

    finished: int
    rising: int
    """Of them, those whose best epoch is the last one."""
    gap_best: float | None
    """Training less validation accuracy at the best epoch, mean over them."""
    gap_last: float | None


@dataclass(frozen=True)
class Effects:
    """All of it, for one run."""

    metric: Metric
    importances: dict[str, float]
    """Share of the differences between trials that each setting explains (fANOVA, Hutter et al. 2014)."""
    each: tuple[Effect, ...]
    interaction: Interaction | None
    """Of strategy and learning rate; None where they don't both vary, or trials are too few."""
    edges: tuple[Edge, ...]
    curves: Curves

    def said(self) -> Iterator[str]:
        """In sentences."""
        for effect in self.each:
            ends = effect.versus.interval
            by = (
                f"{self._step(effect.versus.difference)} ({self._step(ends.low)} to {self._step(ends.high)}, "
                f"p = {effect.p_holm:.2g} after Holm)"
            )
            verdict = (
                f"is better than {effect.second} by {by} in the mean of trials"
                if effect.p_holm < ALPHA
                else f"and {effect.second} can't be told apart by the mean of trials: {by}"
            )
            yield f"{effect.name} {effect.first} {verdict}"
        if self.interaction is not None:
            yield self._together(self.interaction)
        for edge in self.edges:
            value, low, high, next_low, next_high = map(
                setting_value, (edge.value, edge.low, edge.high, edge.next_low, edge.next_high)
            )
            yield (
                f"the winner's {edge.name} {value} lies at the edge of {low} to {high}: "
                f"try {next_low} to {next_high} next"
            )
        if self.curves.rising:
            yield (
                f"{self.curves.rising} of {counted(self.curves.finished, 'finished trial')} had their best epoch last: "
                "more epochs (`sweep extend --epochs`) may do more"
            )
        if self.curves.gap_best is not None and self.curves.gap_last is not None:
            yield (
                f"training less validation accuracy is {points(self.curves.gap_best)} at the best epoch and "
                f"{points(self.curves.gap_last)} at the last one, in the mean of finished trials"
            )

    def _together(self, found: Interaction) -> str:
        if found.p >= ALPHA:
            return f"no interaction of strategy and lr was seen (p = {found.p:.2g})"
        best = ", ".join(f"{setting_value(lr)} with {name}" for name, lr in found.best.items())
        return (
            f"which lr is good depends on the strategy (p = {found.p:.2g}); the best seen: {best}"
        )

    def _step(self, difference: float) -> str:
        return points(difference) if is_rate(self.metric) else number(difference)

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "metric": self.metric.value, "said": list(self.said())}


def effects_of(run: Source) -> Effects:
    """What mattered in the run.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    read = Snapshot.of(run)
    config, frame = read.config, results.trials(read)
    search = frame[(frame["origin"] == "search") & frame[config.metric.value].notna()]
    return Effects(
        config.metric,
        importances_of(read),
        tuple(_effects(search, config)),
        interaction_of(search, config.metric),
        tuple(_edges(read)),
        _curves(read, search),
    )


def importances_of(run: Source) -> dict[str, float]:
    """fANOVA over the complete trials, for settings that all of them have; {} where they are too few or all alike.

    Of more than MOST_TRIALS, over so many of them.
    """
    import optuna

    read = Snapshot.of(run)
    study = study_from(read.config, read.trials)
    done = [t for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    common = set.intersection(*(set(t.params) for t in done)) if done else set()
    varied = [name for name in common if len({t.params[name] for t in done}) > 1]
    values = {t.value for t in done}
    if len(done) < FEWEST_TRIALS or not varied or len(values) < 2:
        return {}
    if len(done) > MOST_TRIALS:
        chosen = [done[place * len(done) // MOST_TRIALS] for place in range(MOST_TRIALS)]
        study = optuna.create_study(direction=study.direction)
        study.add_trials(chosen)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    return {str(name): float(share) for name, share in found.items()}


def _effects(search: pd.DataFrame, config: SweepConfig) -> Iterator[Effect]:
    """Neighbouring values of every listed setting, the better mean first; Holm over all of them."""
    found: list[tuple[str, str, str, Difference]] = []
    for dimension in config.space.dimensions:
        column = search[f"config/{dimension.name}"]
        if not isinstance(dimension.domain, Choice):
            continue
        groups = {
            value: [
                config.metric.score(score)
                for score in search.loc[column == value, config.metric.value]
            ]
            for value in in_order(dimension.name, column.dropna().unique())
        }
        large = {value: scores for value, scores in groups.items() if len(scores) > 1}
        ordered = sorted(large, key=lambda value: -float(np.mean(large[value])))
        for first, second in pairwise(ordered):
            versus = welch(large[first], large[second])
            found.append((dimension.name, setting_value(first), setting_value(second), versus))
    adjusted = holm([versus.p for *_, versus in found])
    for (name, first, second, versus), p in zip(found, adjusted, strict=True):
        yield Effect(name, first, second, versus, p)


def interaction_of(search: pd.DataFrame, metric: Metric) -> Interaction | None:
    """Strategy and learning rate together, by an F test of two linear models of the metric (Fisher's two-way analysis).

    A listed rate enters as it is listed, one from a range as a parabola in its logarithm. Other settings are noise to
    both models.
    """
    from statsmodels.regression.linear_model import OLS

    score = search[metric.value].map(metric.score).astype(float)
    strategy = pd.get_dummies(search["config/strategy"].astype(str), drop_first=True, dtype=float)
    rates = search["config/lr"].astype(float)
    if rates.nunique() <= LISTED:
        rate = pd.get_dummies(rates, drop_first=True, dtype=float).rename(columns=str)
    else:
        place = np.log10(rates) - np.log10(rates).mean()
        rate = pd.DataFrame({"rate": place, "rate squared": place**2})
    if strategy.empty or rate.empty or not strategy.shape[1] or not rate.shape[1]:
        return None
    added = pd.concat([strategy, rate], axis=1).assign(mean=1.0)
    products = {f"{a} {b}": strategy[a] * rate[b] for a in strategy for b in rate}
    together = pd.concat([added, pd.DataFrame(products)], axis=1)
    ranks = [np.linalg.matrix_rank(model.to_numpy()) for model in (added, together)]
    if ranks[0] == ranks[1] or len(search) - ranks[1] < FEWEST_RESIDUALS:
        return None
    with warnings.catch_warnings():  # a strategy with few trials: degrees of freedom go by the rank
        warnings.simplefilter("ignore")
        fits = [OLS(score.to_numpy(), model.to_numpy()).fit() for model in (added, together)]
    if fits[1].ssr <= 0:
        return None
    _, p, _ = fits[1].compare_f_test(fits[0])
    best = search.assign(score=score).sort_values("score").groupby("config/strategy").last()
    found = {name: float(best.loc[name, "config/lr"]) for name in in_order("strategy", best.index)}
    return Interaction(len(search), float(p), found)


def _edges(run: Snapshot) -> Iterator[Edge]:
    """Settings in numbers whose best value lies at an end of what was searched."""
    winner = select(run).winner
    if winner is None:
        return
    settings = run.by_id[winner.trial_id].origin.settings.effective()
    for dimension in run.config.space.dimensions:
        value = settings.get(dimension.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if isinstance(dimension.domain, Choice):
            numbers = [v for v in dimension.domain.values if isinstance(v, int | float)]
            if len(numbers) < 2:
                continue
            low, high, logarithmic = min(numbers), max(numbers), min(numbers) > 0
            at_edge = value in (low, high)
        else:
            low, high = dimension.domain.low, dimension.domain.high
            logarithmic = dimension.domain.kind.startswith("log")
            place = _place(value, low, high, logarithmic)
            at_edge = min(place, 1 - place) < EDGE
        if at_edge and low < high:
            upper = _place(value, low, high, logarithmic) > 0.5
            yield Edge(dimension.name, value, low, high, *_shifted(low, high, logarithmic, upper))


def _place(value: float, low: float, high: float, logarithmic: bool) -> float:
    """Where between 0 (`low`) and 1 (`high`) a value lies."""
    if logarithmic:
        value, low, high = np.log([value, low, high])
    return float((value - low) / (high - low))


def _shifted(low: float, high: float, logarithmic: bool, upper: bool) -> tuple[float, float]:
    """A range as wide as low to high, moved by half of it to the edge where the best lies."""
    if logarithmic:
        factor = float(np.sqrt(high / low))
        return (low * factor, high * factor) if upper else (low / factor, high / factor)
    half = (high - low) / 2
    return (low + half, high + half) if upper else (low - half, high - half)


def _curves(run: Snapshot, search: pd.DataFrame) -> Curves:
    finished = search[search["status"] == "finished"]
    if finished.empty:
        return Curves(0, 0, None, None)
    epochs = results.epochs(run)
    last = epochs.groupby("trial_id").last().loc[finished["trial_id"]]
    return Curves(
        len(finished),
        int((finished["best_epoch"] == finished["epochs"]).sum()),
        float((finished["train_accuracy"] - finished["val_accuracy"]).mean()),
        float((last["train_accuracy"] - last["val_accuracy"]).mean()),
    )
