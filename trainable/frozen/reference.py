"""The reference path: frozen features of an epoch's images, computed each time.

shared.py gives the same numbers, bit for bit on a CPU (docs/explanation/sharing.md); tests compare the two.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from trainable.config import RunSettings, TrialConfig
from trainable.data import LabelledImages, TrainingData
from trainable.data.views import ORIGINAL, View, draws, look_all, normalise, view
from trainable.hardware.device import device_of
from trainable.network.model import TransferVGG16, multiply_adds

EVALUATION_BATCH: Final = 64
"""Images; fixed, so that results do not depend on the trial; the number is assumed."""

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ResidentFeatures:
    """Features of a part in the device's memory, for one epoch."""

    table: Tensor  # (features, side, side, channels): every image of the part, in one or more views
    rows: Tensor  # (images,) int64: the row of each image in `table`, in the part's order
    rounded: bool = False
    """The table is float16 only to save memory (`is_rounded`); what is read from it is float32."""

    def at(self, positions: Tensor) -> Tensor:
        """Features (batch, channels, side, side), channels last in memory, of the images at `positions` (batch,)."""
        return as_features(self.table[self.rows[positions]], self.rounded)

    def in_order(self, size: int) -> Batches:
        """Batches of `size` images in the part's order."""
        for positions in torch.arange(len(self.rows), device=self.rows.device).split(size):
            yield positions, self.at(positions)


@dataclass
class Work:
    """What the frozen layers cost in an epoch."""

    frozen_images: int = 0
    """Images sent through frozen layers, from pixels or from a stored cut."""
    frozen_multiply_adds: int = 0
    frozen_seconds: float = 0.0
    shared_images: int = 0
    """Images whose features were read, also just after they were computed and kept."""
    waited_seconds: float = 0.0
    """Waiting for chunks that other trials were computing."""
    tell: Callable[[str], None] = lambda text: None
    """Called from time to time with the progress of a long filling, and with "" when it is over."""


class FeatureSource(Protocol):
    """Frozen features for a trial; their cost is counted in `work`."""

    def training(self, epoch: int, order: Sequence[int], work: Work) -> Batches:
        """Positions (batch,) and features (batch, channels, side, side) on the device, in `order`, for `epoch`."""

    def validation(self, work: Work) -> Batches:
        """The same for every validation image in order, in the original view."""

    def resident_training(self, epoch: int, work: Work) -> ResidentFeatures | None:
        """What `training` gives, if all of it is in the device's memory."""

    def resident_validation(self, work: Work) -> ResidentFeatures | None:
        """What `validation` gives, if all of it is in the device's memory."""


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Mixed precision if configured."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=getattr(torch, precision))


def is_rounded(run: RunSettings) -> bool:
    """Are features rounded to float16 and widened again? Not if the layers already compute in float16."""
    return run.store_format == "float16" and run.precision != "float16"


def row_format(run: RunSettings) -> torch.dtype:
    """Number format in which features are kept."""
    return torch.float16 if is_rounded(run) else getattr(torch, run.precision)


def as_features(rows: Tensor, rounded: bool) -> Tensor:
    """Rows (batch, side, side, channels) as features (batch, channels, side, side), channels last in memory."""
    return (rows.float() if rounded else rows).permute(0, 3, 1, 2)


@dataclass
class Plain:
    """The reference: the frozen prefix runs for every batch of every epoch."""

    config: TrialConfig
    run: RunSettings
    data: TrainingData
    model: TransferVGG16
    held_pixels: Callable[[LabelledImages], Tensor | None] = lambda images: None
    """(images, 3, size, size) uint8 of a part, if they are in the device's memory."""

    def training(self, epoch: int, order: Sequence[int], work: Work) -> Batches:
        asked = Pass(
            self.data.training,
            order,
            self.config.batch_size,
            lambda file: seen_by(self.config, epoch, file),
            self.held_pixels(self.data.training),
        )
        return plain_batches(self.model, self.run, asked, work)

    def validation(self, work: Work) -> Batches:
        images = self.data.validation
        return evaluation_batches(self.model, self.run, images, work, self.held_pixels(images))

    def resident_training(self, epoch: int, work: Work) -> None:
        """Nothing is held."""

    def resident_validation(self, work: Work) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Pass:
    """One pass over the images of a part."""

    images: LabelledImages
    order: Sequence[int]
    """Positions in `images`."""
    batch_size: int
    see: Callable[[str], View]
    """The view of an image, by its file."""
    held_pixels: Tensor | None = None
    """(images, 3, size, size) uint8 of the part, if they are in the device's memory."""


def plain_batches(model: TransferVGG16, run: RunSettings, asked: Pass, work: Work) -> Batches:
    """Features of the images of a pass, straight from the frozen prefix."""
    device_of(run.device).fix_kernels(run.tf32)
    each = multiply_adds(run.width, run.image_size, 0, model.cut)
    for positions, pixels in _seen_pixels(run, asked):
        began = time.monotonic()
        with autocast(run.precision, run.device):
            hidden = model.prefix(normalise(pixels))
        if model.cut:
            work.frozen_images += len(positions)
            work.frozen_multiply_adds += len(positions) * each
            work.frozen_seconds += time.monotonic() - began
            if is_rounded(run):
                hidden = hidden.half().float()
        yield positions, hidden


def _seen_pixels(run: RunSettings, asked: Pass) -> Batches:
    """Positions and pixels on the device, in their views."""
    device = device_of(run.device).torch
    images, order, size, held = asked.images, asked.order, asked.batch_size, asked.held_pixels
    if held is None and run.views_made_on == "host":
        for positions, pixels in images.batches(order, size, asked.see, run.workers):
            yield positions, pixels.to(device)
        return
    batches = (
        ((p, held[p.to(device)]) for p in torch.tensor(order).split(size))
        if held is not None
        else (
            (p, pixels.to(device)) for p, pixels in images.pixel_batches(order, size, run.workers)
        )
    )
    for positions, pixels in batches:
        seen = [asked.see(images.files[p]) for p in positions.tolist()]
        plain = all(each == ORIGINAL for each in seen)
        yield positions, pixels if plain else look_all(pixels, draws(seen).to(device))


def evaluation_batches(
    model: TransferVGG16,
    run: RunSettings,
    images: LabelledImages,
    work: Work | None = None,
    held_pixels: Tensor | None = None,
) -> Batches:
    """Features of every image in order, in the original view."""
    everything = Pass(
        images, range(len(images)), EVALUATION_BATCH, lambda file: ORIGINAL, held_pixels
    )
    return plain_batches(model, run, everything, work or Work())


def seen_by(config: TrialConfig, epoch: int, file: str) -> View:
    """The view in which a trial sees an image in an epoch."""
    return view(config.augmentation, config.augmentation_seed, epoch, file, config.views)
