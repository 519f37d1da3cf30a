"""The report in five sentences: the winner, its test result, how certain it is, what mattered, what it cost."""

from collections.abc import Iterator, Sequence

from analysis import wording
from analysis.findings.cost import Cost
from analysis.findings.effects import Effects
from analysis.findings.finalists import Finalists
from analysis.findings.replicates import Replication
from analysis.frames.ledger import Opening
from analysis.frames.select import Selection
from analysis.levels import ALPHA
from analysis.pages.report.conclusions import Conclusions
from trainable.show.wording import duration


def summary(found: Conclusions, setting: str) -> list[str]:
    """Five sentences, or fewer if there is nothing to report; `setting` is the winner's, in words."""
    return [
        sentence
        for line in (
            _winner(found.selection, setting, found.finalists),
            _test(found.openings),
            _sure(found.finalists, found.replication),
            _mattered(found.effects),
            _cost(found.cost),
        )
        for sentence in line
    ]


def _winner(selection: Selection, setting: str, finalists: Finalists | None) -> Iterator[str]:
    won = selection.winner
    if won is None:
        yield "there is no winner yet: no trial of the search has finished"
        return
    value = wording.metric_value(selection.metric, selection.metric.score(won.score))
    corrected = ""
    found = finalists.chosen.excess if finalists is not None else None
    if found is not None:
        corrected = (
            f"; corrected for its selection as the best, about {wording.percent(found.corrected)} (95 % confidence "
            f"interval {wording.percent(found.interval.low)} to {wording.percent(found.interval.high)})"
        )
    yield (
        f"the winner, chosen by {selection.ground}, is trial {won.trial_id} ({setting}): "
        f"{wording.metric_name(selection.metric)} {value} at epoch {won.best.epoch}{corrected}"
    )


def _test(openings: Sequence[Opening]) -> Iterator[str]:
    result = openings[-1].result if openings else None
    if result is None:
        yield (
            "the test set has not been opened"
            if not openings
            else "the test set was opened, but there is no result yet"
        )
        return
    ends = result.accuracy_interval
    yield (
        f"its test accuracy is {wording.percent(result.accuracy)} on {wording.counted(result.images, 'image')} "
        f"(95 % confidence interval {wording.percent(ends.low)} to {wording.percent(ends.high)}); the test set was "
        f"opened {wording.times(len(openings))}"
    )


def _sure(finalists: Finalists | None, replication: Replication) -> Iterator[str]:
    """About settings if they were replicated, else about trained models."""
    compared = [each for each in replication.each if each.versus is not None]
    if compared:
        yield next(replication.said())
        return
    if finalists is None or len(finalists.each) < 2:
        return
    others = finalists.each[1:]
    beaten = sum(other.p_holm is not None and other.p_holm < ALPHA for other in others)
    yield (
        f"on the validation images, the winner's model is significantly better than {beaten} of "
        f"{'1 runner-up' if len(others) == 1 else f'{len(others)} runners-up'}; `sweep replicate RUN` tests whether "
        "its setting is better"
    )


def _mattered(effects: Effects) -> Iterator[str]:
    said = effects.mattered_most()
    if said is not None:
        yield said


def _cost(cost: Cost) -> Iterator[str]:
    saved = [
        f"{what} saved {duration(seconds)}"
        for what, seconds in (
            ("pruning", cost.pruned_seconds),
            ("sharing frozen work", cost.saved_seconds),
        )
        if seconds is not None and seconds > 0
    ]
    more = f"; {' and '.join(saved)} of training time, summed over trials" if saved else ""
    yield f"{cost.device_hours:,.2f} {cost.device}-hours for {wording.counted(cost.trials, 'trial')}{more}"
