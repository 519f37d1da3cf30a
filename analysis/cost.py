"""What a sweep cost, what it did not have to, and what ASHA may have thrown away."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from analysis import results
from analysis.select import select
from analysis.wording import counted, percent
from sweep.ranking import best_so_far
from trainable.command import duration
from trainable.files import read_json_lines
from trainable.record import RunFolder, TrialRecord
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
    finished: int
    """Trials that ran to the end, from which the rest is estimated."""
    rank_correlation: float | None
    """Spearman's, of the best value until the rung and the final one; None where too few finished."""
    chance: float | None
    """That one of the stopped trials would have beaten the winner, had all run on."""


@dataclass(frozen=True)
class Cost:
    """Seconds are of trials: with two trials at a time, two of them pass in one."""

    trials: int
    epochs: int
    seconds: float
    """Of all epochs on record and of those that were repeated."""
    device: str
    devices_per_trial: float
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

    @property
    def device_hours(self) -> float:
        return self.seconds * self.devices_per_trial / 3600

    @property
    def chance(self) -> float | None:
        """That any stopped trial would have beaten the winner."""
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
        if self.chance is not None:
            stopped = sum(rung.stopped for rung in self.rungs)
            yield (
                f"the chance that one of the {counted(stopped, 'pruned trial')} would have won is about "
                f"{percent(self.chance, 0)}, as far as the finished trials tell"
            )
            if self.chance > WORRYING:
                yield "that is much: a longer asha.grace_period would prune less of what comes late"
        elif any(rung.stopped for rung in self.rungs):
            yield (
                f"whether a pruned trial would have won can't be told: it takes {FEWEST_FINISHED} finished trials"
            )

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            **asdict(self),
            "device_hours": self.device_hours,
            "chance": self.chance,
            "said": list(self.said()),
        }


def cost_of(run: Path) -> Cost:
    """The cost of the run in folder `run`.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    config, folder = results.load_config(run), RunFolder(run)
    manifest, records = folder.read_manifest(), folder.trials()
    device = (manifest.get("settings") or {}).get("device", "cpu")
    granted = manifest.get("resources") or {}
    share = granted.get("gpus_per_trial" if device == "cuda" else "cpus_per_trial") or 1
    rows = {record.trial_id: record.rows() for record in records}
    pruned = [r for r in records if r.status().status is Status.PRUNED and rows[r.trial_id]]
    unrun = {r.trial_id: config.epochs - len(rows[r.trial_id]) for r in pruned}
    lost = [facts for record in records for facts in read_json_lines(record.lost)]
    lost_seconds = sum(facts["seconds"] for facts in lost)
    return Cost(
        trials=len(records),
        epochs=sum(map(len, rows.values())),
        seconds=sum(row.seconds for found in rows.values() for row in found) + lost_seconds,
        device="GPU" if device == "cuda" else "CPU",
        devices_per_trial=float(share),
        pruned_epochs=sum(unrun.values()),
        pruned_seconds=sum(
            epochs * float(np.mean([row.seconds for row in rows[trial_id]]))
            for trial_id, epochs in unrun.items()
        ),
        shared_seconds=frozen_work(row for found in rows.values() for row in found)[
            "saved_seconds"
        ],
        lost_epochs=sum(facts["epochs"] for facts in lost),
        lost_seconds=lost_seconds,
        rungs=tuple(_rungs(folder, run, pruned)),
    )


def _rungs(folder: RunFolder, run: Path, pruned: list[TrialRecord]) -> Iterator[Foresight]:
    """Each rung that stopped a trial, by its epoch."""
    config = results.load_config(run)
    metric = config.metric
    best = select(folder, metric).single
    finished = [
        [metric.score(value) for value in best_so_far(record.rows(), metric)]
        for record in folder.trials()
        if record.status().status is Status.FINISHED and record.origin.origin == "search"
    ]
    by_epoch: dict[int, list[float]] = {}
    for record in pruned:
        values = best_so_far(record.rows(), metric)
        by_epoch.setdefault(len(values), []).append(metric.score(values[-1]))
    for epoch, stopped in sorted(by_epoch.items()):
        known = [(values[epoch - 1], values[-1]) for values in finished if len(values) >= epoch]
        correlation = chance = None
        if len(known) >= FEWEST_FINISHED and best is not None:
            then, finally_ = np.array(known).T
            correlation = _spearman(then, finally_)
            chance = chance_to_beat(best.score, np.array(stopped), then, finally_)
        yield Foresight(epoch, len(stopped), len(known), correlation, chance)


def chance_to_beat(best: float, stopped: "Any", then: "Any", finally_: "Any") -> float:
    """The chance that one of `stopped` (values at a rung) would have ended above `best`.

    Final values of finished trials (`finally_`) are regressed on their values at the rung (`then`); a stopped trial's
    end is drawn from the prediction interval of that line (Student's t). The finished ones passed the rung, so it is
    a line beyond its data: an estimate, no more.
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
