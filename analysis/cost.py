"""What a sweep cost, what it did not have to, and what ASHA may have thrown away."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.select import select
from analysis.snapshot import ReadTrial, Snapshot, Source
from analysis.statistics import Interval, wilson
from analysis.wording import counted, percent
from sweep.ranking import BY_THEMSELVES, Standing, best_so_far
from trainable.command import duration
from trainable.files import read_json_lines
from trainable.manifest import Granted, Manifest
from trainable.rows import Status, frozen_work

FEWEST_FINISHED: Final = 5
"""Trials that a rung's foresight is estimated from."""
WORRYING: Final = 0.1
"""A chance of having pruned the winner from which on a longer grace period is advised."""


@dataclass(frozen=True)
class Foresight:
    """How well a rung tells how trials end, and what that means for those that it stopped."""

    epoch: int
    stopped: int
    audited: int
    """Of those stopped: run to the end since, or to an end of their own."""
    finished: int
    """Trials that ran to the end, audits among them, from which the rest is estimated."""
    rank_correlation: float | None
    """Spearman's, of the best value until the rung and the final one; None where too few finished."""
    chance: float | None
    """That one of the stopped trials that were not audited would have beaten the winner, had all run on."""

    @property
    def unknown(self) -> int:
        """Stopped trials of which nobody knows how they would have ended."""
        return self.stopped - self.audited


@dataclass(frozen=True)
class Audit:
    """What became of pruned trials that were run to the end: a random draw, so the share is an unbiased estimate."""

    pruned: int
    ended: int
    """Audits that came to an end of their own: finished, diverged or collapsed."""
    missing: int
    """Audits without one: still to come, or failed."""
    better: tuple[str, ...]
    """The pruned trials whose audit finished with a better value than the best single trial of the search."""
    interval: Interval | None
    """Of the share of pruned trials that would have been better (Wilson); None before an audit has ended."""

    def said(self) -> Iterator[str]:
        """In sentences."""
        if self.interval is not None:
            low, high = percent(self.interval.low, 0), percent(self.interval.high, 0)
            yield (
                f"of {counted(self.ended, 'audited trial')}, drawn at random from {self.pruned} pruned, "
                f"{len(self.better)} ended better than the winner (95 % interval of the share: {low} to {high})"
            )
        if self.missing:
            yield f"{counted(self.missing, 'audit')} without an end: still to come, or failed"
        if self.better:
            named = ", ".join(self.better)
            yield (
                f"ASHA stopped what would have beaten the winner ({named}): asha.grace_period looks too short"
            )


@dataclass(frozen=True)
class Cost:
    """Seconds are of trials: with two trials at a time, two of them pass in one."""

    trials: int
    epochs: int
    seconds: float
    """Of all epochs on record and of those that were repeated."""
    device: str
    device_seconds: float
    """Each epoch's seconds times what a trial got of devices in its session; repeated ones: in that which cut them."""
    pruned_epochs: int
    """Epochs of the budget that pruned trials did not run."""
    pruned_seconds: float
    """The same at each trial's own pace."""
    shared_seconds: float
    """Saved by sharing frozen work, at the measured pace of frozen layers."""
    lost_epochs: int
    """Repeated after a fault, since no kept state covered them."""
    lost_seconds: float
    rungs: tuple[Foresight, ...]
    audit: Audit | None
    """None where no trial was audited, or none of the search has finished."""

    @property
    def device_hours(self) -> float:
        return self.device_seconds / 3600

    @property
    def devices_per_trial(self) -> float:
        """In the mean of all seconds."""
        return self.device_seconds / self.seconds if self.seconds else 0.0

    @property
    def chance(self) -> float | None:
        """That any stopped trial that was not audited would have beaten the winner."""
        known = [rung.chance for rung in self.rungs if rung.chance is not None]
        return 1 - float(np.prod([1 - chance for chance in known])) if known else None

    def said(self) -> Iterator[str]:
        """In sentences."""
        yield (
            f"{self.device_hours:,.2f} {self.device}-hours for {counted(self.trials, 'trial')} and "
            f"{counted(self.epochs, 'epoch')}"
        )
        if self.pruned_epochs:
            yield (
                f"pruning saved {counted(self.pruned_epochs, 'epoch')}, about {duration(self.pruned_seconds)} of a "
                "trial's time"
            )
        if self.shared_seconds > 0:
            yield f"sharing frozen work saved about {duration(self.shared_seconds)} of a trial's time"
        if self.lost_epochs:
            yield (
                f"{counted(self.lost_epochs, 'epoch')} had to be repeated after faults: {duration(self.lost_seconds)}"
            )
        if self.audit is not None:
            yield from self.audit.said()
        audited = sum(rung.audited for rung in self.rungs)
        for rung in self.rungs:
            if rung.audited and rung.rank_correlation is not None:
                yield (
                    f"values at epoch {rung.epoch} and final ones have a rank correlation of "
                    f"{rung.rank_correlation:.2f} (Spearman, {counted(rung.finished, 'trial')}, audits among them)"
                )
        if self.chance is not None:
            stopped = counted(sum(rung.unknown for rung in self.rungs), "pruned trial")
            yield (
                f"the chance that one of the {stopped}{' without an audit' if audited else ''} would have won is "
                f"about {percent(self.chance, 0)}, as far as {'audits and ' if audited else 'the '}finished trials tell"
            )
            if self.chance > WORRYING:
                yield "that is much: a longer asha.grace_period would prune less of what comes late"
        elif any(rung.unknown for rung in self.rungs):
            yield (
                f"whether a pruned trial would have won can't be told: it takes {FEWEST_FINISHED} finished trials"
            )

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            **asdict(self),
            "device_hours": self.device_hours,
            "devices_per_trial": self.devices_per_trial,
            "chance": self.chance,
            "said": list(self.said()),
        }


def cost_of(run: Source) -> Cost:
    """The cost of the run.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    read = Snapshot.of(run)
    config, manifest, records = read.config, read.manifest, read.trials
    device = manifest.settings.device if manifest.settings else "cpu"
    share_at = _shares(manifest, device)
    rows = {record.trial_id: record.rows() for record in records}
    pruned = [r for r in records if r.status().status is Status.PRUNED and rows[r.trial_id]]
    unrun = {r.trial_id: config.epochs - len(rows[r.trial_id]) for r in pruned}
    metric = config.metric
    best = select(read).single
    curves = {
        trial_id: [metric.score(value) for value in best_so_far(found, metric)]
        for trial_id, found in rows.items()
    }
    lost = [facts for record in records for facts in read_json_lines(record.record.lost)]
    lost_seconds = sum(facts["seconds"] for facts in lost)
    every = [row for found in rows.values() for row in found]
    return Cost(
        trials=len(records),
        epochs=len(every),
        seconds=sum(row.seconds for row in every) + lost_seconds,
        device="GPU" if device == "cuda" else "CPU",
        device_seconds=sum(row.seconds * share_at(row.ended_at) for row in every)
        + sum(facts["seconds"] * share_at(facts.get("at", "")) for facts in lost),
        pruned_epochs=sum(unrun.values()),
        pruned_seconds=sum(
            epochs * float(np.mean([row.seconds for row in rows[trial_id]]))
            for trial_id, epochs in unrun.items()
        ),
        shared_seconds=frozen_work(every)["saved_seconds"],
        lost_epochs=sum(facts["epochs"] for facts in lost),
        lost_seconds=lost_seconds,
        rungs=tuple(_rungs(records, pruned, curves, best)),
        audit=_audit(records, len(pruned), curves, best),
    )


def _shares(manifest: Manifest, device: str) -> Callable[[str], float]:
    """What a trial got of GPUs, or of CPUs, in the session at a moment; the run's own where that was not recorded."""

    def of(granted: Granted | None) -> float:
        if granted is None:
            return 1.0
        return granted.gpus_per_trial if device == "cuda" else float(granted.cpus_per_trial)

    sessions = manifest.sessions
    started = [session.started for session in sessions]
    shares = [of(session.granted or manifest.resources) for session in sessions]
    first = of(manifest.resources)

    def share_at(moment: str) -> float:
        place = bisect_right(started, moment)
        return shares[place - 1] if place else first

    return share_at


def _audits(records: Sequence[ReadTrial]) -> dict[str, ReadTrial]:
    """Audits that came to an end of their own, by the pruned trial."""
    return {
        record.origin.audits: record
        for record in records
        if record.origin.audits is not None and record.status().status in BY_THEMSELVES
    }


def _audit(
    records: Sequence[ReadTrial],
    pruned: int,
    curves: Mapping[str, Sequence[float]],
    best: Standing | None,
) -> Audit | None:
    asked = sum(record.origin.origin == "audit" for record in records)
    if not asked or best is None:
        return None
    ended = _audits(records)
    better = tuple(
        audited
        for audited, record in ended.items()
        if record.status().status is Status.FINISHED and curves[record.trial_id][-1] > best.score
    )
    interval = wilson(len(better), len(ended)) if ended else None
    return Audit(pruned, len(ended), asked - len(ended), better, interval)


def spent(trials: pd.DataFrame, cost: Cost) -> dict[str, float]:
    """Seconds of trials by what became of them, then what was lost and saved."""
    by_status = trials.groupby("status")["seconds"].sum()
    return {
        **{status.value: float(by_status.get(status.value, 0.0)) for status in Status},
        "repeated after faults": cost.lost_seconds,
        "saved by pruning": cost.pruned_seconds,
        "saved by sharing": cost.shared_seconds,
    }


def _rungs(
    records: Sequence[ReadTrial],
    pruned: Sequence[ReadTrial],
    curves: Mapping[str, Sequence[float]],
    best: Standing | None,
) -> Iterator[Foresight]:
    """Each rung that stopped a trial, by its epoch. `curves` are best-so-far scores by trial."""
    finished = [
        curves[record.trial_id]
        for record in records
        if record.status().status is Status.FINISHED and record.origin.origin != "replicate"
    ]
    audited = _audits(records)
    by_epoch: dict[int, list[ReadTrial]] = {}
    for record in pruned:
        by_epoch.setdefault(len(curves[record.trial_id]), []).append(record)
    for epoch, stopped in sorted(by_epoch.items()):
        unknown = [curves[r.trial_id][-1] for r in stopped if r.trial_id not in audited]
        known = [(scores[epoch - 1], scores[-1]) for scores in finished if len(scores) >= epoch]
        correlation = chance = None
        if len(known) >= FEWEST_FINISHED and best is not None:
            then, finally_ = np.array(known).T
            correlation = _spearman(then, finally_)
            if unknown:
                chance = chance_to_beat(best.score, np.array(unknown), then, finally_)
        yield Foresight(
            epoch, len(stopped), len(stopped) - len(unknown), len(known), correlation, chance
        )


def chance_to_beat(best: float, stopped: "Any", then: "Any", finally_: "Any") -> float:
    """The chance that one of `stopped` (values at a rung) would have ended above `best`.

    Final values of finished trials (`finally_`) are regressed on their values at the rung (`then`); a stopped trial's
    end is drawn from the prediction interval of that line (Student's t). Without audits the finished ones all passed
    the rung, so it is a line beyond its data: an estimate, no more.
    """
    from scipy.stats import t

    count = len(then)
    spread = float(((then - then.mean()) ** 2).sum())
    slope = (
        float(((then - then.mean()) * (finally_ - finally_.mean())).sum() / spread)
        if spread
        else 0.0
    )
    predicted = finally_.mean() + slope * (stopped - then.mean())
    residual = finally_ - finally_.mean() - slope * (then - then.mean())
    variance = float((residual**2).sum()) / (count - 2)
    leverage = 1 + 1 / count + ((stopped - then.mean()) ** 2 / spread if spread else 0.0)
    error = np.sqrt(variance * leverage)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(error > 0, t.sf((best - predicted) / error, count - 2), predicted > best)
    return float(1 - np.prod(1 - above))


def _spearman(first: "Any", second: "Any") -> float | None:
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)
