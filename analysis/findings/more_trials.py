"""Would more trials have helped? The expected best validation value by number of trials, for each strategy."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.wording import counted, is_rate, metric_value, points
from sweep.search.ranking import BY_THEMSELVES
from trainable.metric import Metric
from trainable.records.rows import Status

FEWEST: Final = 4
"""The fewest full trials of a strategy from which its curve is computed; assumed."""
LITTLE: Final = 0.005
"""The smallest gain from doubling the trials that makes doubling them again worthwhile: half a point; assumed."""


def expected_best(values: Sequence[float], trials: int) -> float:
    """The expected maximum of `trials` values drawn from these with replacement.

    Dodge et al. (2019, "Show Your Work", equation 7): Σ v_(i) ((i/N)^n - ((i-1)/N)^n), v_(i) ascending, for n ≤ N.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    below = (np.arange(len(ordered) + 1) / len(ordered)) ** trials
    return float(ordered @ np.diff(below))


@dataclass(frozen=True)
class Strategy:
    """The full trials of one strategy."""

    strategy: str
    trials: int
    """Trials of the search that ended on their own; pruned ones have no final value."""
    pruned: int
    best: dict[int, float]
    """Number of trials, doubling up to all of them → expected best value, in the metric's own sign."""


@dataclass(frozen=True)
class MoreTrials:
    """Strategies with FEWEST full trials or more."""

    metric: Metric
    each: tuple[Strategy, ...]

    def said(self) -> Iterator[str]:
        """In sentences; none if no strategy has enough trials."""
        for each in self.each:
            steps = list(each.best.items())
            (half, before), (_, last) = steps[-2:]
            (first, value), *rest = ((n, metric_value(self.metric, v)) for n, v in steps)
            more = "".join(f", of {n} it is {v}" for n, v in rest)
            survivors = (
                f" (survivors: ASHA stopped {counted(each.pruned, 'other')})" if each.pruned else ""
            )
            text = f"with {each.strategy}, the expected best of {first} trials that were not pruned is {value}"
            yield text + more + survivors + self._verdict(each.trials, half, last - before)

    def _verdict(self, trials: int, half: int, gained: float) -> str:
        if self.metric is Metric.VAL_LOSS:
            return ""
        by = points(gained) if is_rate(self.metric) else f"{gained:+.4f}"
        went = f"; going from {half} to {trials} gained {by}"
        if gained < LITTLE:
            return f"{went}: as many again would hardly have helped"
        return f"{went}, part of it by chance on these images: more trials could help"

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "metric": self.metric.value, "said": list(self.said())}


def more_trials(run: Source) -> MoreTrials:
    """By strategy, most trials first: the search's trials that ended on their own, also collapsed and diverged ones.

    The formula assumes trials drawn at random from the space; for a grid or TPE it is only a description.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    metric, found = read.config.metric, []
    by_strategy: dict[str, list[float]] = {}
    pruned: dict[str, int] = {}
    for each in select(read).ranked:
        strategy: str = read.by_id[each.trial_id].asked.settings.strategy
        if each.origin == "search" and each.status in BY_THEMSELVES:
            by_strategy.setdefault(strategy, []).append(each.score)
        elif each.origin == "search" and each.status is Status.PRUNED:
            pruned[strategy] = pruned.get(strategy, 0) + 1
    for strategy, scores in by_strategy.items():
        if len(scores) < FEWEST:
            continue
        best = {n: metric.score(expected_best(scores, n)) for n in _halvings(len(scores))}
        found.append(Strategy(strategy, len(scores), pruned.get(strategy, 0), best))
    return MoreTrials(metric, tuple(sorted(found, key=lambda one: (-one.trials, one.strategy))))


def _halvings(trials: int) -> list[int]:
    """8 → 2, 4, 8; at most three."""
    found = [trials]
    while len(found) < 3 and found[-1] > 3:
        found.append(found[-1] // 2)
    return found[::-1]
