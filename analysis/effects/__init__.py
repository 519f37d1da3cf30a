"""What mattered in a search: who learned, what settings do, the edge of the space, how curves ended.

`learning` parts trials and says at which moment they are compared, `model` is the linear model, `verdicts` what follows
from it, `said` the sentences, all of them pure functions; here is what reads them from a run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.effects.edges import Edge, edges_of
from analysis.effects.endings import Rise, rise_of
from analysis.effects.learning import Curve, Moment, moment_of, part
from analysis.effects.said import Saying
from analysis.effects.verdicts import MATTERS, Mattered, what_mattered
from analysis.learned import flat_until, validation_classes
from analysis.select import select
from analysis.snapshot import ReadTrial, Snapshot, Source
from analysis.snapshot.rights import rights_of, validation_labels
from analysis.statistics import Labels
from analysis.wording import counted, is_rate, metric_name, number, points
from sweep.ranking import BY_THEMSELVES
from trainable.metric import Metric
from trainable.rows import Status


@dataclass(frozen=True)
class Endings:
    """How training ended in the trials that learned and ran all their epochs."""

    finished: int
    rise: Rise | None
    """None where their curves are too short."""
    gap_best: float | None
    """Training less validation accuracy at the best epoch, mean over them."""
    gap_last: float | None


@dataclass(frozen=True)
class Effects:
    """All of it, for one run."""

    metric: Metric
    mattered: Mattered
    """At the first rung; at the end where ASHA is off or stopped nobody."""
    at_the_end: Mattered | None
    """With ASHA, once every pruned trial that learned was run to its end by an audit."""
    edges: tuple[Edge, ...]
    endings: Endings

    def said(self) -> Iterator[str]:
        """In sentences."""
        yield from Saying(self.metric, self.mattered, self.at_the_end is not None).sentences()
        if self.at_the_end is not None:
            yield "every pruned trial was audited, so that the end of training can be compared too"
            yield from Saying(self.metric, self.at_the_end).sentences()
        for edge in self.edges:
            yield edge.said()
        rise = self.endings.rise
        if rise is not None and rise.is_seen:
            yield (
                f"over the last {rise.epochs} epochs {metric_name(self.metric)} still gets better by "
                f"{self._step(rise.slope)} an epoch ({self._step(rise.low)} to {self._step(rise.high)}) in the mean of "
                f"{counted(rise.trials, 'finished trial')}: more epochs (`sweep extend --epochs`) may do more"
            )
        if self.endings.gap_best is not None and self.endings.gap_last is not None:
            yield (
                f"training less validation accuracy is {points(self.endings.gap_best)} at the best epoch and "
                f"{points(self.endings.gap_last)} at the last one, in the mean of finished trials"
            )

    def mattered_most(self) -> str | None:
        """The clearest claim on a setting, of the end where that is known; None where nothing is claimed."""
        return Saying(self.metric, self.at_the_end_or_first).most()

    @property
    def at_the_end_or_first(self) -> Mattered:
        """What is known of the end of training, else of the first rung."""
        return self.at_the_end or self.mattered

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
    config, labels = read.config, validation_labels(read)
    chance = flat_until(*validation_classes(read))
    trials = [t for t in read.trials if t.origin.origin == "search" and len(t.epochs)]
    end = Moment(config.epochs, config.epochs)
    nobody_stopped = all(
        t.state.status.has_ended and t.state.status is not Status.PRUNED for t in trials
    )
    rungs = config.asha.rungs(config.epochs) if config.asha and not nobody_stopped else []
    moment = moment_of(rungs, config.epochs)
    audited = None if moment.is_end else _audited(read, trials)
    winner = select(read).winner
    won = read.by_id[winner.trial_id].origin.settings.effective() if winner else {}
    return Effects(
        config.metric,
        _mattered(read, trials, moment, labels),
        _mattered(read, audited, end, labels) if audited else None,
        tuple(edges_of(won, config.space.dimensions)),
        _endings(read, trials, chance),
    )


def curve_of(trial: ReadTrial, metric: Metric) -> Curve:
    """A trial on record as the comparison takes it."""
    scores = np.array([metric.score(value) for value in trial.epochs.column(metric.value)])
    areas = np.array(trial.epochs.column("val_auc"), dtype=float)
    return Curve(trial.origin.settings.effective(), trial.state.status, scores, areas)


def _mattered(
    read: Snapshot, trials: Sequence[ReadTrial], moment: Moment, labels: Labels
) -> Mattered:
    metric = read.config.metric
    curves, chance = (
        [curve_of(trial, metric) for trial in trials],
        flat_until(*validation_classes(read)),
    )
    compared = set(part(curves, moment, chance).compared)
    rights: list[Any] | None = None
    if is_rate(metric):
        weights = weights_of(labels, metric)
        rights = []
        for place, (trial, curve) in enumerate(zip(trials, curves, strict=True)):
            best = curve.best(moment.epoch)
            seen = rights_of(trial, len(labels)) if place in compared else None
            rights.append(None if seen is None or best is None else weights * seen[best])
        if any(rights[place] is None for place in compared):
            rights = None
    matters = None if metric is Metric.VAL_LOSS else MATTERS
    return what_mattered(curves, rights, read.config.space.dimensions, moment, chance, matters)


def weights_of(labels: Labels, metric: Metric) -> Any:
    """(images,) by which right (1) and wrong (0) are taken, so that the mean over images is the metric."""
    if metric is Metric.VAL_ACCURACY:
        return np.ones(len(labels), np.float32)
    shares = np.bincount(labels, minlength=2) / len(labels)
    return (0.5 / np.maximum(shares, 1 / len(labels)))[labels].astype(np.float32)


def _audited(read: Snapshot, trials: Sequence[ReadTrial]) -> list[ReadTrial] | None:
    """The trials of the search, each pruned one in the form of its audit; None where one has no end.

    A pruned trial that was not yet learning needs its audit too: it may be what comes late.
    """
    audits = {
        trial.origin.audits: trial
        for trial in read.trials
        if trial.origin.origin == "audit" and trial.state.status in BY_THEMSELVES
    }
    found = [audits.get(t.trial_id) if t.state.status is Status.PRUNED else t for t in trials]
    known = [trial for trial in found if trial is not None]
    return known if audits and len(known) == len(found) else None


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
