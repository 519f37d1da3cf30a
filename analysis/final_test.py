"""Opens the test set, once, for the winner. Only this module calls the function of `trainable.data` that does so.

`test.json` is a ledger: an opening is on disk before the first test image is read, and its result is added afterwards.
An opening without a result was interrupted; the next call completes it.
"""

import hashlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from analysis.frames.ledger import (
    NextStep,
    Opening,
    Result,
    alarm_of,
    next_step,
    write_ledger,
)
from analysis.frames.select import select, why_unfinished
from analysis.frames.snapshot import Snapshot
from analysis.judgement.mistakes import as_parquet, most_confident
from analysis.statistics import confusion, wilson
from analysis.winner.load import chosen_winner, settings_here, winner_model
from sweep.request.open_run import Run, open_run
from trainable.config import RunSettings
from trainable.data import open_test_data
from trainable.data.examine import Begin, Progress, no_progress
from trainable.errors import RequestError
from trainable.fit import predict
from trainable.frozen.reference import Batches, evaluation_batches
from trainable.metric import measure
from trainable.network.model import TransferVGG16
from trainable.records.files import now, write_atomically
from trainable.records.run_folder import RunFolder

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tested:
    """The newest opening with its result, and the remarks that a reader needs with it."""

    opening: Opening
    times_opened: int
    step: NextStep
    remarks: tuple[str, ...]
    alarm: str | None


def final_test(
    path: Path,
    reopen: str | None = None,
    unfinished: bool = False,
    say: Callable[[str], None] = lambda text: None,
    begin: Begin = no_progress,
) -> Tested:
    """Evaluate the winner of the run in folder `path` on the test images, once; later calls return the stored result.

    `reopen` is the reason to open the test set once more; `unfinished` allows it before the sweep has finished.
    `begin(text, total)` returns a callback that takes the number of images evaluated since its last call.

    Raises:
        RequestError: the sweep is not finished or has no winner, or its winner, weights or split have changed.
    """
    run = open_run(path).folder
    with _alone(run):
        opened = Snapshot.of(path)
        selection, openings = select(opened), opened.openings
        winner, split_sha256 = chosen_winner(run, selection), opened.manifest.digests.split
        step = next_step(openings, winner, split_sha256, reopen)
        lacks = why_unfinished(opened)
        if step is not NextStep.SHOW:
            begun_so = step is NextStep.COMPLETE and not openings[-1].sweep_finished
            if lacks is not None and not (unfinished or begun_so):
                raise RequestError(
                    f"the sweep must be finished before its test set is opened, but {lacks}; "
                    f"`sweep resume {path}` continues it; --unfinished opens the test set anyway"
                )
            if step is NextStep.OPEN:
                opening = Opening(
                    number=len(openings) + 1,
                    opened=now(),
                    host=socket.gethostname(),
                    reason=(reopen or "").strip(),
                    sweep_finished=lacks is None,
                    winner=winner,
                    split_sha256=split_sha256,
                )
                openings = (*openings, opening)
            openings = _open(opened, openings, say, begin)
    remarks = selection.remarks()
    if lacks is not None:
        remarks.append(f"the sweep is not finished: {lacks}")
    alarm = alarm_of(opened.config.data.target, run.split, openings)
    return Tested(openings[-1], len(openings), step, tuple(remarks), alarm)


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """Let one opening run at a time."""
    lock = FileLock(run.path / ".test.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(
            f"only one `analysis test` may run at a time, but another is running in {run.path}; wait for it to end"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open(
    opened: Run, openings: Sequence[Opening], say: Callable[[str], None], begin: Begin
) -> tuple[Opening, ...]:
    """Complete the newest of `openings`, which is on disk before the first test image is read."""
    *before, newest = openings
    run, settings = opened.folder, _settings(opened)
    model = winner_model(opened, newest.winner, settings)
    write_ledger(run, openings)
    text = (
        f"opening {newest.number} of the test set, "
        f"for trial {newest.winner.trial_id} at epoch {newest.winner.epoch}"
    )
    LOG.info("%s: %s", run.test, text)
    say(text)
    result = _evaluate(run, model, settings, begin)
    completed = newest.model_copy(update={"completed": now(), "result": result})
    write_ledger(run, [*before, completed])
    return (*before, completed)


def _settings(run: Run) -> RunSettings:
    """The settings that all trials shared, with this machine's device."""
    settings = settings_here(run)
    if not settings.images.is_dir():
        raise RequestError(
            f"the images must be in {settings.images}, as recorded, but there is no such folder; the test set has not "
            f"been opened; give their new place with `sweep resume {run.folder.path} data.images=PLACE`"
        )
    return settings


def _evaluate(run: RunFolder, model: TransferVGG16, settings: RunSettings, begin: Begin) -> Result:
    """Predict every test image; write the predictions, and the most confident mistakes with thumbnails."""
    images = open_test_data(run.split, settings.images, settings.image_size)
    try:
        batches = evaluation_batches(model, settings, images)
        advance = begin("test images", len(images))
        logits = predict(model, _told(batches, advance), settings)
        predictions = pd.DataFrame(
            {"file": images.files, "label": images.labels.int().numpy(), "logit": logits.numpy()}
        )
        mistakes = as_parquet(most_confident(predictions), images)
    except OSError as error:
        raise RequestError(
            f"every test image must be readable, but: {error}; repair it, then `analysis test {run.path}` "
            "completes this opening"
        ) from None
    buffer = BytesIO()
    predictions.to_parquet(buffer, index=False)
    digests = (
        _write(run.test_predictions, buffer.getvalue()),
        _write(run.test_mistakes, mistakes),
    )
    return evaluate(logits, images.labels, digests, settings)


def _told(batches: Batches, advance: Progress) -> Batches:
    """The same batches; reports to `advance` when each has been used."""
    for places, hidden in batches:
        yield places, hidden
        advance(len(hidden))


def _write(path: Path, content: bytes) -> str:
    """Write the file; the SHA-256 of its content."""
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def evaluate(
    logits: Tensor, labels: Tensor, digests: tuple[str, str], settings: RunSettings
) -> Result:
    """The result of `logits` (n,) against `labels` (n,) of 0 and 1; `digests`: SHA-256 of predictions and mistakes."""
    measured, counts = measure(logits, labels), confusion(logits.numpy(), labels.numpy())
    return Result(
        images=counts.images,
        loss=_finite(measured.loss),
        accuracy=measured.accuracy,
        accuracy_interval=wilson(counts.correct, counts.images),
        balanced_accuracy=measured.balanced_accuracy,
        precision=counts.precision,
        recall=counts.recall,
        f1=counts.f1,
        auc=_finite(measured.auc),
        confusion=counts,
        predictions_sha256=digests[0],
        mistakes_sha256=digests[1],
        device=settings.device,
        number_format=settings.precision,
    )


def _finite(value: float) -> float | None:
    return value if -torch.inf < value < torch.inf else None
