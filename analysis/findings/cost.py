"""What a sweep cost, and what pruning and sharing saved."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.pruning import Pruning, pruning_of
from analysis.frames.snapshot import Snapshot, Source
from analysis.wording import counted
from trainable.records.files import read_json_lines
from trainable.records.manifest import Granted, Manifest
from trainable.records.rows import Status, frozen_work
from trainable.show.wording import duration


@dataclass(frozen=True)
class Cost:
    """Seconds are those of trials: while two trials run at a time, each second on the clock counts twice."""

    trials: int
    epochs: int
    seconds: float
    """Of all recorded epochs, including lost ones that were repeated."""
    device: str
    device_seconds: float
    """Each epoch's seconds times the devices of a trial in its session; lost epochs: in the session that cut them."""
    pruned_epochs: int
    """Epochs of the budget that pruned trials did not run; trials that an audit ran to the end are not counted."""
    pruned_seconds: float
    """The time that these would have taken at each trial's own pace."""
    saved_seconds: float | None
    """Saved by sharing frozen work, at the run's measured pace of frozen layers; None if no pace was measured."""
    lost_epochs: int
    """Repeated after a fault because no saved state covered them."""
    lost_seconds: float
    pruning: Pruning

    @property
    def device_hours(self) -> float:
        return self.device_seconds / 3600

    @property
    def devices_per_trial(self) -> float:
        """Averaged over all seconds."""
        return self.device_seconds / self.seconds if self.seconds else 0.0

    def said(self) -> Iterator[str]:
        """In sentences."""
        yield (
            f"{self.device_hours:,.2f} {self.device}-hours for {counted(self.trials, 'trial')} and "
            f"{counted(self.epochs, 'epoch')}"
        )
        if self.pruned_epochs:
            yield (
                f"pruning saved {counted(self.pruned_epochs, 'epoch')}, about {duration(self.pruned_seconds)} of "
                "training time, summed over trials"
            )
        if self.saved_seconds is None:
            yield (
                "sharing saved all work of frozen layers: their outputs were already in the store, so the time saved "
                "was not measured in this run"
            )
        elif self.saved_seconds > 0:
            yield (
                f"sharing frozen work saved about {duration(self.saved_seconds)} of training time, summed over trials"
            )
        if self.lost_epochs:
            yield (
                f"{counted(self.lost_epochs, 'epoch')} had to be repeated after faults, {duration(self.lost_seconds)}"
            )
        yield from self.pruning.said()

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        facts = asdict(self)
        pruning = facts.pop("pruning")
        return {
            **facts,
            "device_hours": self.device_hours,
            "devices_per_trial": self.devices_per_trial,
            "strategies": pruning["strategies"],
            "audit": pruning["audit"],
            "warnings": list(self.pruning.warnings()),
            "said": list(self.said()),
        }


def cost_of(run: Source) -> Cost:
    """The cost of the run.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    config, manifest, records = read.config, read.manifest, read.trials
    device = manifest.settings.device if manifest.settings else "cpu"
    devices_at = _devices_of_epochs(manifest, device)
    rows = {record.trial_id: record.rows() for record in records}
    audited = {record.asked.audits for record in records}
    unrun = {
        trial.trial_id: config.epochs - len(rows[trial.trial_id])
        for trial in records
        if trial.status().status is Status.PRUNED and rows[trial.trial_id]
        if trial.trial_id not in audited
    }
    lost = [facts for record in records for facts in read_json_lines(record.record.lost)]
    lost_seconds = sum(facts["seconds"] for facts in lost)
    every = [row for found in rows.values() for row in found]
    return Cost(
        trials=len(records),
        epochs=len(every),
        seconds=sum(row.seconds for row in every) + lost_seconds,
        device="GPU" if device == "cuda" else "CPU",
        device_seconds=sum(row.seconds * devices_at(row.ended_at) for row in every)
        + sum(facts["seconds"] * devices_at(facts.get("at", "")) for facts in lost),
        pruned_epochs=sum(unrun.values()),
        pruned_seconds=sum(
            epochs * float(np.mean([row.seconds for row in rows[trial_id]]))
            for trial_id, epochs in unrun.items()
        ),
        saved_seconds=frozen_work(every)["saved_seconds"],
        lost_epochs=sum(facts["epochs"] for facts in lost),
        lost_seconds=lost_seconds,
        pruning=pruning_of(read),
    )


def _devices_of_epochs(manifest: Manifest, device: str) -> Callable[[str], float]:
    """GPUs or CPUs of a trial in the session at a given moment; those of the run where that was not recorded."""

    def of(granted: Granted | None) -> float:
        if granted is None:
            return 1.0
        return granted.gpus_per_trial if device == "cuda" else float(granted.cpus_per_trial)

    sessions = manifest.sessions
    started = [session.started for session in sessions]
    devices = [of(session.granted or manifest.resources) for session in sessions]
    first = of(manifest.resources)

    def devices_at(moment: str) -> float:
        place = bisect_right(started, moment)
        return devices[place - 1] if place else first

    return devices_at


def spent(trials: pd.DataFrame, cost: Cost) -> dict[str, float]:
    """Seconds of trials by status, then seconds lost and saved."""
    by_status = trials.groupby("status")["seconds"].sum()
    return {
        **{status.value: float(by_status.get(status.value, 0.0)) for status in Status},
        "repeated after faults": cost.lost_seconds,
        "saved by pruning": cost.pruned_seconds,
        "saved by sharing": cost.saved_seconds or 0.0,
    }
