"""What lies in the device's memory across epochs and trials: features and pixels, decided by what is free.

A table is there in whole or not at all; it is allocated once in its size and filled chunk by chunk. What stays:
views that come again before decoded pixels before an epoch's jittered views, the head's before block 5's, and of
epochs the early ones, which every trial reaches and few pass. The epoch that is on takes the place of a later one.
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
# Of the memory that this process may take. Training needs 14 to 18 bytes a parameter (gradient, two moments, a half
# copy, the best epoch's): 2 GB for a head of 4096-4096; its activations at 224 px and filling 128 images at a time
# 2 to 4 GB. A T4 of 16 GB keeps 4 GB for that, half an H200 18 GB.
FOR_TRAINING: Final = 0.25  # stays free when a table comes; reckoned
AT_LEAST_FREE: Final = 0.05
"""Below that, as when another process grew, the least worthy table goes; assumed."""


class Rank(IntEnum):
    """Kinds of resident tables, from the one that is worth least (docs/explanation/sharing.md)."""

    EPOCH = 0
    """Features of an epoch's own views."""
    DECODED = 1
    """Pixels."""
    FIXED = 2
    """Features of views that come again."""


@dataclass(frozen=True, order=True)
class Worth:
    """What is worth more stays longer."""

    rank: Rank
    cut: int = 0
    earliness: int = 0
    """Of an epoch's own views: minus the epoch."""

    def yields_to(self, other: "Worth") -> bool:
        """May a table of worth `other` take its place?"""
        if self.rank is other.rank is Rank.EPOCH:
            return self.cut <= other.cut  # the epoch that is on must be somewhere
        return other.rank is not Rank.DECODED and self < other


@dataclass
class Resident:
    """A table in the device's memory."""

    values: Tensor
    """(rows, …), of any content where it is not filled."""
    worth: Worth
    columns: tuple[Any, ...] = ()
    """The looks that it holds one after another, each of all images."""
    filled: set[int] = field(default_factory=set)
    """First rows of the chunks that are there."""
    writing: list[Future[Any]] = field(default_factory=list)
    """Chunks that are still read from it to be written to the disk."""

    @property
    def bytes(self) -> int:
        return self.values.numel() * self.values.element_size()

    def settle(self) -> None:
        """Wait until nothing is read from it behind the training."""
        wait(self.writing)
        self.writing.clear()

    def call_off(self) -> None:
        """Write no more of it."""
        for each in self.writing:
            each.cancel()
        self.settle()


class Residents:
    """Every resident table of this process, by what it holds."""

    def __init__(self, device: Device, share: float) -> None:
        """`share` of a GPU's memory is this process's."""
        self._device, self._share = device, share
        self._tables: dict[Any, Resident] = {}
        self.closed = False
        """Nothing is held, and nothing comes."""

    def get(self, key: Any) -> Resident | None:
        return self._tables.get(key)

    def take(
        self, key: Any, worth: Worth, shape: Iterable[int], format: torch.dtype
    ) -> Resident | None:
        """A new table where there is room for it, or can be made; None elsewhere."""
        if self.closed:
            return None
        shape = tuple(shape)
        needed = math.prod(shape) * format.itemsize
        going = self._to_go(needed - self._room(), lambda each: each.yields_to(worth))
        if going is None:
            return None
        same = [self._drop(each) for each in going]
        like = (t for t in same if t.shape == shape and t.dtype is format)
        values = next(like, None)  # what was captured as a graph goes on reading where it read
        del same, like
        if values is None:
            try:
                values = torch.empty(shape, dtype=format, device=self._device.torch)
            except torch.OutOfMemoryError:
                LOG.warning("%.2f GB of the device's memory seemed free and are not", needed / 1e9)
                return None
        self._tables[key] = Resident(values, worth)
        return self._tables[key]

    def drop(self, key: Any) -> None:
        """Give up a table, when what is read from it has been written."""
        self._drop(key)

    def shrink(self) -> None:
        """Give up the least worthy where another process has taken what was free."""
        lacking = int(AT_LEAST_FREE * self._allowed()) - self._device.free_bytes()
        if lacking <= 0 or not self._tables:
            return
        for key in self._to_go(lacking, lambda worth: True) or list(self._tables):
            self._drop(key)
        LOG.warning("the device's memory became short: some of what it held goes")

    def clear(self) -> None:
        """Give up all, and what is not yet on the disk of it."""
        for table in self._tables.values():
            table.call_off()
        self._tables.clear()

    def _drop(self, key: Any) -> Tensor:
        table = self._tables.pop(key)
        table.settle()
        return table.values

    def _to_go(self, lacking: int, may: Callable[[Worth], bool]) -> list[Any] | None:
        """The least worthy tables that `may` go and leave so many bytes; None where they don't."""
        going = []
        for key, table in sorted(self._tables.items(), key=lambda item: item[1].worth):
            if lacking <= 0:
                break
            if may(table.worth):
                going.append(key)
                lacking -= table.bytes
        return going if lacking <= 0 else None

    def _allowed(self) -> int:
        """Bytes that this process may take; on a CPU, what is free now."""
        return int(self._device.total_bytes() * self._share) or self._device.free_bytes()

    def _room(self) -> int:
        return self._device.free_bytes() - int(FOR_TRAINING * self._allowed())
