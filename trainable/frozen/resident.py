"""What the device's memory holds across epochs and trials: features and pixels, depending on what is free.

A table is held entirely or not at all; it is allocated once and filled chunk by chunk. Priority: views that recur, then
decoded pixels, then an epoch's jittered views; the head's before block 5's; of epochs the early ones, which every trial
reaches and few pass. The current epoch takes the place of a later one.
"""

import logging
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import torch
from torch import Tensor

from trainable.hardware.device import Device

LOG = logging.getLogger(__name__)
# Shares of the memory that this process may use. Training needs 14 to 18 bytes per parameter (gradient, two moments, a
# half-precision copy, the best epoch's): 2 GB for a head of 4096-4096; its activations at 224 px and filling 128 images
# at a time 2 to 4 GB. A T4 of 16 GB keeps 4 GB for that, half an H200 18 GB.
FOR_TRAINING: Final = 0.25  # stays free when a table is added; estimated
AT_LEAST_FREE: Final = 0.05
"""With less free, for example when another process grew, the least valuable table is dropped; assumed."""


class Rank(IntEnum):
    """Kinds of resident tables, the least valuable first (docs/explanation/sharing.md)."""

    EPOCH = 0
    """Features of an epoch's own views."""
    DECODED = 1
    """Decoded pixels."""
    FIXED = 2
    """Features of views that recur."""


@dataclass(frozen=True, order=True)
class Worth:
    """The value of a table; a more valuable one stays longer."""

    rank: Rank
    cut: int = 0
    earliness: int = 0
    """For an epoch's own views: minus the epoch."""

    def yields_to(self, other: "Worth") -> bool:
        """May a table of value `other` take its place?"""
        if self.rank is other.rank is Rank.EPOCH:
            return self.cut <= other.cut  # the current epoch needs a place
        return other.rank is not Rank.DECODED and self < other


@dataclass
class Resident:
    """A table in the device's memory."""

    values: Tensor
    """(rows, …), with undefined content where not filled."""
    worth: Worth
    columns: tuple[Any, ...] = ()
    """The looks that it holds one after another, each with all images."""
    filled: set[int] = field(default_factory=set)
    """First rows of the chunks that are filled."""
    writing: list[Future[Any]] = field(default_factory=list)
    """Chunks that are still being written from it to disk."""

    @property
    def bytes(self) -> int:
        return self.values.numel() * self.values.element_size()

    def settle(self) -> None:
        """Wait until nothing reads from it in the background."""
        wait(self.writing)
        self.writing.clear()

    def call_off(self) -> None:
        """Stop writing from it."""
        for each in self.writing:
            each.cancel()
        self.settle()


class Residents:
    """Every resident table of this process, by what it holds."""

    def __init__(self, device: Device, share: float) -> None:
        """`share` of a GPU's memory belongs to this process."""
        self._device, self._share = device, share
        self._tables: dict[Any, Resident] = {}
        self.closed = False
        """Nothing is held, and nothing is accepted."""

    def get(self, key: Any) -> Resident | None:
        return self._tables.get(key)

    def take(
        self, key: Any, worth: Worth, shape: Iterable[int], format: torch.dtype
    ) -> Resident | None:
        """A new table if there is room for it, or room can be made; otherwise None."""
        if self.closed:
            return None
        shape = tuple(shape)
        needed = math.prod(shape) * format.itemsize
        going = self._to_go(needed - self._room(), lambda each: each.yields_to(worth))
        if going is None:
            return None
        same = [self._drop(each) for each in going]
        like = (t for t in same if t.shape == shape and t.dtype is format)
        values = next(like, None)  # a captured graph keeps reading from the same memory
        del same, like
        if values is None:
            try:
                values = torch.empty(shape, dtype=format, device=self._device.torch)
            except torch.OutOfMemoryError:
                LOG.warning("%.2f GB of the device's memory seemed free but are not", needed / 1e9)
                return None
        self._tables[key] = Resident(values, worth)
        return self._tables[key]

    def drop(self, key: Any) -> None:
        """Drop a table, once what is being written from it is on disk."""
        self._drop(key)

    def shrink(self) -> None:
        """Drop the least valuable tables if another process has taken free memory."""
        lacking = int(AT_LEAST_FREE * self._allowed()) - self._device.free_bytes()
        if lacking <= 0 or not self._tables:
            return
        for key in self._to_go(lacking, lambda worth: True) or list(self._tables):
            self._drop(key)
        LOG.warning("the device's memory became short: some tables held there were dropped")

    def clear(self) -> None:
        """Drop everything, including what is not yet on disk."""
        for table in self._tables.values():
            table.call_off()
        self._tables.clear()

    def _drop(self, key: Any) -> Tensor:
        table = self._tables.pop(key)
        table.settle()
        return table.values

    def _to_go(self, lacking: int, may: Callable[[Worth], bool]) -> list[Any] | None:
        """The least valuable tables that `may` go and that free `lacking` bytes; None if that is not enough."""
        going = []
        for key, table in sorted(self._tables.items(), key=lambda item: item[1].worth):
            if lacking <= 0:
                break
            if may(table.worth):
                going.append(key)
                lacking -= table.bytes
        return going if lacking <= 0 else None

    def _allowed(self) -> int:
        """Bytes that this process may use; on a CPU, what is free now."""
        return int(self._device.total_bytes() * self._share) or self._device.free_bytes()

    def _room(self) -> int:
        return self._device.free_bytes() - int(FOR_TRAINING * self._allowed())
