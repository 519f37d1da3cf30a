"""What augmentation does: the view of an image that an epoch sees, a function of (augmentation seed, epoch, image).

No generator is involved, so a view is the same with any number of workers, batch size or trial.
"""

import hashlib
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from trainable.config import Augmentation

MEAN: Final = (0.485, 0.456, 0.406)  # of ImageNet's training set, as IMAGENET1K_V1 expects
STD: Final = (0.229, 0.224, 0.225)
JITTER: Final = 0.2  # brightness, contrast and saturation of the first reference report
_ADJUST: Final = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
)
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

    With a `pool`, jittered views come from so many, over and over: epoch 1 sees what epoch 1 + pool sees.
    As in torchvision's ColorJitter, factors are uniform in 1 ± 0.2 and the order is drawn too.
    """
    if augmentation == "none":
        return ORIGINAL
    if pool is not None and augmentation == "flip_jitter":
        epoch = (epoch - 1) % pool + 1
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


def look(pixels: Tensor, seen: View) -> Tensor:
    """`pixels` (3, height, width) uint8 as `seen`; the original view is the tensor itself."""
    if seen.mirrored:
        pixels = functional.horizontal_flip(pixels)
    for which, factor in seen.jitter:
        pixels = _ADJUST[which](pixels, factor)
    return pixels


def normalise(pixels: Tensor) -> Tensor:
    """`pixels` (batch, 3, height, width) uint8 as float32 with ImageNet's mean and standard deviation.

    Channels lie last in memory: on a CPU, VGG-16's frozen layers take 0.6 to 0.8 of the time then (docs/log.md).
    """
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1)
    images = pixels.to(torch.float32, memory_format=torch.channels_last)
    return (images / 255 - mean) / std
