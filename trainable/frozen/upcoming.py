"""The views of a part in an epoch, and the names of its chunks; the next epoch's are prepared while this one trains."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainable.config import TrialConfig
from trainable.data import LabelledImages
from trainable.data.views import ORIGINAL, View, drawn_epoch
from trainable.frozen.chunks import Look, chunk_names
from trainable.frozen.reference import seen_by
from trainable.frozen.stages import threads

EPOCHS_SEEN: Final = 4
"""Kept: both parts, this epoch and the next; 24,000 views take about 15 MB (estimated)."""


def looks(config: TrialConfig, epoch: int, files: Sequence[str]) -> tuple[list[Look], Tensor]:
    """The looks that `epoch` needs, and for each image (images,) int64 which of them it sees."""
    plain = Look((ORIGINAL,) * len(files), "fixed")
    if config.augmentation == "none":
        return [plain], torch.zeros(len(files), dtype=torch.int64)
    seen = [seen_by(config, epoch, file) for file in files]
    if config.augmentation == "flip_jitter":
        drawn = config.augmentation_seed, drawn_epoch(epoch, config.views)
        return [Look(tuple(seen), "epoch", drawn)], torch.zeros(len(files), dtype=torch.int64)
    mirrored = Look((View(mirrored=True),) * len(files), "fixed")
    return [plain, mirrored], torch.tensor([int(each.mirrored) for each in seen])


@dataclass(frozen=True)
class Seen:
    """The views of a part in an epoch."""

    looks: list[Look]
    which: Tensor
    """(images,) int64: the look of each image."""
    names: list[list[str]]
    """The names of the chunks of each look."""


class Upcoming:
    """The views of epochs; a thread prepares the next while this one trains: 24,000 views and names take 0.1 s."""

    def __init__(self, drawn: bool) -> None:
        """`drawn`: what is needed to make the views on a device is prepared too."""
        self._drawn = drawn
        self._pool = threads(1, "views")
        self._begun: OrderedDict[Hashable, Future[Seen]] = OrderedDict()
        self._fixed: dict[tuple[int, View], tuple[Look, list[str]]] = {}

    def of(self, config: TrialConfig, epoch: int, part: LabelledImages, last: int) -> Seen:
        """The views of `part` in `epoch`; starts to prepare the next, up to epoch `last`."""
        seen = self._begin(config, epoch, part).result()
        if config.augmentation != "none" and epoch < last:
            self._begin(config, epoch + 1, part)
        return seen

    def original(self, part: LabelledImages) -> Seen:
        """Every image unchanged."""
        return self.of(TrialConfig(augmentation="none"), 1, part, 1)

    def _begin(self, config: TrialConfig, epoch: int, part: LabelledImages) -> Future[Seen]:
        key: Hashable = id(part)
        if config.augmentation != "none":
            drawn = drawn_epoch(epoch, config.views)
            drawn = drawn if config.augmentation == "flip_jitter" else epoch
            key = key, config.augmentation, config.augmentation_seed, drawn
        if key not in self._begun:
            self._begun[key] = self._pool.submit(self._prepare, config, epoch, part)
        self._begun.move_to_end(key)
        while len(self._begun) > EPOCHS_SEEN:
            self._begun.popitem(last=False)
        return self._begun[key]

    def _prepare(self, config: TrialConfig, epoch: int, part: LabelledImages) -> Seen:
        wanted, which = looks(config, epoch, part.files)
        found = [self._named(part, look) for look in wanted]
        return Seen([look for look, _ in found], which, [names for _, names in found])

    def _named(self, part: LabelledImages, look: Look) -> tuple[Look, list[str]]:
        """A look with the names of its chunks; those of views that recur are computed once."""
        key = id(part), look.views[0]
        if look.family == "fixed" and key in self._fixed:
            return self._fixed[key]
        named = look, chunk_names(part, look)
        if self._drawn and not look.is_original:
            _ = look.draws  # cached there
        if look.family == "fixed":
            self._fixed[key] = named
        return named
