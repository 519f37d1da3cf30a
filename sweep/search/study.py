"""Turns records into an Optuna study, for its samplers, optuna-dashboard and importances.

The study is a pure function of the records: it is built anew whenever it is needed, so it can't drift from them, and
holds no zombies. What Optuna is told is true: see `to_frozen_trial`.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.request.config import Sampler, SweepConfig
from sweep.request.open_run import open_run
from sweep.request.space import Choice, Point, Range, SearchSpace, Value
from sweep.search.ranking import BY_THEMSELVES, OnRecord, best_so_far
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.rows import Origin, Status, trial_id_of

STARTUP_TRIALS = 10
"""Drawn at random before a sampler models anything: Optuna's own default for TPE."""


@dataclass(frozen=True)
class Recorded:
    """What a search needs from a trial's record."""

    settings: TrialConfig
    number: int
    status: Status
    values: tuple[float, ...] = ()
    """Best value of the metric so far, one per epoch."""
    origin: Origin = "search"

    @property
    def trial_id(self) -> str:
        return trial_id_of(self.settings, self.origin)

    def is_over(self, epochs: int) -> bool:
        """Does nothing remain to be done for this many `epochs`?"""
        return self.status.is_over(len(self.values), epochs)


def recorded(record: OnRecord, metric: Metric) -> Recorded:
    """What is on record for one trial."""
    asked = record.asked
    values = tuple(best_so_far(record.rows(), metric))
    return Recorded(asked.settings, asked.number, record.status().status, values, asked.origin)


def asked_in_all(config: SweepConfig, records: Iterable[OnRecord]) -> int:
    """How many trials there will be: those of the search, and others on record (replicates, audits)."""
    origins = [(record.trial_id, record.asked.origin) for record in records]
    search = [trial_id for trial_id, origin in origins if origin == "search"]
    return config.asked_for(search) + len(origins) - len(search)


def to_distribution(domain: Choice | Range) -> BaseDistribution:
    """A dimension's domain in Optuna's terms."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    low, high = domain.low, domain.high
    match domain.kind:
        case "uniform":
            return FloatDistribution(low, high)
        case "loguniform":
            return FloatDistribution(low, high, log=True)
        case "quniform":
            return FloatDistribution(low, high, step=domain.step)
        case "int":
            return IntDistribution(int(low), int(high))
        case "logint":
            return IntDistribution(int(low), int(high), log=True)


def to_frozen_trial(space: SearchSpace, trial: Recorded) -> FrozenTrial | None:
    """A recorded trial as Optuna should see it; None if it is outside `space`.

    Finished, diverged and collapsed trials are COMPLETE with their best value: if they were FAIL, TPE would keep
    proposing the rates that diverge. Pruned trials are PRUNED with best-so-far intermediate values, as is one that
    diverged before its first epoch ended. FAIL is for exceptions. A trial that has not ended is RUNNING.
    """
    point = space.place(trial.settings)
    if point is None:
        return None
    domains = {d.name: to_distribution(d.domain) for d in space.dimensions if d.name in point}
    value, state = None, TrialState.RUNNING
    match trial.status:
        case status if status in BY_THEMSELVES:
            state = TrialState.COMPLETE if trial.values else TrialState.PRUNED
            value = trial.values[-1] if trial.values else None
        case Status.PRUNED:
            state = TrialState.PRUNED
            value = trial.values[-1] if trial.values else None
        case Status.FAILED:
            state = TrialState.FAIL
    return create_trial(
        state=state,
        value=value,
        params=point,
        distributions=domains,
        intermediate_values=dict(enumerate(trial.values, start=1)),
        user_attrs={
            "trial_id": trial.trial_id,
            "number": trial.number,
            "status": trial.status.value,
        },
    )


def build_study(
    space: SearchSpace,
    metric: Metric,
    trials: Iterable[Recorded],
    sampler: optuna.samplers.BaseSampler | None = None,
    name: str | None = None,
) -> tuple[optuna.Study, int]:
    """An in-memory study of `trials` with the present space's distributions, and how many are outside it."""
    _quiet()
    study = optuna.create_study(
        direction="maximize" if metric.higher_is_better else "minimize",
        sampler=sampler,
        study_name=name,
    )
    frozen = [to_frozen_trial(space, trial) for trial in trials]
    study.add_trials([trial for trial in frozen if trial is not None])
    return study, frozen.count(None)


def study_of(folder: str | PathLike[str]) -> optuna.Study:
    """The search of the run in `folder` as an Optuna study in memory, finished or running, with the trials' times.

    All of Optuna's tools work on it: importances, visualisation, dashboard. It has no replicates and audits.

    Raises:
        RequestError: not a run folder, or a damaged record.
    """
    run = open_run(folder)
    return study_from(run.config, run.folder.trials())


def study_from(config: SweepConfig, on_record: Iterable[OnRecord]) -> optuna.Study:
    """`study_of` the trials `on_record` of a run with this configuration."""
    records = {r.trial_id: r for r in on_record if r.asked.origin == "search"}
    trials = [recorded(record, config.metric) for record in records.values()]
    study, _ = build_study(config.space, config.metric, (), name=config.name)
    for trial in trials:
        frozen = to_frozen_trial(config.space, trial)
        if frozen is not None:
            status = records[trial.trial_id].status()
            if status.started:
                frozen.datetime_start = _moment(status.started)
            if status.ended and frozen.state.is_finished():
                frozen.datetime_complete = _moment(status.ended)
            study.add_trial(frozen)
    return study


def _moment(iso: str) -> datetime:
    """As Optuna stores it: local time, without a zone."""
    return datetime.fromisoformat(iso).astimezone().replace(tzinfo=None)


def sampler_for(method: Sampler, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """A sampler seeded by (search seed, number of the suggestion): with the same seed it would repeat its points."""
    _quiet()
    return SAMPLERS[method](mix(seed, number) % 2**32)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP_TRIALS
    )


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


SAMPLERS: Final[Mapping[Sampler, Callable[[int], optuna.samplers.BaseSampler]]] = {
    "tpe": _tpe,
    "gp": _gp,
}
"""Seed → sampler. A sampler can keep no state between suggestions: each suggestion gets a new one."""


def suggest(
    space: SearchSpace,
    metric: Metric,
    trials: Sequence[Recorded],
    sampler: optuna.samplers.BaseSampler,
    given: Mapping[str, Value],
) -> Point:
    """The point that `sampler` proposes after `trials`; `given` values take precedence."""
    study, _ = build_study(space, metric, trials, sampler)
    if given:
        study.enqueue_trial(dict(given))
    trial = study.ask()
    point: Point = {}
    for dimension in space.dimensions:
        if not space.is_active(dimension, point):
            continue
        distribution = to_distribution(dimension.domain)
        name = dimension.name
        if isinstance(distribution, CategoricalDistribution):
            point[name] = trial.suggest_categorical(name, distribution.choices)
        elif isinstance(distribution, IntDistribution):
            point[name] = trial.suggest_int(
                name, distribution.low, distribution.high, log=distribution.log
            )
        else:
            assert isinstance(distribution, FloatDistribution)
            value = trial.suggest_float(
                name,
                distribution.low,
                distribution.high,
                log=distribution.log,
                step=distribution.step,
            )
            point[name] = round(value, 12) if distribution.step else value
    return point


def mix(seed: int, number: int) -> int:
    """One seed from two, such that neighbours share nothing."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "big"
    )


def _quiet() -> None:
    """Keep Optuna's log lines and its warnings about experimental arguments off our terminal."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
