"""The winner against the runners-up, on the same validation images: is it really better? The test set stays closed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from analysis.findings.excess import Chosen, chosen_among
from analysis.frames import results
from analysis.frames.select import Selection, select
from analysis.frames.snapshot import Snapshot, Source
from analysis.frames.snapshot.rights import right_at
from analysis.levels import ALPHA
from analysis.statistics import Interval, Paired, holm, mcnemar, wilson
from analysis.wording import counted, percent, points, right_alone, setting
from sweep.search.ranking import Standing
from trainable.errors import RequestError
from trainable.records.rows import Status

METRIC_DECIDES: Final = "because the run's metric and its replicates decide, not this accuracy"


@dataclass(frozen=True)
class Finalist:
    """A trained model at its best epoch, on the validation images."""

    trial_id: str
    setting: str
    right: int
    accuracy: float
    interval: Interval
    """Wilson's, for this model; for the winner, corrected for selection where that is known."""
    versus: Paired | None
    """The winner (first) against this one (second); None for the winner itself."""
    p_holm: float | None
    """The comparison's p-value, corrected for all comparisons of this table."""


@dataclass(frozen=True)
class Finalists:
    """The best trials by the metric, the winner first."""

    images: int
    each: tuple[Finalist, ...]
    ground: str
    """How the winner was chosen: by single runs or replicates, in words."""
    chosen: Chosen
    """Its value, corrected for selection."""

    def interval_said(self, one: Finalist) -> str:
        """The interval of one of them, in words; says so if it is corrected (the winner's)."""
        corrected = ", corrected" if one.versus is None and self.chosen.interval else ""
        return f"{percent(one.interval.low)} to {percent(one.interval.high)}{corrected}"

    def said(self) -> Iterator[str]:
        """What follows from the comparisons, and what does not."""
        winner = self.each[0]
        yield f"the winner is {winner.trial_id}, {self.ground}"
        for other in self.each[1:]:
            yield _compared(winner, other)
        if len(self.each) > 1:
            models = counted(len(self.each), "trained model")
            yield (
                f"this compares {models} on the {counted(self.images, 'validation image')} that they were selected on; "
                "it says nothing about settings: another seed could reverse the order"
            )
        yield from self.chosen.said()

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "said": list(self.said())}


def compare_finalists(run: Source, top: int, fewest: int = 2) -> Finalists:
    """The winner and the best finished trials after it, `top` in all.

    Raises:
        RequestError: there is no run folder, there are fewer than `fewest` finished trials, or predictions are damaged.
    """
    read = Snapshot.of(run)
    frame = results.trials(read)
    names = results.varied(frame)
    settings = {row["trial_id"]: setting(row, names) for row in results.to_records(frame)}
    selection = select(read)
    finished = _finished(selection)
    if len(finished) < fewest:
        raise RequestError(
            f"a comparison needs two finished trials, but {read.folder.path} has {len(finished)}; "
            f"`sweep status {read.folder.path}` shows its state"
        )
    finished = finished[:top]
    right = [right_at(read.by_id[each.trial_id], each.best.epoch) for each in finished]
    versus = [mcnemar(right[0], other) for other in right[1:]]
    adjusted = holm([pair.p for pair in versus])
    chosen = chosen_among(read, selection)
    corrected = chosen.interval
    each = tuple(
        Finalist(
            standing.trial_id,
            settings[standing.trial_id],
            int(mine.sum()),
            float(mine.mean()),
            wilson(int(mine.sum()), len(mine)) if pair or corrected is None else corrected,
            pair,
            p,
        )
        for standing, mine, pair, p in zip(
            finished, right, [None, *versus], [None, *adjusted], strict=True
        )
    )
    return Finalists(len(right[0]), each, selection.ground_said(), chosen)


def _finished(selection: Selection) -> list[Standing]:
    """The winner, then the other finished trials, best first; without audits and trials that learned nothing."""
    if selection.winner is None:
        return []
    others = (
        each
        for each in selection.ranked
        if each.status is Status.FINISHED and each.origin != "audit" and each != selection.winner
    )
    return [selection.winner, *(each for each in others if each.trial_id not in selection.flat)]


def _compared(winner: Finalist, other: Finalist) -> str:
    assert other.versus is not None and other.p_holm is not None
    difference = winner.accuracy - other.accuracy
    split = right_alone(
        winner.trial_id, other.versus.only_first, other.trial_id, other.versus.only_second
    )
    if other.p_holm >= ALPHA:
        return (
            f"the trained models {winner.trial_id} and {other.trial_id} do not differ significantly on these images "
            f"({points(difference)}, {split}; p = {other.p_holm:.2g} after Holm's correction)"
        )
    first, second = (winner, other) if difference > 0 else (other, winner)
    return (
        f"the trained model {first.trial_id} beats the trained model {second.trial_id} on these images by "
        f"{points(abs(difference))} ({split}; p = {other.p_holm:.2g} after Holm's correction)"
        + ("" if difference > 0 else f", but {winner.trial_id} is the winner, {METRIC_DECIDES}")
    )
