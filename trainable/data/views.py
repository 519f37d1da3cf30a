"""Augmentation: the view of an image that an epoch sees, a function of (augmentation seed, epoch, image).

No random generator is involved, so a view is the same for any number of workers, batch size or trial.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Final

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from trainable.config import Augmentation

MEAN: Final = (0.485, 0.456, 0.406)  # of ImageNet's training set, as IMAGENET1K_V1 expects
STD: Final = (0.229, 0.224, 0.225)  # likewise
JITTER: Final = 0.2  # brightness, contrast and saturation of the first reference report
_ADJUST: Final = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
)
# shares in the grey of an image, as in torchvision, in float32
RED, GREEN, BLUE = torch.tensor([0.2989, 0.587, 0.114]).tolist()
_ORDERS: Final = tuple(permutations(range(3)))


@dataclass(frozen=True)
class View:
    """One way to look at an image: mirrored or not, and its colours jittered or not."""

    mirrored: bool = False
    jitter: tuple[tuple[int, float], ...] = ()
    """(0 brightness | 1 contrast | 2 saturation, factor), in the order in which they are applied."""


ORIGINAL: Final = View()


def view(
    augmentation: Augmentation, seed: int, epoch: int, file: str, pool: int | None = None
) -> View:
    """The view of image `file` that `epoch` sees; `flip` and `flip_jitter` mirror the same images.

    With a `pool`, jittered views repeat after this many epochs: epoch 1 + pool sees what epoch 1 sees.
    As in torchvision's ColorJitter, factors are uniform in 1 ± 0.2, and the order is drawn too.
    """
    if augmentation == "none":
        return ORIGINAL
    if augmentation == "flip_jitter":
        epoch = drawn_epoch(epoch, pool)
    digest = hashlib.blake2b(f"{seed}/{epoch}/{file}".encode(), digest_size=32).digest()
    mirror, order, *factors = (
        int.from_bytes(digest[start : start + 4], "big") / 2**32 for start in range(0, 20, 4)
    )
    if augmentation == "flip":
        return View(mirrored=mirror < 0.5)
    return View(
        mirrored=mirror < 0.5,
        jitter=tuple(
            (which, 1 - JITTER + 2 * JITTER * factors[which])
            for which in _ORDERS[int(order * len(_ORDERS))]
        ),
    )


def drawn_epoch(epoch: int, pool: int | None) -> int:
    """The epoch whose jittered views `epoch` sees."""
    return epoch if pool is None else (epoch - 1) % pool + 1


def look(pixels: Tensor, seen: View) -> Tensor:
    """`pixels` (3, height, width) uint8 in the view `seen`; the original view is the tensor itself."""
    if seen.mirrored:
        pixels = functional.horizontal_flip(pixels)
    for which, factor in seen.jitter:
        pixels = _ADJUST[which](pixels, factor)
    return pixels


@dataclass(frozen=True)
class Draws:
    """The views of some images as tensors, from which a device makes all of them at once."""

    mirrored: Tensor  # (images,) bool
    adjusted: Tensor  # (images, 3) int64: 0 brightness, 1 contrast, 2 saturation, in the order of each image
    factors: Tensor  # (images, 3) float32: the factor of each of these
    rests: Tensor  # (images, 3) float32: 1 - factor, rounded after it is subtracted, as torchvision does

    def to(self, device: torch.device) -> "Draws":
        """The same on `device`."""
        return Draws(*(each.to(device) for each in self._all()))

    def between(self, start: int, stop: int) -> "Draws":
        """Those of consecutive images."""
        return Draws(*(each[start:stop] for each in self._all()))

    def _all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.mirrored, self.adjusted, self.factors, self.rests


def draws(views: Sequence[View]) -> Draws:
    """`views` as tensors; an image without jitter gets a brightness factor of 1, which changes nothing."""
    idle = ((0, 1.0),) * len(_ADJUST)
    steps = [seen.jitter or idle for seen in views]
    factors = torch.tensor([[factor for _, factor in each] for each in steps], dtype=torch.float64)
    return Draws(
        torch.tensor([seen.mirrored for seen in views]),
        torch.tensor([[which for which, _ in each] for each in steps]),
        factors.float(),
        (1 - factors).float(),
    )


def look_all(pixels: Tensor, seen: Draws) -> Tensor:
    """`pixels` (batch, 3, height, width) uint8 on any device, each image as `seen`: `look` for a whole batch.

    Each adjustment blends an image with another: black, its mean grey or its own grey. Each operation rounds itself,
    and the mean comes from an integer sum, so nothing depends on what a device fuses or reorders: an image is the same
    in any batch, and on a GPU as on a CPU. `look` fuses on CPUs that can, which `_multiply_add` imitates.
    """
    made = torch.where(_each(seen.mirrored), pixels.flip(3), pixels)
    for step in range(seen.factors.shape[1]):
        which = _each(seen.adjusted[:, step])
        red, green, blue = made.unbind(1)
        grey = _multiply_add(_multiply_add(red * RED, green, GREEN), blue, BLUE).floor_()[:, None]
        sums = grey.sum(dim=(1, 2, 3), dtype=torch.int64)  # float32 counts to 2^24: 256 px of white
        mean = _each((sums.double() / grey[0].numel()).float())
        other = torch.where(which == 2, grey, mean).masked_fill_(which == 0, 0.0)
        blended = _multiply_add(
            made * _each(seen.factors[:, step]), other, _each(seen.rests[:, step]).double()
        )
        made = blended.clamp_(0, 255).to(torch.uint8)
    return made


def _multiply_add(first: Tensor, second: Tensor, factor: Tensor | float) -> Tensor:
    """`first` + `second` x `factor` of float32 numbers, rounded once, since both are exact in float64."""
    return (first + second.double() * factor).float()


def _each(values: Tensor) -> Tensor:
    """(batch,) broadcast to (batch, channels, height, width)."""
    return values[:, None, None, None]


def normalise(pixels: Tensor) -> Tensor:
    """`pixels` (batch, 3, height, width) uint8 as float32 with ImageNet's mean and standard deviation.

    Channels are last in memory: on a CPU, VGG-16's frozen layers then take 0.6 to 0.8 of the time (docs/log.md).
    """
    mean, std = statistics(pixels.device)
    images = pixels.to(torch.float32, memory_format=torch.channels_last)
    return (images / 255 - mean) / std


@cache
def statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, 3, 1, 1) on `device`, copied there only once, since a copy is waited for."""
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std
