"""Frozen features, computed once per node and shared by all its trials through its store and the device's memory."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from trainable.config import RunSettings
from trainable.data import LabelledImages, TrainingData
from trainable.frozen.chunks import PIXELS, StoredTable
from trainable.frozen.filling import Filling
from trainable.frozen.layers import Wanted, wanted_chunks
from trainable.frozen.reference import (
    EVALUATION_BATCH,
    Batches,
    Plain,
    ResidentFeatures,
    Work,
    as_features,
    is_rounded,
)
from trainable.frozen.resident import Resident, Residents
from trainable.frozen.shelves import Shelves
from trainable.frozen.stages import threads
from trainable.frozen.store import StoreUnavailable
from trainable.frozen.tables import ResidentTables
from trainable.frozen.upcoming import Seen, Upcoming
from trainable.hardware.device import device_of
from trainable.network.model import Backbone, frozen_layers


class Shared:
    """The store and the device's tables, as one process uses them. It outlives its trials, so that the next trial finds
    every chunk mapped and every table filled.

    If the store can't be used, `problem` says why, and trials continue without it.
    """

    def __init__(self, run: RunSettings, data: TrainingData, backbone: Backbone) -> None:
        device = device_of(run.device)
        device.fix_kernels(run.tf32)
        layers = frozen_layers(backbone).to(device.torch)
        self.run, self.data = run, data
        self.shelves = Shelves(run, backbone.features_digest())
        self.upcoming = Upcoming(drawn=run.views_made_on == "device")
        self._residents = Residents(device, run.gpu_share)
        self._tables = ResidentTables(run, layers, self._residents)
        self._filling = Filling(run, layers, self.shelves, self._tables)
        self._passing: set[tuple[int, str]] = set()

    @property
    def problem(self) -> str:
        return self.shelves.problem

    def mapped(self, part: LabelledImages, seen: Seen, cut: int, work: Work) -> list[StoredTable]:
        """Tables of all looks on disk; missing chunks are computed here.

        Raises:
            StoreUnavailable: the store can't be used.
        """
        passes = seen.looks[0].family == "epoch"
        if passes:  # close the last epoch's own views, so that they can be evicted
            for key in self._passing:
                self.shelves.open.pop(key, None)
        before = set(self.shelves.open)
        wanted: list[Wanted] = []
        for look, names in zip(seen.looks, seen.names, strict=True):
            wanted += wanted_chunks(part, look, names, cut)
        self._filling.fill(wanted, work)
        if passes:
            self._passing = set(self.shelves.open) - before
        return [self.shelves.table(cut, names, len(part)) for names in seen.names]

    def resident(
        self, part: LabelledImages, seen: Seen, cut: int, work: Work
    ) -> tuple[Resident, list[int]] | None:
        """A table on the device, and the first row of each look in it; None if there is no room."""
        self._filling.notice()
        table = self._tables.features(part, seen.looks, cut)
        if table is None:
            return None
        firsts = [self._tables.first_row(part, look, table) for look in seen.looks]
        wanted: list[Wanted] = []
        for look, names, first in zip(seen.looks, seen.names, firsts, strict=True):
            chunks = wanted_chunks(part, look, names, cut, table, first)
            wanted += [each for each in chunks if each.at not in table.filled]
        if wanted:
            self._hold_pixels(part)
            self._filling.fill(wanted, work)
        return table, firsts

    def pixels(self, part: LabelledImages, work: Work) -> None:
        """Let `part` read decoded images from the store, if they are kept there."""
        self._filling.pixels(part, work)

    def held_pixels(self, part: LabelledImages) -> Tensor | None:
        """All decoded images (images, 3, size, size) on the device, if there is room for them."""
        table = self._hold_pixels(part)
        if table is None:
            return None
        self._filling.fill_pixels(part, table)
        return table.values

    def _hold_pixels(self, part: LabelledImages) -> Resident | None:
        wanted = self.holds and self.run.views_made_on == "device"
        return self._tables.hold_pixels(part) if wanted else None

    @property
    def holds(self) -> bool:
        """May anything be held on the device?"""
        assert self.run.sharing is not None
        return self.run.sharing.resident and not self._residents.closed

    def shrink(self) -> None:
        """Hold less if another process has taken the device's memory."""
        self._residents.shrink()

    def drop_resident(self) -> None:
        """Free the device's memory, for example after it was full, and hold nothing until `hold_resident`.

        Writing from there that has not started is dropped: those chunks will be computed again.
        """
        self._residents.clear()
        self._residents.closed = True

    def hold_resident(self) -> None:
        """Hold tables again as far as there is room, for the next trial."""
        self._residents.closed = False

    def close(self) -> None:
        """Finish what is being written, and free everything."""
        self._filling.close()
        self._residents.clear()
        self.shelves.open.clear()
        self.data.training.kept = self.data.validation.kept = None


@dataclass
class FromStore:
    """Features from the device's memory or the store; computed as in the reference for a look that is in neither.

    `plain` reads pixels on the device through `shared.held_pixels`.
    """

    plain: Plain
    shared: Shared

    def training(self, epoch: int, order: Sequence[int], work: Work) -> Batches:
        images, size = self.plain.data.training, self.plain.config.batch_size
        seen = self._seen(epoch)
        found = self._mapped(images, seen, work)
        if found is None:
            return self.plain.training(epoch, order, work)
        return self._read(found, seen.which, order, size, work)

    def validation(self, work: Work) -> Batches:
        images = self.plain.data.validation
        seen = self.shared.upcoming.original(images)
        found = self._mapped(images, seen, work)
        if found is None:
            return self.plain.validation(work)
        return self._read(found, seen.which, range(len(images)), EVALUATION_BATCH, work)

    def resident_training(self, epoch: int, work: Work) -> ResidentFeatures | None:
        self.shared.shrink()
        return self._held(self.plain.data.training, self._seen(epoch), work)

    def resident_validation(self, work: Work) -> ResidentFeatures | None:
        images = self.plain.data.validation
        return self._held(images, self.shared.upcoming.original(images), work)

    def _seen(self, epoch: int) -> Seen:
        plain = self.plain
        return self.shared.upcoming.of(plain.config, epoch, plain.data.training, plain.run.epochs)

    def _held(self, images: LabelledImages, seen: Seen, work: Work) -> ResidentFeatures | None:
        run, cut = self.plain.run, self.plain.model.cut
        if cut == PIXELS or not self.shared.holds:
            return None
        found = self.shared.resident(images, seen, cut, work)
        if found is None:
            return None
        table, firsts = found
        work.shared_images += len(images)
        rows = torch.tensor(firsts)[seen.which] + torch.arange(len(images))
        return ResidentFeatures(table.values, rows.to(table.values.device), is_rounded(run))

    def _mapped(self, images: LabelledImages, seen: Seen, work: Work) -> list[StoredTable] | None:
        cut = self.plain.model.cut
        try:
            if cut != PIXELS and self.shared.shelves.keeps(cut, seen.looks[0].family):
                return self.shared.mapped(images, seen, cut, work)
            self.shared.pixels(images, work)
        except StoreUnavailable as error:
            self.shared.shelves.give_up(error)
        return None

    def _read(
        self, tables: list[StoredTable], which: Tensor, order: Sequence[int], size: int, work: Work
    ) -> Batches:
        """Batches in `order`, read two ahead by a thread."""
        run = self.plain.run
        device = device_of(run.device)
        first = tables[0].chunks[0]
        choice = which.tolist()

        def assemble(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
            rows = device.host_buffer((len(positions), *first.values.shape[1:]), first.format)
            raw = rows.view(torch.int16) if first.format is torch.bfloat16 else rows
            into = raw.numpy()
            for slot, position in enumerate(positions):
                into[slot] = tables[choice[position]].row(position)
            return torch.tensor(positions), rows

        batches = (order[start : start + size] for start in range(0, len(order), size))
        with threads(1, "features") as pool:
            ahead = deque(pool.submit(assemble, batch) for batch in islice(batches, 2))
            while ahead:
                positions, rows = ahead.popleft().result()
                ahead.extend(pool.submit(assemble, batch) for batch in islice(batches, 1))
                work.shared_images += len(positions)
                on_device = rows.to(device.torch, non_blocking=True)
                yield positions, as_features(on_device, is_rounded(run))
