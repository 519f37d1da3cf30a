"""Which trial is better, in one place: for what is kept, the winner and replication."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from trainable.metric import Metric
from trainable.records.rows import (
    BROKEN,
    Asked,
    Origin,
    Row,
    Status,
    StatusRecord,
    is_better,
    key_of,
)


class OnRecord(Protocol):
    """One trial as ranking and study need it: read from disk when asked, or held in memory."""

    @property
    def trial_id(self) -> str: ...

    @property
    def asked(self) -> Asked: ...

    def status(self) -> StatusRecord: ...

    def rows(self) -> Sequence[Row]: ...


def best_row(rows: Iterable[Row], metric: Metric) -> Row | None:
    """The best epoch: by the metric, then lower validation loss, then the earlier one."""
    best: Row | None = None
    for row in rows:
        if is_better(metric, row, best):
            best = row
    return best


def best_so_far(rows: Sequence[Row], metric: Metric) -> list[float]:
    """For each epoch the best value of the metric so far, with the metric's own sign."""
    best, found = None, []
    for row in rows:
        score = metric.score(getattr(row, metric.value))
        best = score if best is None else max(best, score)
        found.append(metric.score(best))
    return found


@dataclass(frozen=True)
class Standing:
    """Where a trial stands: its best epoch, and how it ended."""

    trial_id: str
    setting_id: str
    """The same for trials that differ only in their seed."""
    status: Status
    origin: Origin
    best: Row
    metric: Metric

    @property
    def value(self) -> float:
        """The metric at the best epoch."""
        return float(getattr(self.best, self.metric.value))

    @property
    def score(self) -> float:
        """The same, turned so that higher is better."""
        return self.metric.score(self.value)

    @property
    def key(self) -> tuple[float, float, int, str]:
        """Smaller is better."""
        return key_of(self.metric, self.best, self.trial_id)


def standing(record: OnRecord, metric: Metric) -> Standing | None:
    """The standing of a trial on record; None before its first row."""
    status = record.status().status
    return standing_of(record.trial_id, record.asked, status, record.rows(), metric)


def standing_of(
    trial_id: str, asked: Asked, status: Status, rows: Sequence[Row], metric: Metric
) -> Standing | None:
    """The standing of a trial with this record; None before its first row."""
    best = best_row(rows, metric)
    if best is None:
        return None
    return Standing(trial_id, asked.settings.setting_id, status, asked.origin, best, metric)


def rank(standings: Iterable[Standing]) -> list[Standing]:
    """Best first."""
    return sorted(standings, key=lambda each: each.key)


def leader(standings: Iterable[Standing]) -> Standing | None:
    """The best so far of the trials that can win, however they end; None before a first epoch has ended."""
    known = [each for each in standings if each.origin != "audit"]
    return min(known, key=lambda each: each.key, default=None)


def single_winner(standings: Iterable[Standing]) -> Standing | None:
    """The best finished trial of the search; None if none finished."""
    eligible = [s for s in standings if s.status is Status.FINISHED and s.origin == "search"]
    return min(eligible, key=lambda each: each.key, default=None)


BY_THEMSELVES = (Status.FINISHED, *BROKEN)
"""Ends that show how good a setting is, for better or worse."""


@dataclass(frozen=True)
class Replicates:
    """The replicates of one setting that ended by themselves."""

    learned: tuple[Standing, ...]
    """Finished, and not flat."""
    not_learned: tuple[Standing, ...]
    """Collapsed, diverged or flat: counted, but in no mean."""

    @property
    def decide(self) -> bool:
        """Are there enough for a mean?"""
        return len(self.learned) > 1

    @property
    def mean(self) -> float:
        """The mean score of those that learned."""
        return fmean(each.score for each in self.learned)


def replicates(standings: Iterable[Standing], flat: Collection[str] = ()) -> dict[str, Replicates]:
    """Per setting, the replicates that ended by themselves, if two or more; those in `flat` learned nothing."""
    found: dict[str, list[Standing]] = defaultdict(list)
    for each in standings:
        if each.origin == "replicate" and each.status in BY_THEMSELVES:
            found[each.setting_id].append(each)
    return {
        setting: Replicates(
            tuple(r for r in runs if r.status is Status.FINISHED and r.trial_id not in flat),
            tuple(r for r in runs if r.status is not Status.FINISHED or r.trial_id in flat),
        )
        for setting, runs in found.items()
        if len(runs) > 1
    }


def winner(standings: Iterable[Standing], flat: Collection[str] = ()) -> Standing | None:
    """The trial to test; None if none finished.

    After a replication, it is the best replicate of the setting with the highest mean over its replicates that
    learned, if two or more did. The trial that made the setting stand out was also chosen for its luck, so it no
    longer counts. Otherwise it is the best single trial.
    """
    found = list(standings)
    settings = {key: runs for key, runs in replicates(found, flat).items() if runs.decide}
    if not settings:
        return single_winner(found)
    best = max(settings, key=lambda setting: (settings[setting].mean, setting))
    return min(settings[best].learned, key=lambda each: each.key)


def bar(kept: Iterable[Standing], best: int) -> tuple[float, float, int, str] | None:
    """The key that a trial must reach to be kept; None while fewer than `best` have finished."""
    keys = sorted(
        each.key for each in kept if each.status is Status.FINISHED and each.origin == "search"
    )
    return keys[best - 1] if len(keys) >= best else None


def to_keep(standings: Iterable[Standing], best: int) -> set[str]:
    """Ids of the ended trials whose weights are kept: the `best` of the search, finished ones before all others, and
    the best replicate of each setting. Nothing of an audit is kept: it can't win."""
    ended = [s for s in standings if s.status.has_ended]
    ended.sort(key=lambda each: (each.status is not Status.FINISHED, each.key))
    kept = {each.trial_id for each in [s for s in ended if s.origin == "search"][:best]}
    best_replicates: dict[str, str] = {}
    for each in ended:
        if each.origin == "replicate":
            best_replicates.setdefault(each.setting_id, each.trial_id)
    return kept | set(best_replicates.values())
