"""Chunks of frozen features: which images and views make up one, its name, its size, and its key.

A chunk holds some images in a fixed order, each in one view; its name is the digest of their contents and views.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import PIL
import torch
import torchvision
from torch import nn

from trainable.config import Family, RunSettings
from trainable.data import LabelledImages
from trainable.data.views import ORIGINAL, Draws, View, draws
from trainable.frozen.store import Chunk
from trainable.hardware.device import device_of
from trainable.network.model import map_shapes

PIXELS: Final = 0  # the cut before all layers: decoded images are kept there
FILL_BATCH: Final = {"cpu": 8, "cuda": 128}  # images sent through frozen layers at a time; assumed
SMALLEST_CHUNK, LARGEST_CHUNK, CHUNKS = 8, 256, 16  # images; chunks of a part at least; assumed


@dataclass(frozen=True)
class Look:
    """One view of every image of a part: all original, all mirrored, or drawn by an epoch's jitter."""

    views: tuple[View, ...]
    family: Family
    """fixed, for views that recur in every epoch; epoch, for those of one epoch only."""
    drawn: tuple[int, int] | None = None
    """Augmentation seed and epoch of an epoch's own views."""

    @cached_property
    def is_original(self) -> bool:
        return all(view == ORIGINAL for view in self.views)

    @cached_property
    def draws(self) -> Draws:
        """What is needed to make these views on a device."""
        return draws(self.views)


def original(part: LabelledImages) -> Look:
    """Every image unchanged."""
    return Look((ORIGINAL,) * len(part), "fixed")


@dataclass(frozen=True)
class StoredTable:
    """Features of a part in one look on disk, chunk by chunk in the part's order."""

    chunks: tuple[Chunk, ...]
    size: int
    """Images per chunk, except the last."""

    def row(self, position: int) -> np.ndarray[Any, Any]:
        row: np.ndarray[Any, Any] = self.chunks[position // self.size].values[position % self.size]
        return row


def chunk_size(images: int) -> int:
    """Images in a chunk of a part: few enough that trials that start together find a chunk each."""
    return min(max(-(-images // CHUNKS), SMALLEST_CHUNK), LARGEST_CHUNK)


def chunk_positions(images: int) -> list[range]:
    """Positions of every chunk of a part."""
    size = chunk_size(images)
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


def chunk_name(part: LabelledImages, look: Look, positions: range) -> str:
    """Digest of the contents of the images at `positions`, in order, and of their views."""
    text = "".join(f"{part.digests[p]} {look.views[p]}\n" for p in positions)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def chunk_names(part: LabelledImages, look: Look) -> list[str]:
    """The names of all chunks of `part` in `look`."""
    return [chunk_name(part, look, positions) for positions in chunk_positions(len(part))]


def row_shape(layers: nn.Sequential, image_size: int, cut: int) -> tuple[int, int, int]:
    """Shape of one image's features before layer `cut`, as they are kept: (side, side, channels)."""
    side, channels = map_shapes(layers, image_size)[cut]
    return side, side, channels


def pixel_facts(run: RunSettings) -> dict[str, Any]:
    """Everything that changes decoded images, apart from the files."""
    return {
        "holds": "decoded images",
        "image_size": run.image_size,
        "resize": "upright RGB, bilinear",
        "pillow": PIL.__version__,
    }


def feature_facts(run: RunSettings, weights: str, cut: int) -> dict[str, Any]:
    """Everything that changes features, apart from the images and their views; `weights` is the weights' digest."""
    least = run.threads + 1  # `forward_frozen`
    cpu = (
        f"{torch.backends.cpu.get_cpu_capability()}, {run.threads} threads, {least} images or more"
    )
    facts = pixel_facts(run) | {
        "holds": "frozen features",
        "weights": weights,
        "width": run.width,
        "layers": f"features[:{cut}]",
        "precision": run.precision,
        "format": run.store_format,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": cpu,
    }
    if run.device == "cuda":
        facts |= {
            "device": device_of("cuda").facts(),
            "tf32": run.tf32,
            "fill_batch": FILL_BATCH["cuda"],
        }
    if run.views_made_on == "device":
        facts |= {"views": "made on the device"}  # other last bits than the host's
    return facts
