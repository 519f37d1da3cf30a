"""How fast a node does the work that sharing saves and adds: measured with a few images before the first trial.

This module needs neither Ray Tune nor the sweep's configuration, so that the process that measures starts quickly.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import torch
from torch import Tensor

from trainable.config import Precision
from trainable.data import LabelledImages
from trainable.data.decoding.pool import Decodable, Decoders
from trainable.data.views import normalise
from trainable.frozen.chunks import FILL_BATCH, PIXELS
from trainable.frozen.reference import autocast
from trainable.frozen.stages import WRITERS
from trainable.frozen.store import limit_of, stored
from trainable.hardware.cache import default_folder
from trainable.hardware.device import Device, device_of
from trainable.network.model import Backbone, forward_frozen, frozen_layers

PROBED_IMAGES: Final = 64  # for each decoding thread or process, at most; assumed
FEW_IMAGES: Final = 2
"""The batch on a CPU where the usual batch of a filling would take too long; assumed."""
PROBED_BYTES: Final = 2**25  # copied, hashed and written; assumed
LONG_PROBE_SECONDS: Final = 0.3  # after which one more call is enough; assumed
LONG_BATCH_SECONDS: Final = 1.5  # too long for a batch of a filling; assumed


@dataclass(frozen=True)
class Rates:
    """Seconds, measured on a node with a trial's threads."""

    decode: float
    """To read and decode an image, with as many processes as a trial has."""
    layers: Mapping[int, float]
    """To take an image from the previous cut to this one, by cut."""
    read: float
    """To read a byte from the store."""
    write: float
    """To write a byte to the store, digest included, with as many threads as a filling has."""
    limit_bytes: int
    """Disk space that the store may use there."""
    gpu_bytes: int = 0
    """Memory of a GPU there."""
    copy: float = 0.0
    """To copy a byte from the device to the host."""

    @property
    def stages_overlap(self) -> bool:
        """Does filling take only as long as its slowest stage? On a CPU, all stages share the cores."""
        return self.gpu_bytes > 0

    def frozen(self, cut: int) -> float:
        """Seconds from pixels to `cut`."""
        return float(sum(seconds for each, seconds in self.layers.items() if each <= cut))


@dataclass(frozen=True)
class RateProbe:
    """What the rates of a machine are measured with."""

    cuts: tuple[int, ...]
    """Layers at which the strategies of a sweep start to train."""
    images: LabelledImages
    threads: int
    device: str
    precision: Precision
    limit_bytes: int | None = None
    """Disk space that the store may use; None: half of what is free."""
    store: Path | None = None
    """Its folder; None: the machine's default."""


def measure_rates(backbone: Backbone, probe: RateProbe) -> Rates:
    """Probe this machine with a few images; takes a few seconds at full width on a CPU.

    Raises:
        OSError: the store's folder can't be written.
    """
    cuts, device, precision = probe.cuts, probe.device, probe.precision
    machine, store = device_of(device), probe.store or default_folder()
    before = torch.get_num_threads()
    # its processes must start before CUDA does
    decode, pixels = decode_seconds(probe.images, probe.threads, store)
    torch.set_num_threads(probe.threads)
    try:
        layers = frozen_layers(backbone).to(machine.torch)
        batch = _batch(layers[: max(cuts)], pixels, device, precision)
        hidden = normalise(pixels[torch.arange(batch) % len(pixels)].to(machine.torch))
        seconds = {}
        for low, high in pairwise([PIXELS, *sorted(set(cuts) - {PIXELS})]):
            taken, hidden = _timed(
                lambda low=low, high=high, hidden=hidden: _forward(  # type: ignore[misc]
                    layers[low:high], hidden, device, precision
                )
            )
            seconds[high] = taken / batch
        copy = _copy_seconds(machine)
    finally:
        torch.set_num_threads(before)
    write, read, limit = _disk(store, probe.limit_bytes, WRITERS[device])
    return Rates(decode, seconds, read, write, limit, machine.total_bytes(), copy)


def decode_seconds(images: LabelledImages, workers: int, store: Path) -> tuple[float, Tensor]:
    """Seconds per image to read and decode with this many processes, and some pixels (n, 3, size, size) uint8.

    Each process decodes one image twice, so that its start does not count, and then as many as take 0.3 s.
    """
    count = min(len(images), PROBED_IMAGES)
    digests = dict(zip(images.files[:count], images.digests[:count], strict=True))
    with Decoders(workers, store, Decodable(images.folder, digests, images.image_size)) as begun:
        images = replace(images, decoders=begun)
        each = [position % count for position in range(workers)]
        _decoded(images, each, workers)
        began = time.perf_counter()
        _decoded(images, each, workers)
        rounds = LONG_PROBE_SECONDS / (time.perf_counter() - began)
        order = [p % count for p in range(workers * min(max(int(rounds), 1), PROBED_IMAGES))]
        began = time.perf_counter()
        found = _decoded(images, order, workers)
        seconds = (time.perf_counter() - began) / len(order)
    return seconds, found[:PROBED_IMAGES]


def _decoded(images: LabelledImages, order: Sequence[int], workers: int) -> Tensor:
    """Pixels of the images at `order`."""
    size = max(1, len(order) // (4 * workers))
    batches = images.pixel_batches(order, size, workers)
    return torch.cat([pixels for _, pixels in batches])


def _copy_seconds(machine: Device) -> float:
    """Seconds to copy a byte from the device's memory to a host buffer; 0 on a CPU, where both are the same."""
    if machine.kind == "cpu":
        return 0.0
    source = torch.zeros(PROBED_BYTES, dtype=torch.uint8, device=machine.torch)
    buffer = machine.host_buffer((PROBED_BYTES,), torch.uint8)

    def copy() -> None:
        buffer.copy_(source, non_blocking=True)
        machine.synchronize()

    return _timed(copy)[0] / PROBED_BYTES


def _batch(layers: torch.nn.Sequential, pixels: Tensor, device: str, precision: str) -> int:
    """How many images to send through `layers` at a time: as many as a filling does, or a few where that takes long.

    Beside other work, batches of two took up to three times as long per image in narrow layers as batches of eight.
    """
    if device == "cuda":
        return FILL_BATCH[device]
    few = normalise(pixels[torch.arange(FEW_IMAGES) % len(pixels)])
    began = time.perf_counter()
    _forward(layers, few, device, precision)
    seconds = (time.perf_counter() - began) * FILL_BATCH[device] / FEW_IMAGES
    return FILL_BATCH[device] if seconds < LONG_BATCH_SECONDS else FEW_IMAGES


def _forward(
    layers: torch.nn.Sequential, hidden: torch.Tensor, device: str, precision: str
) -> torch.Tensor:
    with autocast(precision, device):
        result = forward_frozen(layers, hidden)
    device_of(device).synchronize()
    return result


T = TypeVar("T")


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Median seconds of a few calls after the first, and the last one's result; only two calls if they are long."""
    times: list[float] = []
    while (len(times) < 4 and sum(times) < LONG_PROBE_SECONDS) or len(times) < 2:
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return median(times[1:]), result


def _disk(store: Path, limit_bytes: int | None, writers: int) -> tuple[float, float, int]:
    """Seconds per byte to write with this many threads and to read in the store's folder, and the bytes it may use."""
    chunks = store / "chunks"
    chunks.mkdir(parents=True, exist_ok=True)
    content = os.urandom(PROBED_BYTES)
    names: list[Path] = []
    try:
        for _ in range(writers):
            handle, name = tempfile.mkstemp(dir=chunks.parent, prefix=".probe-")
            os.close(handle)
            names.append(Path(name))

        def put(path: Path) -> None:
            hashlib.sha256(content)
            path.write_bytes(content)

        with ThreadPoolExecutor(writers) as pool:
            write, _ = _timed(lambda: list(pool.map(put, names)))
        read, _ = _timed(names[0].read_bytes)
    finally:
        for path in names:
            path.unlink(missing_ok=True)
    taken = sum(each.bytes for each in stored(chunks))
    limit = limit_of(chunks, taken, limit_bytes)
    return write / (writers * PROBED_BYTES), read / PROBED_BYTES, limit
