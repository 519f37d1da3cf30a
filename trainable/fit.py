"""The training loop: straight code, a generator of one row per epoch; ends by itself on divergence or collapse.

Every draw is a pure function of a seed and a place, so a trial resumed at an epoch equals one that never stopped.
"""

import logging
import math
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trainable.behind import Behind
from trainable.config import RunSettings, TrialConfig
from trainable.data import TrainingData
from trainable.errors import RequestError
from trainable.frozen.reference import EVALUATION_BATCH, Batches, Frozen, Plain, Work, autocast
from trainable.frozen.shared import FromStore, Shared
from trainable.hardware.device import device_of
from trainable.metric import is_collapsed, measure
from trainable.network.model import Backbone, TransferVGG16, build_model, multiply_adds
from trainable.records.files import now
from trainable.records.rows import Best, Outcome, Row, Status, is_better
from trainable.records.state import on_host, tensor_bytes
from trainable.records.trial_folder import TrialRecord
from trainable.schedule import derive_seed
from trainable.step import Steps

LOG = logging.getLogger(__name__)
# last.pt is written again once this many times its own writing time has passed: at most 2 %
WRITING_SHARE = 50
DISK_BYTES_PER_SECOND = 3e8  # a guess for the first writing time, replaced by measurement


def fit(
    config: TrialConfig,
    run: RunSettings,
    data: TrainingData,
    backbone: Backbone,
    record: TrialRecord | None = None,
    shared: Shared | None = None,
    behind: Behind | None = None,
) -> Generator[Row, None, Outcome]:
    """Train one setting; yield a row per finished epoch, return how it ended.

    With `shared`, frozen features come from the node's store: the same numbers, sooner.

    With a `record`, go on from its last.pt, append each row, and write weights and state at the end; the status is
    written by whoever runs it. With `behind`, too, what is to be written at the end is left there where memory allows.
    """
    torch.set_num_threads(run.threads)
    device = device_of(run.device)
    device.fix_kernels(run.tf32)
    building = time.monotonic()
    torch.manual_seed(derive_seed(config.seed, "initialisation"))
    model = build_model(config, backbone).to(device.torch)
    steps = Steps(config, run, model, data.training.labels)
    LOG.info("model and optimizer built in %.3f s", time.monotonic() - building)
    prefix = multiply_adds(run.width, run.image_size, 0, model.cut)
    images_seen = len(data.training) + len(data.validation)
    frozen: Frozen = Plain(config, run, data, model)
    if shared is not None:
        frozen = FromStore(Plain(config, run, data, model, shared.held_pixels), shared)
    tell = record.note if record is not None else lambda text: None
    positives = int(data.validation.labels.sum())
    classes = (len(data.validation) - positives, positives)

    epoch, collapsing, best = 0, 0, None
    if record is not None:
        epoch, collapsing, best = _resume(record, model, steps)
    saved_at, writing_seconds = time.monotonic(), _first_guess(model)
    collapse_epochs = run.collapse_epochs or math.inf
    outcome = Outcome(Status.FINISHED)

    try:
        while epoch < run.epochs and collapsing < collapse_epochs:
            epoch += 1
            started = time.monotonic()
            work = Work(tell=tell)
            device.forget_peak()

            # held before the steps are queued: what comes from the host is waited for, and training takes memory
            held = frozen.held_validation(work)
            steps.epoch(frozen, epoch, work)
            batches = frozen.validation(work) if held is None else held.in_order(EVALUATION_BATCH)
            training, logits = steps.fetch(_logits(model, batches, run))
            if not math.isfinite(training.loss):
                outcome = Outcome(
                    Status.DIVERGED, f"the training loss is not finite in epoch {epoch}"
                )
                break
            validation = measure(logits, data.validation.labels)
            if not math.isfinite(validation.loss):
                outcome = Outcome(
                    Status.DIVERGED, f"the validation loss is not finite in epoch {epoch}"
                )
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
            if record is not None:
                right = (logits > 0) == (data.validation.labels > 0.5)
                record.append(row, right.numpy())
                if time.monotonic() - saved_at > WRITING_SHARE * writing_seconds:
                    if behind is not None:
                        behind.wait()
                    state = _state(record, model, steps, epoch, collapsing, best)
                    writing_seconds = _save(record, data, best, state)
                    saved_at = time.monotonic()
            yield row
    finally:
        steps.close()  # also where memory ran out: a step that waits to be captured holds what it reads
    if collapsing >= collapse_epochs:
        outcome = Outcome(
            Status.COLLAPSED,
            f"one class predicted for every validation image in epochs {epoch - collapsing + 1} to {epoch}",
        )
    if record is not None and best is not None:
        if outcome.status is Status.DIVERGED:
            # the state is worth nothing; the best epoch before it may be
            record.save_best(best, data.validation.files, data.validation.labels)
        elif record.is_wanted(best.row, run.metric):
            if behind is not None:
                behind.wait()
            state = _state(record, model, steps, epoch, collapsing, best)
            if (
                behind is not None
                and outcome.status
                is Status.FINISHED  # what leaves the rungs must be on record then
                and behind.has_room(tensor_bytes((best.weights, state)))
            ):
                # on a GPU the next trial needs the memory in which all this lies
                best = replace(best, weights=on_host(best.weights))
                behind.leave(partial(_save, record, data, best, on_host(state)))
            else:
                _save(record, data, best, state)
        else:
            record.save_best(best, data.validation.files, data.validation.labels, weights=False)
            record.forget_weights()
            record.forget_best_but(best.row.epoch)
    return outcome


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


def _first_guess(model: TransferVGG16) -> float:
    """Seconds to write last.pt and the best weights: parameters four times over (two moments, the best)."""
    parameters = sum(p.numel() for p in model.trained().values())
    return 4 * 4 * parameters / DISK_BYTES_PER_SECOND


def _state(
    record: TrialRecord,
    model: TransferVGG16,
    steps: Steps,
    epoch: int,
    collapsing: int,
    best: Best,
) -> dict[str, Any]:
    """What a trial goes on from after `epoch`, in the tensors that it trains with."""
    return {
        "trial_id": record.trial_id,
        "epoch": epoch,
        "collapsing": collapsing,
        "best_epoch": best.row.epoch,
        "trained": {name: p.detach() for name, p in model.trained().items()},
        **steps.state(epoch),
    }


def _save(record: TrialRecord, data: TrainingData, best: Best, state: dict[str, Any]) -> float:
    """Write the best epoch, then the state that refers to it; the seconds that took."""
    started = time.monotonic()
    record.save_best(best, data.validation.files, data.validation.labels)
    record.save_last(state, best.row.epoch)
    seconds = time.monotonic() - started
    record.say(f"weights and state written in {seconds:.3f} s")
    return seconds


def _resume(
    record: TrialRecord, model: TransferVGG16, steps: Steps
) -> tuple[int, int, Best | None]:
    """Epoch, collapsing epochs and best epoch to go on from; rows that no state covers are cut and repeated."""
    record.forget_unfinished()
    state, rows = record.load_last(), record.rows()
    if state is not None:
        try:
            if len(rows) < state["epoch"]:
                raise RequestError(
                    f"its state is of epoch {state['epoch']}, but {len(rows)} epochs are on record"
                )
            best = record.load_best(rows[state["best_epoch"] - 1])
            model.set_trained(state["trained"])
            best = replace(best, weights=model.beside_trained(best.weights))
        except RequestError as error:
            LOG.warning("trial %s starts again: %s", record.trial_id, error)
        else:
            steps.load(state)
            _repeat_after(record, state["epoch"], state["best_epoch"])
            LOG.info("trial %s goes on after epoch %d", record.trial_id, state["epoch"])
            return state["epoch"], state["collapsing"], best
    _repeat_after(record, 0, None)
    return 0, 0, None


def _repeat_after(record: TrialRecord, epoch: int, best_epoch: int | None) -> None:
    """Drop what was written after `epoch`, since it comes again."""
    record.forget_best_but(best_epoch)
    if cut := record.cut(epoch):
        LOG.info(
            "trial %s repeats epochs %d to %d, which no kept state covers",
            record.trial_id,
            cut[0].epoch,
            cut[-1].epoch,
        )
