"""The training loop: a generator of one row per epoch; ends by itself on divergence or collapse.

Every draw is a pure function of a seed and a place in the training, so a resumed trial equals one that never stopped.
"""

import logging
import math
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from trainable.config import RunSettings, TrialConfig
from trainable.data import LabelledImages, TrainingData
from trainable.errors import RequestError
from trainable.frozen.reference import (
    EVALUATION_BATCH,
    Batches,
    FeatureSource,
    Plain,
    Work,
    autocast,
)
from trainable.frozen.shared import FromStore, Shared
from trainable.hardware.device import device_of
from trainable.metric import Metric, is_collapsed, is_right, measure
from trainable.network.model import Backbone, TransferVGG16, build_model, multiply_adds
from trainable.records.files import now
from trainable.records.rows import Best, Outcome, Row, Status, is_better
from trainable.records.state import on_host, tensor_bytes
from trainable.records.trial_folder import TrialRecord
from trainable.schedule import derive_seed
from trainable.step import TrainingSteps

LOG = logging.getLogger(__name__)
# last.pt is written again after this many times its own writing time: at most 2 % of the total; assumed
WRITING_SHARE = 50
DISK_BYTES_PER_SECOND = 3e8  # assumed, for the first writing time; then it is measured


class Reached(NamedTuple):
    """How far a trial has come."""

    epoch: int
    collapsing: int
    """Consecutive epochs, up to this one, in which a single class was predicted."""
    best: Best | None


NOTHING: Final = Reached(0, 0, None)


def fit(
    config: TrialConfig,
    run: RunSettings,
    data: TrainingData,
    backbone: Backbone,
    record: TrialRecord | None = None,
    shared: Shared | None = None,
) -> Generator[Row, None, Outcome]:
    """Train one setting; yield a row per finished epoch, return how it ended.

    With `shared`, frozen features come from the node's store: the same numbers, sooner.

    With a `record`, continue from its last.pt, append each row, and write weights and state at the end; the caller
    writes the status. If the record has a `behind`, weights and state are left to it for writing, if memory allows.
    """
    torch.set_num_threads(run.threads)
    device = device_of(run.device)
    device.fix_kernels(run.tf32)
    building = time.monotonic()
    device.seed(derive_seed(config.seed, "initialisation"))
    model = build_model(config, backbone).to(device.torch)
    steps = TrainingSteps(config, run, model, data.training.labels)
    LOG.info("model and optimizer built in %.3f s", time.monotonic() - building)
    prefix = multiply_adds(run.width, run.image_size, 0, model.cut)
    images_seen = len(data.training) + len(data.validation)
    frozen: FeatureSource = Plain(config, run, data, model)
    if shared is not None:
        frozen = FromStore(Plain(config, run, data, model, shared.held_pixels), shared)
    tell = record.note if record is not None else lambda text: None
    positives = int(data.validation.labels.sum())
    classes = (len(data.validation) - positives, positives)

    epoch, collapsing, best = NOTHING if record is None else _resume(record, model, steps)
    saving = None if record is None else _Saving(record, data.validation, model, steps)
    collapse_epochs = run.collapse_epochs or math.inf
    outcome = Outcome(Status.FINISHED)

    try:
        while epoch < run.epochs and collapsing < collapse_epochs:
            epoch += 1
            started = time.monotonic()
            work = Work(tell=tell)
            device.forget_peak()

            # before the steps are queued: copies from the host are waited for, and training takes memory
            held = frozen.resident_validation(work)
            steps.epoch(frozen, epoch, work)
            batches = frozen.validation(work) if held is None else held.in_order(EVALUATION_BATCH)
            training, logits = steps.fetch(_logits(model, batches, run))
            if not math.isfinite(training.loss):
                outcome = _diverged("training", epoch)
                break
            validation = measure(logits, data.validation.labels)
            if not math.isfinite(validation.loss):
                outcome = _diverged("validation", epoch)
                break

            collapsing = collapsing + 1 if is_collapsed(validation, *classes) else 0
            seconds = time.monotonic() - started
            row = Row(
                epoch=epoch,
                train_loss=training.loss,
                train_accuracy=training.accuracy,
                val_loss=validation.loss,
                val_accuracy=validation.accuracy,
                val_balanced_accuracy=validation.balanced_accuracy,
                val_auc=validation.auc,
                lr=steps.rate(epoch),
                seconds=seconds,
                images_per_second=len(data.training) / seconds,
                gpu_memory_bytes=device.peak_bytes(),
                frozen_images=work.frozen_images,
                frozen_multiply_adds=work.frozen_multiply_adds,
                frozen_seconds=work.frozen_seconds,
                saved_multiply_adds=images_seen * prefix - work.frozen_multiply_adds,
                shared_images=work.shared_images,
                waited_seconds=work.waited_seconds,
                skipped_steps=training.skipped_steps,
                ended_at=now(),
                collapsed=collapsing >= collapse_epochs,
            )
            if best is None or is_better(run.metric, row, best.row):
                best = Best(row, model.trained_copy(best.weights if best else None), logits)
            if saving is not None:
                saving.append(row, logits)
                saving.save_where_due(Reached(epoch, collapsing, best))
            yield row
    finally:
        steps.close()  # also when out of memory: a step to be captured holds its input
    if collapsing >= collapse_epochs:
        first = epoch - collapsing + 1
        reason = f"one class predicted for every validation image in epochs {first} to {epoch}"
        outcome = Outcome(Status.COLLAPSED, reason)
    if saving is not None and best is not None:
        saving.end(outcome.status, Reached(epoch, collapsing, best), run.metric)
    return outcome


def _diverged(part: str, epoch: int) -> Outcome:
    return Outcome(Status.DIVERGED, f"the {part} loss is not finite in epoch {epoch}")


@torch.no_grad()
def _logits(model: TransferVGG16, batches: Batches, run: RunSettings) -> Tensor:
    """Logits (images,) on the device, without dropout, from batches of frozen features."""
    model.eval()
    found: list[Tensor] = []
    for _, hidden in batches:
        with autocast(run.precision, run.device):
            found.append(model.suffix(hidden))
    return torch.cat(found)


def predict(model: TransferVGG16, batches: Batches, run: RunSettings) -> Tensor:
    """The same as float32 on the CPU."""
    return _logits(model, batches, run).float().cpu()


class _Saving:
    """Writes a trial's records: its rows, its state from time to time, and at the end what is to be kept."""

    def __init__(
        self,
        record: TrialRecord,
        validation: LabelledImages,
        model: TransferVGG16,
        steps: TrainingSteps,
    ) -> None:
        self._record, self._validation, self._model, self._steps = record, validation, model, steps
        self._saved_at = time.monotonic()
        # first guess for last.pt and the best weights: four times the parameters (two moments, the best)
        parameters = sum(p.numel() for p in model.trained().values())
        self._writing_seconds = 4 * 4 * parameters / DISK_BYTES_PER_SECOND

    def append(self, row: Row, logits: Tensor) -> None:
        """Record a finished epoch, and which validation images it got right."""
        self._record.append(row, is_right(logits, self._validation.labels).numpy())

    def save_where_due(self, reached: Reached) -> None:
        """Write best epoch and state if the last time was long enough ago."""
        if time.monotonic() - self._saved_at <= WRITING_SHARE * self._writing_seconds:
            return
        if self._record.behind is not None:
            self._record.behind.wait()
        assert reached.best is not None
        self._writing_seconds = self._save(reached.best, self._state(reached))
        self._saved_at = time.monotonic()

    def end(self, status: Status, reached: Reached, metric: Metric) -> None:
        """Write what is kept of a trial that ended with `status`, or leave it to be written behind the next one."""
        record, best = self._record, reached.best
        assert best is not None
        if status is Status.DIVERGED:
            # the state is worthless, but the best epoch before it may not be
            self._save_best(best)
        elif not record.is_wanted(best.row, metric):
            self._save_best(best, weights=False)
            record.forget_weights()
            record.forget_best_but(best.row.epoch)
        else:
            self._save_or_leave(best, reached, status)

    def _save_or_leave(self, best: Best, reached: Reached, status: Status) -> None:
        behind = self._record.behind
        if behind is not None:
            behind.wait()
        state = self._state(reached)
        if (
            behind is not None
            and status
            is Status.FINISHED  # a collapsed trial leaves the rungs: it must be on record at once
            and behind.has_room(tensor_bytes((best.weights, state)))
        ):
            # on a GPU, the next trial needs the memory that this takes
            best = replace(best, weights=on_host(best.weights))
            behind.leave(partial(self._save, best, on_host(state)))
        else:
            self._save(best, state)

    def _state(self, reached: Reached) -> dict[str, Any]:
        """What a trial continues from, in the tensors that it trains with."""
        assert reached.best is not None
        return {
            "trial_id": self._record.trial_id,
            "epoch": reached.epoch,
            "collapsing": reached.collapsing,
            "best_epoch": reached.best.row.epoch,
            "trained": {name: p.detach() for name, p in self._model.trained().items()},
            **self._steps.state(reached.epoch),
        }

    def _save(self, best: Best, state: dict[str, Any]) -> float:
        """Write the best epoch, then the state that refers to it; returns the seconds taken."""
        started = time.monotonic()
        self._save_best(best)
        self._record.save_last(state, best.row.epoch)
        seconds = time.monotonic() - started
        self._record.say(f"weights and state written in {seconds:.3f} s")
        return seconds

    def _save_best(self, best: Best, weights: bool = True) -> None:
        self._record.save_best(best, self._validation.files, self._validation.labels, weights)


def _resume(record: TrialRecord, model: TransferVGG16, steps: TrainingSteps) -> Reached:
    """Where to continue from; rows that no state covers are cut, and their epochs repeated."""
    record.forget_unfinished()
    state, rows = record.load_last(), record.rows()
    if state is not None:
        try:
            if len(rows) < state["epoch"]:
                raise RequestError(
                    f"its state is from epoch {state['epoch']}, but only {len(rows)} epochs are on record"
                )
            best = record.load_best(rows[state["best_epoch"] - 1])
            model.set_trained(state["trained"])
            best = replace(best, weights=model.beside_trained(best.weights))
        except RequestError as error:
            LOG.warning("trial %s starts again: %s", record.trial_id, error)
        else:
            steps.load(state)
            _repeat_after(record, state["epoch"], state["best_epoch"])
            LOG.info("trial %s continues after epoch %d", record.trial_id, state["epoch"])
            return Reached(state["epoch"], state["collapsing"], best)
    _repeat_after(record, 0, None)
    return NOTHING


def _repeat_after(record: TrialRecord, epoch: int, best_epoch: int | None) -> None:
    """Drop what was written after `epoch`, since it will be repeated."""
    record.forget_best_but(best_epoch)
    if cut := record.cut(epoch):
        LOG.info(
            "trial %s repeats epochs %d to %d, which no kept state covers",
            record.trial_id,
            cut[0].epoch,
            cut[-1].epoch,
        )
