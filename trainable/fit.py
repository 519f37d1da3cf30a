"""The training loop: straight code, a generator of one row per epoch; ends by itself on divergence or collapse.

Every draw is a pure function of a seed and a place, so a trial resumed at an epoch equals one that never stopped.
"""

import hashlib
import logging
import math
import time
from collections.abc import Generator

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from trainable.config import RequestError, RunSettings, TrialConfig
from trainable.data import TrainingData
from trainable.device import device_of
from trainable.features import EVALUATION_BATCH, Batches, Frozen, Plain, Work, autocast
from trainable.files import now
from trainable.metric import is_collapsed, measure
from trainable.model import (
    Backbone,
    TransferVGG16,
    build_model,
    make_optimizer,
    multiply_adds,
)
from trainable.record import TrialRecord
from trainable.rows import Best, Outcome, Row, Status, is_better
from trainable.shared import FromStore, Shared

LOG = logging.getLogger(__name__)
# last.pt is written again once this many times its own writing time has passed: at most 2 %
WRITING_SHARE = 50
DISK_BYTES_PER_SECOND = 3e8  # a guess for the first writing time, replaced by measurement


def derive_seed(*place: int | str) -> int:
    """A seed for torch as a pure function of a place such as (trial seed, epoch, "order")."""
    digest = hashlib.blake2b("/".join(map(str, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def lr_factor(config: TrialConfig, epochs_done: float) -> float:
    """What the base learning rate is multiplied by after `epochs_done` epochs (a fraction counts steps).

    Warm-up is linear; the cosine (Loshchilov and Hutter 2017, without restarts) falls to 1 % and stays there.
    """
    warmup = min(1.0, epochs_done / config.warmup_epochs) if config.warmup_epochs else 1.0
    if config.schedule == "constant":
        return warmup
    assert config.schedule_epochs is not None
    span = max(config.schedule_epochs - config.warmup_epochs, 1e-9)
    progress = min(max((epochs_done - config.warmup_epochs) / span, 0.0), 1.0)
    return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


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

    With a `record`, go on from its last.pt, append each row, and write weights and state at the end; the status is
    written by whoever runs it.
    """
    torch.set_num_threads(run.threads)
    machine = device_of(run.device)
    device = machine.torch
    building = time.monotonic()
    torch.manual_seed(derive_seed(config.seed, "initialisation"))
    model = build_model(config, backbone).to(device)
    optimizer = make_optimizer(config, model)
    LOG.info("model and optimizer built in %.3f s", time.monotonic() - building)
    prefix = multiply_adds(run.width, run.image_size, 0, model.cut)
    images_seen = len(data.training) + len(data.validation)
    plain = Plain(config, run, data, model)
    frozen: Frozen = FromStore(plain, shared) if shared else plain
    weights = _class_weights(config, data.training.labels).to(device)
    positives = int(data.validation.labels.sum())
    classes = (len(data.validation) - positives, positives)

    epoch, collapsing, best = 0, 0, None
    if shared is not None and record is not None:
        shared.tell = record.note
    if record is not None:
        epoch, collapsing, best = _resume(record, model, optimizer)
    saved_at, writing_seconds = time.monotonic(), _first_guess(model)
    collapse_epochs = run.collapse_epochs or math.inf
    outcome = Outcome(Status.FINISHED)

    while epoch < run.epochs and collapsing < collapse_epochs:
        epoch += 1
        started = time.monotonic()
        frozen.work = work = Work()
        machine.forget_peak()

        train_loss, train_accuracy = _train(
            config, run, model, optimizer, frozen, data.training.labels, weights, epoch
        )
        if not math.isfinite(train_loss):
            outcome = Outcome(Status.DIVERGED, f"the training loss is not finite in epoch {epoch}")
            break
        held = frozen.held_validation()
        logits = predict(
            model, frozen.validation() if held is None else held.in_order(EVALUATION_BATCH), run
        )
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
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            val_balanced_accuracy=validation.balanced_accuracy,
            val_auc=validation.auc,
            lr=optimizer.param_groups[0]["lr"],
            seconds=seconds,
            images_per_second=len(data.training) / seconds,
            gpu_memory_bytes=machine.peak_bytes(),
            frozen_images=work.frozen_images,
            frozen_multiply_adds=work.frozen_multiply_adds,
            frozen_seconds=work.frozen_seconds,
            saved_multiply_adds=images_seen * prefix - work.frozen_multiply_adds,
            shared_images=work.shared_images,
            waited_seconds=work.waited_seconds,
            ended_at=now(),
            collapsed=collapsing >= collapse_epochs,
        )
        if best is None or is_better(run.metric, row, best.row):
            best = Best(row, model.trained_copy(best.weights if best else None), logits)
        if record is not None:
            record.append(row)
            if time.monotonic() - saved_at > WRITING_SHARE * writing_seconds:
                writing_seconds = _save(record, data, model, optimizer, epoch, collapsing, best)
                saved_at = time.monotonic()
        yield row

    if collapsing >= collapse_epochs:
        outcome = Outcome(
            Status.COLLAPSED,
            f"one class predicted for every validation image in epochs {epoch - collapsing + 1} to {epoch}",
        )
    if record is not None and best is not None:
        if (
            outcome.status is Status.DIVERGED
        ):  # the state is worth nothing; the best epoch before it may be
            record.save_best(best, data.validation.files, data.validation.labels)
        elif record.is_wanted(best.row, run.metric):
            _save(record, data, model, optimizer, epoch, collapsing, best)
        else:
            record.save_best(best, data.validation.files, data.validation.labels, weights=False)
            record.forget_weights()
    return outcome


def _train(
    config: TrialConfig,
    run: RunSettings,
    model: TransferVGG16,
    optimizer: torch.optim.Optimizer,
    frozen: Frozen,
    all_labels: Tensor,
    weights: Tensor,
    epoch: int,
) -> tuple[float, float]:
    """One epoch; mean loss (class-weighted where asked) and accuracy over its images, as seen while training."""
    device = weights.device
    order = torch.randperm(
        len(all_labels),
        generator=torch.Generator().manual_seed(derive_seed(config.seed, epoch, "order")),
    )
    torch.manual_seed(derive_seed(config.seed, epoch, "dropout"))
    steps = math.ceil(len(all_labels) / config.batch_size)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    model.train()
    held = frozen.held_training(epoch)
    batches = (
        frozen.training(epoch, order.tolist())
        if held is None
        else ((p, held.at(p.to(device))) for p in order.split(config.batch_size))
    )
    for step, (positions, hidden) in enumerate(batches):
        labels = all_labels[positions].to(device)
        factor = lr_factor(config, epoch - 1 + (step + 1) / steps)
        for group in optimizer.param_groups:
            ratio = config.backbone_lr_ratio if group["name"] == "features" else 1.0
            group["lr"] = config.lr * ratio * factor
        with autocast(run.precision, run.device):
            logits = model.suffix(hidden)
        losses = binary_cross_entropy_with_logits(
            logits.float(), labels, weight=weights[labels.long()], reduction="none"
        )
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimizer.step()
        loss_sum += losses.detach().sum()
        correct += ((logits > 0) == (labels > 0.5)).sum()
    return loss_sum.item() / len(all_labels), correct.item() / len(all_labels)


@torch.no_grad()
def predict(model: TransferVGG16, batches: Batches, run: RunSettings) -> Tensor:
    """Logits (images,) float32 on the CPU, without dropout, from batches of frozen features."""
    model.eval()
    found: list[Tensor] = []
    for _, hidden in batches:
        with autocast(run.precision, run.device):
            found.append(model.suffix(hidden))
    return torch.cat(found).float().cpu()


def _class_weights(config: TrialConfig, labels: Tensor) -> Tensor:
    """Weight of label 0 and of label 1."""
    if config.class_weight == "none":
        return torch.ones(2)
    positive = labels.sum()
    counts = torch.stack([len(labels) - positive, positive])
    return len(labels) / (2 * counts)


def _first_guess(model: TransferVGG16) -> float:
    """Seconds to write last.pt and the best weights: parameters four times over (two moments, the best)."""
    parameters = sum(p.numel() for p in model.trained().values())
    return 4 * 4 * parameters / DISK_BYTES_PER_SECOND


def _save(
    record: TrialRecord,
    data: TrainingData,
    model: TransferVGG16,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    collapsing: int,
    best: Best,
) -> float:
    """Write the best epoch, then the state that refers to it; the seconds that took."""
    started = time.monotonic()
    record.save_best(best, data.validation.files, data.validation.labels)
    state = {
        "trial_id": record.trial_id,
        "epoch": epoch,
        "collapsing": collapsing,
        "best_epoch": best.row.epoch,
        "trained": {name: p.detach().cpu() for name, p in model.trained().items()},
        "optimizer": optimizer.state_dict(),
    }
    record.save_last(state, best.row.epoch)
    seconds = time.monotonic() - started
    LOG.info("weights and state written in %.3f s", seconds)
    return seconds


def _resume(
    record: TrialRecord, model: TransferVGG16, optimizer: torch.optim.Optimizer
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
        except RequestError as error:
            LOG.warning("trial %s starts again: %s", record.trial_id, error)
        else:
            optimizer.load_state_dict(state["optimizer"])
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
