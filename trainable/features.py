"""What the frozen layers give for the images of an epoch, computed each time: the reference path.

trainable/shared.py gives the same numbers, bit by bit on a CPU (docs/sharing.md); tests hold one against the other.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor

from trainable.config import RunSettings, TrialConfig
from trainable.data import LabelledImages, TrainingData
from trainable.model import TransferVGG16, multiply_adds
from trainable.views import ORIGINAL, View, normalise, view

EVALUATION_BATCH: Final = 64  # images; fixed, so that a figure does not depend on the trial

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Held:
    """Features of a part as they lie in the device's memory for one epoch."""

    table: Tensor  # (features, side, side, channels): of every image of the part, in one view or several
    rows: Tensor  # (images,) int64: where in `table` each image's are, in the part's order

    def at(self, positions: Tensor) -> Tensor:
        """Features (batch, channels, side, side), channels last in memory, of the images at `positions` (batch,)."""
        return self.table[self.rows[positions]].permute(0, 3, 1, 2)

    def in_order(self, size: int) -> Batches:
        """Batches of `size` images in the part's order."""
        for positions in torch.arange(len(self.rows), device=self.rows.device).split(size):
            yield positions, self.at(positions)


@dataclass
class Work:
    """What an epoch took from the frozen layers."""

    frozen_images: int = 0
    """Images sent through frozen layers, from pixels or from where a stored cut left them."""
    frozen_multiply_adds: int = 0
    frozen_seconds: float = 0.0
    shared_images: int = 0
    """Images whose features were read instead."""
    waited_seconds: float = 0.0
    """For chunks that other trials were computing."""


class Frozen(Protocol):
    """Frozen features for a trial; `work` counts what was done since it was last replaced."""

    work: Work

    def training(self, epoch: int, order: Sequence[int]) -> Batches:
        """Positions (batch,) and features (batch, channels, side, side) on the device, in `order`, as `epoch` sees."""

    def validation(self) -> Batches:
        """The same for every validation image in order, of the original view."""

    def held_training(self, epoch: int) -> Held | None:
        """What `training` gives, where all of it lies in the device's memory."""

    def held_validation(self) -> Held | None:
        """What `validation` gives, likewise."""


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Mixed precision where it is asked for."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=getattr(torch, precision))


@dataclass
class Plain:
    """The reference: the frozen prefix runs for every batch of every epoch."""

    config: TrialConfig
    run: RunSettings
    data: TrainingData
    model: TransferVGG16
    work: Work = field(default_factory=Work)

    def training(self, epoch: int, order: Sequence[int]) -> Batches:
        return plain_batches(
            self.model,
            self.run,
            self.data.training,
            order,
            self.config.batch_size,
            lambda file: seen_by(self.config, epoch, file),
            self.work,
        )

    def validation(self) -> Batches:
        return evaluation_batches(self.model, self.run, self.data.validation, self.work)

    def held_training(self, epoch: int) -> None:
        """Nothing is held."""

    def held_validation(self) -> None:
        """Nothing is held."""


def plain_batches(
    model: TransferVGG16,
    run: RunSettings,
    images: LabelledImages,
    order: Sequence[int],
    size: int,
    see: Callable[[str], View],
    work: Work,
) -> Batches:
    """Features of `images` in `order`, each seen as `see` says, straight from the frozen prefix."""
    each = multiply_adds(run.width, run.image_size, 0, model.cut)
    for positions, pixels in images.batches(order, size, see, run.workers):
        began = time.monotonic()
        with autocast(run.precision, run.device):
            hidden = model.prefix(normalise(pixels.to(run.device)))
        if model.cut:
            work.frozen_images += len(positions)
            work.frozen_multiply_adds += len(positions) * each
            work.frozen_seconds += time.monotonic() - began
            if run.store_format == "float16":
                hidden = hidden.half().float()
        yield positions, hidden


def evaluation_batches(
    model: TransferVGG16, run: RunSettings, images: LabelledImages, work: Work | None = None
) -> Batches:
    """Features of every image in order, of the original view."""
    return plain_batches(
        model,
        run,
        images,
        range(len(images)),
        EVALUATION_BATCH,
        lambda file: ORIGINAL,
        work or Work(),
    )


def seen_by(config: TrialConfig, epoch: int, file: str) -> View:
    """How a trial sees an image in an epoch."""
    return view(config.augmentation, config.augmentation_seed, epoch, file, config.views)
