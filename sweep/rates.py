"""How fast a node is at what sharing saves and costs: measured with a few images, before the first trial.

It stands alone so that the process which measures starts soon: it needs neither Ray Tune nor the sweep's configuration.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import torch

from trainable.data.images import load_pixels
from trainable.device import device_of
from trainable.features import autocast
from trainable.model import Backbone, forward_frozen, frozen_layers
from trainable.shared import FILL_BATCH, PIXELS
from trainable.store import default_folder, limit_of, stored
from trainable.views import normalise

PROBED_IMAGES: Final = 2
PROBED_BYTES: Final = 2**25
LONG_PROBE_SECONDS: Final = 0.3


@dataclass(frozen=True)
class Rates:
    """Seconds, measured on a node with a trial's threads."""

    decode: float
    """To read and decode an image."""
    layers: Mapping[int, float]
    """To bring an image from the cut before to this one, by cut."""
    read: float
    """A byte from the store."""
    write: float
    """A byte into the store, digest included."""
    limit_bytes: int
    """What the store may take there."""
    gpu_bytes: int = 0
    """Memory of a GPU there."""

    def frozen(self, cut: int) -> float:
        """Seconds from pixels to `cut`."""
        return float(sum(seconds for each, seconds in self.layers.items() if each <= cut))


def measure_rates(
    backbone: Backbone,
    cuts: Sequence[int],
    images: Sequence[Path],
    image_size: int,
    threads: int,
    device: str,
    precision: str,
    limit_bytes: int | None,
    store: Path | None = None,
) -> Rates:
    """Probe this machine with a few images: some seconds at full width on a CPU.

    Raises:
        OSError: the store's folder can't be written.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        some = [images[i % len(images)] for i in range(PROBED_IMAGES)]
        decode, pixels = _timed(lambda: [load_pixels(path, image_size) for path in some])
        repeat = FILL_BATCH[device] // PROBED_IMAGES if device == "cuda" else 1
        hidden = normalise(torch.stack(pixels).repeat(repeat, 1, 1, 1).to(device))
        layers = frozen_layers(backbone).to(device)
        seconds = {}
        for low, high in pairwise([PIXELS, *sorted(set(cuts) - {PIXELS})]):
            taken, hidden = _timed(
                lambda low=low, high=high, hidden=hidden: _forward(  # type: ignore[misc]
                    layers[low:high], hidden, device, precision
                )
            )
            seconds[high] = taken / (repeat * PROBED_IMAGES)
    finally:
        torch.set_num_threads(before)
    write, read, limit = _disk(store or default_folder(), limit_bytes)
    gpu = device_of(device).total_bytes()
    return Rates(decode / PROBED_IMAGES / threads, seconds, read, write, limit, gpu)


def _forward(
    layers: torch.nn.Sequential, hidden: torch.Tensor, device: str, precision: str
) -> torch.Tensor:
    with autocast(precision, device):
        result = forward_frozen(layers, hidden)
    device_of(device).synchronize()
    return result


T = TypeVar("T")


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Median seconds of some calls, the first apart, and what the last one gave; two calls where they are long."""
    times: list[float] = []
    while (len(times) < 4 and sum(times) < LONG_PROBE_SECONDS) or len(times) < 2:
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return median(times[1:]), result


def _disk(store: Path, limit_bytes: int | None) -> tuple[float, float, int]:
    """Seconds a byte to write and to read in the store's folder, and the bytes it may take."""
    chunks = store / "chunks"
    chunks.mkdir(parents=True, exist_ok=True)
    content = os.urandom(PROBED_BYTES)
    handle, name = tempfile.mkstemp(dir=chunks.parent, prefix=".probe-")
    os.close(handle)
    try:

        def put() -> None:
            hashlib.sha256(content)
            Path(name).write_bytes(content)

        write, _ = _timed(put)
        read, _ = _timed(Path(name).read_bytes)
    finally:
        Path(name).unlink(missing_ok=True)
    taken = sum(each.bytes for each in stored(chunks))
    return write / PROBED_BYTES, read / PROBED_BYTES, limit_of(chunks, taken, limit_bytes)
