"""What mattered in a search: which trials learned, effects of settings, edges of the space, how curves ended.

`learning` divides trials into groups and decides at which epoch they are compared, `audited` decides whether audits
show the end of training, `model` is the linear model, `fitted` its estimates, `verdicts` the conclusions, `claims`
their data types, `said` the sentences. All of these are pure functions; this module reads their input from a run.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.findings.effects.audited import Audited
from analysis.findings.effects.claims import Mattered
from analysis.findings.effects.edges import Edge, edges_of
from analysis.findings.effects.endings import Rise, rise_of
from analysis.findings.effects.learning import LearningCurve, Moment, moment_of, part
from analysis.findings.effects.said import Saying
from analysis.findings.effects.verdicts import what_mattered
from analysis.frames.learned import flat_until, validation_classes
from analysis.frames.select import select
from analysis.frames.snapshot import ReadTrial, Snapshot, Source
from analysis.frames.snapshot.rights import rights_of, validation_labels
from analysis.levels import NEGLIGIBLE
from analysis.statistics import Labels
from analysis.wording import counted, is_rate, metric_name, number, points
from sweep.search.ranking import BY_THEMSELVES
from trainable.metric import Metric
from trainable.records.rows import Status


@dataclass(frozen=True)
class Endings:
    """How training ended in the trials that learned and ran all their epochs."""

    finished: int
    rise: Rise | None
    """None if their curves are too short."""
    gap_best: float | None
    """Training minus validation accuracy at the best epoch, averaged over them."""
    gap_last: float | None


@dataclass(frozen=True)
class Effects:
    """All findings of this package for one run."""

    metric: Metric
    mattered: Mattered
    """At the first rung; at the end if ASHA is off or stopped no trial."""
    at_the_end: Mattered | None
    """With ASHA, once there are enough audits of every strategy; see Audited."""
    audited: Audited
    edges: tuple[Edge, ...]
    endings: Endings

    def said(self) -> Iterator[str]:
        """In sentences."""
        tells = self.audited.tells() if self.at_the_end is None else None
        first = list(Saying(self.metric, self.mattered, tells).sentences())
        yield from first
        if self.at_the_end is not None:
            yield self.audited.said()
            then = Saying(self.metric, self.at_the_end).sentences()
            yield from (text for text in then if text not in first)
        for edge in self.edges:
            yield edge.said()
        rise = self.endings.rise
        if rise is not None and rise.is_seen:
            yield (
                f"over the last {rise.epochs} epochs, {metric_name(self.metric)} still improved by "
                f"{self._step(rise.slope)} per epoch (95 % confidence interval {self._step(rise.low)} to "
                f"{self._step(rise.high)}), averaged over {counted(rise.trials, 'finished trial')}: more epochs "
                "(`sweep extend --epochs`) could improve it further"
            )
        if self.endings.gap_best is not None and self.endings.gap_last is not None:
            yield (
                f"training minus validation accuracy, mean of finished trials: {points(self.endings.gap_best)} at the "
                f"best epoch, {points(self.endings.gap_last)} at the last"
            )

    def mattered_most(self) -> str | None:
        """The most significant effect of a setting, at the end of training if that is known; None if there is none."""
        return Saying(self.metric, self.at_the_end_or_first).most()

    @property
    def at_the_end_or_first(self) -> Mattered:
        """What is known about the end of training, or else about the first rung."""
        return self.at_the_end or self.mattered

    def _step(self, difference: float) -> str:
        return points(difference) if is_rate(self.metric) else number(difference)

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "metric": self.metric.value, "said": list(self.said())}


def effects_of(run: Source) -> Effects:
    """What mattered in the run.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    config, labels = read.config, validation_labels(read)
    chance = flat_until(*validation_classes(read))
    trials = [t for t in read.trials if t.asked.origin == "search" and len(t.epochs)]
    end = Moment(config.epochs, config.epochs)
    nobody_stopped = all(
        t.state.status.has_ended and t.state.status is not Status.PRUNED for t in trials
    )
    rungs = config.asha.rungs(config.epochs) if config.asha and not nobody_stopped else []
    moment = moment_of(rungs, config.epochs)
    audited, ends = _ends(read, trials)
    at_the_end = None
    if audited.is_enough and not moment.is_end:
        at_the_end = _mattered(read, ends, end, labels)
    winner = select(read).winner
    won = read.by_id[winner.trial_id].asked.settings.effective() if winner else {}
    return Effects(
        config.metric,
        _mattered(read, [(trial, 1.0) for trial in trials], moment, labels),
        at_the_end,
        audited,
        tuple(edges_of(won, config.space.dimensions)),
        _endings(read, trials, chance),
    )


def curve_of(trial: ReadTrial, metric: Metric, stands_for: float = 1.0) -> LearningCurve:
    """A recorded trial in the form that the comparison uses."""
    scores = np.array([metric.score(value) for value in trial.epochs.column(metric.value)])
    areas = np.array(trial.epochs.column("val_auc"), dtype=float)
    settings = trial.asked.settings.effective()
    return LearningCurve(settings, trial.state.status, scores, areas, stands_for)


def _mattered(
    read: Snapshot, trials: Sequence[tuple[ReadTrial, float]], moment: Moment, labels: Labels
) -> Mattered:
    """What mattered, from trials that are each given with the number of trials they stand for."""
    metric, chance = read.config.metric, flat_until(*validation_classes(read))
    curves = [curve_of(trial, metric, stands_for) for trial, stands_for in trials]
    compared = set(part(curves, moment, chance).compared)
    rights: list[Any] | None = None
    if is_rate(metric):
        weights = weights_of(labels, metric)
        rights = []
        for place, ((trial, _), curve) in enumerate(zip(trials, curves, strict=True)):
            best = curve.best(moment.epoch)
            seen = rights_of(trial, len(labels)) if place in compared else None
            rights.append(None if seen is None or best is None else weights * seen[best])
        if any(rights[place] is None for place in compared):
            rights = None
    matters = None if metric is Metric.VAL_LOSS else NEGLIGIBLE
    return what_mattered(curves, rights, read.config.space.dimensions, moment, chance, matters)


def weights_of(labels: Labels, metric: Metric) -> Any:
    """(images,): the weights of right (1) and wrong (0) predictions with which the mean over images is the metric."""
    if metric is Metric.VAL_ACCURACY:
        return np.ones(len(labels), np.float32)
    shares = np.bincount(labels, minlength=2) / len(labels)
    return (0.5 / np.maximum(shares, 1 / len(labels)))[labels].astype(np.float32)


def _ends(
    read: Snapshot, trials: Sequence[ReadTrial]
) -> tuple[Audited, list[tuple[ReadTrial, float]]]:
    """What was audited, and all trials that show how the search's trials end, each with how many it stands for.

    A pruned trial that was not yet learning can be drawn like any other: it may be a late learner.
    """
    pruned = {t.trial_id: t for t in trials if t.state.status is Status.PRUNED}
    audits = [t for t in read.trials if t.asked.audits in pruned]
    others = [t for t in trials if t.trial_id not in pruned]
    ended = [t for t in audits if t.state.status in BY_THEMSELVES and _is_over(read, t)]
    audited = Audited(
        _by_strategy(pruned.values()),
        _by_strategy(audits),
        _by_strategy(ended),
        under_way=sum(not _is_over(read, trial) for trial in others),
    )
    stands_for = [1.0] * len(others) + [audited.stands_for(_strategy(audit)) for audit in ended]
    return audited, list(zip(others + ended, stands_for, strict=True))


def _strategy(trial: ReadTrial) -> str:
    return trial.asked.settings.strategy


def _by_strategy(trials: Iterable[ReadTrial]) -> dict[str, int]:
    return dict(Counter(map(_strategy, trials)))


def _is_over(read: Snapshot, trial: ReadTrial) -> bool:
    return trial.state.status.is_over(len(trial.epochs), read.config.epochs)


def _endings(read: Snapshot, trials: Sequence[ReadTrial], chance: float) -> Endings:
    metric = read.config.metric
    finished = [
        (trial, curve)
        for trial in trials
        if (curve := curve_of(trial, metric)).status is Status.FINISHED
        and not curve.did_not_learn(chance)
    ]
    if not finished:
        return Endings(0, None, None, None)
    gaps = []
    for trial, _ in finished:
        train, validation = (trial.epochs.column(f"{part}_accuracy") for part in ("train", "val"))
        row = trial.best(metric)
        assert row is not None
        gaps.append((row.train_accuracy - row.val_accuracy, train[-1] - validation[-1]))
    best, last = (float(gap) for gap in np.mean(gaps, axis=0))
    rise = rise_of([curve.scores for _, curve in finished])
    return Endings(len(finished), rise, best, last)
