"""The notices at the top of the report, and the scale that shows the test accuracy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis import wording
from analysis.findings.pruning import Pruning
from analysis.frames.ledger import Opening, how_often, reasons
from analysis.frames.select import Selection
from trainable.metric import Metric
from trainable.records.manifest import Manifest


def notices(
    manifest: Manifest,
    selection: Selection,
    openings: Sequence[Opening],
    lacks: str | None,
    pruning: Pruning,
) -> Iterator[str]:
    """What a reader must know before trusting a number on the page, in sentences."""
    if lacks is not None:
        yield f"This sweep is not finished: {lacks}. The results on this page can still change."
    yield from (_sentence(remark) for remark in selection.remarks())
    yield from (_sentence(warning) for warning in pruning.warnings())
    if len(openings) > 1:
        yield (
            how_often(openings)
            + " Each opening after the first makes the result less of a held-out test."
        )
    yield from (_sentence(reason) for reason in reasons(openings))
    if openings and selection.winner is not None:
        tested = openings[-1].winner
        if (tested.trial_id, tested.epoch) != (
            selection.winner.trial_id,
            selection.winner.best.epoch,
        ):
            yield (
                f"The test set was opened for trial {tested.trial_id} at epoch {tested.epoch}; "
                f"the winner by validation is now {selection.say(selection.winner)}."
            )
    yield from (_sentence(warning) for warning in manifest.warnings)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


@dataclass(frozen=True)
class Scale:
    """Where interval, test and validation accuracy lie on a bar, in percent of its width, and the bar's two ends."""

    start: str
    end: str
    low: float
    high: float
    test: float
    validation: float | None


def scale_of(openings: Sequence[Opening]) -> Scale | None:
    """A bar that covers the interval and, if it decided, the validation accuracy, with some margin."""
    if not openings or openings[-1].result is None:
        return None
    result, winner = openings[-1].result, openings[-1].winner
    interval = result.accuracy_interval
    validation = winner.value if winner.metric is Metric.VAL_ACCURACY else None
    shown = [interval.low, interval.high] + ([] if validation is None else [validation])
    room = max(0.25 * (max(shown) - min(shown)), 0.002)
    start, end = max(0.0, min(shown) - room), min(1.0, max(shown) + room)

    def place(share: float) -> float:
        return round(100 * (share - start) / (end - start), 2)

    return Scale(
        wording.percent(start, 1),
        wording.percent(end, 1),
        place(interval.low),
        place(interval.high),
        place(result.accuracy),
        None if validation is None else place(validation),
    )
