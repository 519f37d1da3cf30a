"""test.json: the ledger of openings of the test set, the rule for another opening, and sentences about them.

Nothing here can reach a test image; only final_test.py does.
"""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from analysis.statistics import Confusion, Interval
from analysis.wording import metric_name, percent, times
from trainable.config import StrictModel
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.files import Time, parse_json, write_json
from trainable.records.paths import readable
from trainable.records.run_folder import RunFolder

VERSION: Final = 1
"""Of test.json, independent of the manifest's version."""
CEILINGS: Final = {"Smiling": 0.935, "Male": 0.989}
"""Test accuracy on CelebA above which a leak is more likely than a better model; assumed, without a source."""
WHY_ONE: Final = (
    "only the winner is tested: picking the best of several models by their test values would be selection on the test "
    "images, and its test value would be too high, as its validation value is now"
)
CELEBA_IMAGES: Final = 10_000
"""A smaller table with such a column is not CelebA (202,599 images, or 30,000); assumed."""


# ---------------------------------------------------------------- what is written down


class Winner(StrictModel):
    """The trial that was chosen by validation, and the digest of its weights."""

    trial_id: str
    epoch: int
    metric: Metric
    value: float
    weights_sha256: str


class Result(StrictModel):
    """The winner's result on the test images; rates and area in 0…1, loss in nats, None where undefined."""

    images: int
    loss: float | None
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None
    confusion: Confusion
    predictions_sha256: str
    mistakes_sha256: str
    device: str
    number_format: str


class Opening(StrictModel):
    """One opening of the test set: for which winner, why it was opened again, and the result."""

    number: int
    opened: Time
    completed: Time | None = None
    host: str
    reason: str = ""
    """Why it was opened again; empty for the first opening."""
    sweep_finished: bool
    winner: Winner
    split_sha256: str
    result: Result | None = None


def parse_ledger(content: bytes, run: RunFolder) -> tuple[Opening, ...]:
    """Every opening in the `content` of the run's test.json.

    Raises:
        RequestError: it is damaged, or has a newer format.
    """
    facts = parse_json(content, run.test)
    if facts.get("format_version") != VERSION:
        raise RequestError(
            f"{run.test} must have format_version {VERSION}, but it has {facts.get('format_version')}; "
            "use the version of this project that made it"
        )
    with readable(run.test, "restore the original: it records how often the test set was opened"):
        return tuple(Opening(**entry) for entry in facts["ledger"])


def write_ledger(run: RunFolder, openings: Sequence[Opening]) -> None:
    """Write the ledger, and above it the newest opening for quick reading; it is on disk when this returns."""
    facts: dict[str, Any] = {"format_version": VERSION, "times_opened": len(openings)}
    newest = openings[-1].model_dump(mode="json")
    facts |= {key: newest[key] for key in ("winner", "split_sha256", "result")}
    facts["ledger"] = [opening.model_dump(mode="json") for opening in openings]
    write_json(run.test, facts)


# ---------------------------------------------------------------- the rule


class NextStep(Enum):
    """What a call of `analysis test` has to do."""

    SHOW = auto()
    COMPLETE = auto()
    OPEN = auto()


def next_step(
    openings: Sequence[Opening], winner: Winner, split_sha256: str, reopen: str | None
) -> NextStep:
    """Show the newest result, complete an opening that was interrupted, or open the test set.

    Raises:
        RequestError: the winner or the split is not the one that the test set was opened for, and no reason to reopen
            is given; or a reason is given and there is nothing to reopen.
    """
    if reopen is not None and not reopen.strip():
        raise RequestError(
            "--reopen must give the reason for opening the test set again, but it is empty"
        )
    if not openings:
        if reopen is not None:
            raise RequestError(
                "--reopen is for a test set that has been opened, but this one has not; leave it out"
            )
        return NextStep.OPEN
    newest = openings[-1]
    change = _change(newest, winner, split_sha256)
    if change is not None:
        if reopen is None:
            raise RequestError(
                f"the test set was opened on {newest.opened} for trial {newest.winner.trial_id}, but since then "
                f"{change}; --reopen REASON opens it again, and every report will say so"
            )
        return NextStep.OPEN
    if newest.result is None:
        return NextStep.COMPLETE
    return NextStep.SHOW if reopen is None else NextStep.OPEN


def _change(opening: Opening, winner: Winner, split_sha256: str) -> str | None:
    """What has changed since `opening`; None if nothing has."""
    then = opening.winner
    if (then.trial_id, then.epoch) != (winner.trial_id, winner.epoch):
        return (
            f"the winner by {metric_name(winner.metric)} has changed from {then.trial_id} at epoch {then.epoch} "
            f"({then.value:.4f}) to {winner.trial_id} at epoch {winner.epoch} ({winner.value:.4f})"
        )
    if then.weights_sha256 != winner.weights_sha256:
        return "the weights recorded for it have changed"
    if opening.split_sha256 != split_sha256:
        return "the split has changed"
    return None


# ---------------------------------------------------------------- what is said


def leak_alarm(target: str, images: int, accuracy: float) -> str | None:
    """A warning if a test accuracy on CelebA (`images` in the whole table) is too good to be true."""
    ceiling = CEILINGS.get(target)
    if ceiling is None or images < CELEBA_IMAGES or accuracy <= ceiling:
        return None
    return (
        f"LEAK ALARM: a test accuracy of {percent(accuracy)} for {target} is above {percent(ceiling, 1)}, "
        "more than published models reach on CelebA: the same pictures or people are probably in both the training "
        "and the test set. Check this before you trust the result."
    )


def alarm_of(target: str, split: Path, openings: Sequence[Opening]) -> str | None:
    """The leak alarm, if the newest result raises it; `split` is the run's split.parquet."""
    if not openings or openings[-1].result is None:
        return None
    images: int = pq.read_metadata(split).num_rows
    return leak_alarm(target, images, openings[-1].result.accuracy)


def how_often(openings: Sequence[Opening]) -> str:
    """How often the test set has been opened, in a sentence."""
    if not openings:
        return "The test set has not been opened."
    return f"The test set has been opened {times(len(openings))}."


def reasons(openings: Sequence[Opening]) -> Iterator[str]:
    """What must be reported about each opening besides its number."""
    for opening in openings:
        if opening.reason:
            yield f"opening {opening.number}: {opening.reason}"
        if not opening.sweep_finished:
            yield f"opening {opening.number} was made before the sweep had finished"
        if opening.result is None:
            yield f"opening {opening.number} was interrupted and has no result"
