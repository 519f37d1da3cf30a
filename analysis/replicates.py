"""What replicates say of settings: means over seeds with intervals, and which settings can be told apart."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from analysis import results
from analysis.select import select
from analysis.snapshot import Snapshot, Source
from analysis.statistics import Difference, Mean, holm, mean_of, welch
from analysis.wording import counted, is_rate, metric_name, metric_value, number, points, setting
from sweep.ranking import replicates, single_winner
from trainable.metric import Metric

ALPHA: Final = 0.05


@dataclass(frozen=True)
class Replicated:
    """A setting that was trained again with other seeds."""

    setting: str
    trial_ids: tuple[str, ...]
    """Of its replicates that ended by themselves."""
    mean: Mean
    """Of the metric at their best epochs."""
    versus: Difference | None
    """The setting with the best mean less this one, turned so that higher is better; None for that one itself."""
    p_holm: float | None


@dataclass(frozen=True)
class Replication:
    """Every setting with two replicates or more, the best mean first."""

    metric: Metric
    each: tuple[Replicated, ...]
    single: str | None
    """The setting of the best single trial of the search."""

    def said(self) -> Iterator[str]:
        """Sentences about settings: only replicates give a right to them."""
        if not self.each:
            return
        best = self.each[0]
        for other in self.each[1:]:
            assert other.versus is not None and other.p_holm is not None
            low, high = other.versus.interval.low, other.versus.interval.high
            by = f"{self._step(other.versus.difference)} (95 % interval {self._step(low)} to {self._step(high)})"
            if other.p_holm < ALPHA:
                yield f"{best.setting} beats {other.setting} by {by}, p = {other.p_holm:.2g} after Holm"
            else:
                yield f"{best.setting} and {other.setting} can't be told apart: {by}"
        if self.single is not None and self.single != best.setting:
            yield f"the best single trial of the search had another setting: {self.single}"
        seeds = counted(best.mean.runs, "new seed")
        yield (
            f"the first was trained with {seeds}; split and augmentation draws were held fixed, so of other splits "
            "this says nothing"
        )

    def _step(self, difference: float) -> str:
        return points(difference) if is_rate(self.metric) else number(difference)

    def value(self, value: float) -> str:
        """A value of the metric in words."""
        return metric_value(self.metric, value)

    def title(self) -> str:
        return metric_name(self.metric)

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "metric": self.metric.value, "said": list(self.said())}


def compare_replicates(run: Source) -> Replication:
    """The settings of the run that were replicated; none where there are no replicates.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    read = Snapshot.of(run)
    metric, frame = read.config.metric, results.trials(read)
    names = [name for name in results.varied(frame) if name != "seed"]
    said = {row["trial_id"]: setting(row, names) for row in results.to_records(frame)}
    ranked = select(read).ranked
    groups = {
        runs[0].trial_id: [each.score for each in runs] for runs in replicates(ranked).values()
    }
    members = {runs[0].trial_id: runs for runs in replicates(ranked).values()}
    order = sorted(groups, key=lambda first: -sum(groups[first]) / len(groups[first]))
    versus = [welch(groups[order[0]], groups[other]) for other in order[1:]]
    adjusted = holm([each.p for each in versus])
    each = (
        tuple(
            Replicated(
                said[first],
                tuple(sorted(member.trial_id for member in members[first])),
                mean_of([metric.score(score) for score in groups[first]]),
                pair,
                p,
            )
            for first, pair, p in zip(order, [None, *versus], [None, *adjusted], strict=True)
        )
        if order
        else ()
    )
    single = single_winner(ranked)
    return Replication(metric, each, said[single.trial_id] if single else None)
