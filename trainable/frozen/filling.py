"""Computes missing chunks: decodes images, runs the frozen layers and keeps the result, with stages in parallel.

Decoders work on the next chunks while the device computes one and threads write the previous ones. A table in the
device's memory has a chunk as soon as it is computed, and the disk has it when the disk is ready (stages.py).
"""

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from trainable.config import RunSettings
from trainable.data import LabelledImages
from trainable.frozen.chunks import (
    FILL_BATCH,
    PIXELS,
    chunk_names,
    chunk_positions,
    original,
)
from trainable.frozen.layers import FrozenLayers, Inputs, Wanted, batches_of, wanted_chunks
from trainable.frozen.reference import Work, is_rounded
from trainable.frozen.resident import Resident
from trainable.frozen.shelves import Shelves
from trainable.frozen.stages import Ahead, Readers, Uploads, Writers
from trainable.frozen.store import Chunk, Claim, StoreUnavailable
from trainable.frozen.tables import ResidentTables
from trainable.hardware.device import device_of
from trainable.network.model import CUTS, multiply_adds

POLL_SECONDS: Final = 0.01  # between checks for what others compute; assumed
CHUNKS_AHEAD: Final = 8
"""Chunks being decoded by processes: 16 processes have 1,500 images in hand at a time; assumed."""
BATCHES_AHEAD: Final = 2  # one being read, one ready; assumed

Written = Future[Chunk | None]


@dataclass(frozen=True)
class Begun:
    """A chunk that this process computes."""

    wanted: Wanted
    claim: Claim | None
    """None if nothing of it will be on disk."""
    start: int
    """The cut that it is computed from."""
    kept: list[int]
    """Cuts above that at which it will be on disk."""
    inputs: Inputs

    def close(self) -> None:
        self.inputs.close()
        if self.claim is not None:
            self.claim.release()


class Filling:
    """Computes missing chunks."""

    def __init__(
        self, run: RunSettings, layers: nn.Sequential, shelves: Shelves, tables: ResidentTables
    ) -> None:
        self._run, self._shelves, self._tables = run, shelves, tables
        self._device = device_of(run.device)
        self._uploads, self._writers = Uploads(self._device), Writers(self._device)
        self._readers = Readers(self._device)
        self._layers = FrozenLayers(run, layers, tables, self._uploads)
        self._behind: list[Written] = []

    def fill(self, chunks: Iterable[Wanted], work: Work) -> None:
        """Map all `chunks`, or put them into their tables; while another process computes one, this one does the next.

        Raises:
            StoreUnavailable: the store can't be used, and a chunk is needed from it.
            RequestError: features are not finite.
        """
        self.notice()
        missing = dict.fromkeys(chunks)
        if self._shelves.problem and any(wanted.table is None for wanted in missing):
            raise StoreUnavailable(self._shelves.problem)
        count = len(missing)
        begun: deque[Begun] = deque()
        writing: dict[Wanted, Written] = {}
        self._read_ahead(missing)
        try:
            while missing or writing:
                advanced, looked = False, time.monotonic()
                for wanted in list(missing):
                    work.tell(f"frozen features: {count - len(missing)} of {count} chunks")
                    if not self._is_there(wanted):
                        each = self._begin(wanted, work)
                        if each is None:
                            continue
                        begun.append(each)
                        if len(begun) >= self._chunks_ahead(wanted.part):
                            self._finish(begun.popleft(), writing, work)
                    del missing[wanted]
                    advanced = True
                while begun:
                    self._finish(begun.popleft(), writing, work)
                for wanted in list(writing):  # wait only for what is to be mapped
                    chunk = writing.pop(wanted).result()
                    if chunk is None:  # evicted meanwhile
                        missing[wanted] = None
                    else:
                        self._shelves.open[wanted.cut, wanted.name] = chunk
                if missing and not advanced:
                    looking = time.monotonic() - looked
                    time.sleep(max(POLL_SECONDS, looking))  # half a core at most: others need it
                    work.waited_seconds += looking + max(POLL_SECONDS, looking)
        finally:
            self._readers.forget()
            for each in begun:
                each.close()
        began = time.monotonic()
        self._device.mark().wait()
        work.frozen_seconds += time.monotonic() - began
        work.tell("")

    def _chunks_ahead(self, part: LabelledImages) -> int:
        return CHUNKS_AHEAD if part.decoders is not None and part.decoders.running else 1

    def pixels(self, part: LabelledImages, work: Work) -> None:
        """Let `part` read decoded images from the store, if they are kept there."""
        if part.kept is None and self._shelves.keeps(PIXELS, "fixed"):
            look = original(part)
            names = chunk_names(part, look)
            self.fill(wanted_chunks(part, look, names, PIXELS), Work(tell=work.tell))
            part.kept = self._shelves.table(PIXELS, names, len(part)).row

    def fill_pixels(self, part: LabelledImages, table: Resident) -> None:
        """Decode the images of `part` that `table` lacks."""
        lacking = [p for p in chunk_positions(len(part)) if p.start not in table.filled]
        order = [position for positions in lacking for position in positions]
        batches = part.pixel_batches(order, FILL_BATCH[self._run.device], self._run.workers)
        for positions, pixels in batches:
            table.values[positions.to(self._device.torch)] = self._uploads.send(pixels)
        table.filled |= {positions.start for positions in lacking}

    def notice(self) -> None:
        """If writing in the background has failed, report it once and continue without the store."""
        over = [each for each in self._behind if each.done()]
        self._behind = [each for each in self._behind if each not in over]
        for each in over:
            with suppress(CancelledError):
                error = each.exception()
                if isinstance(error, StoreUnavailable):
                    self._shelves.give_up(error)
                elif error is not None:
                    raise error

    def close(self) -> None:
        """Finish what is being written."""
        self._readers.close()
        self._writers.close()
        self.notice()

    def _read_ahead(self, chunks: Iterable[Wanted]) -> None:
        """Start to read the chunks that are on disk."""
        with suppress(StoreUnavailable):  # reported when the chunk is needed
            for wanted in chunks:
                if self._shelves.keeps(wanted.cut, wanted.look.family):
                    shelf = self._shelves.shelf(wanted.cut)
                    if shelf.has(wanted.name):
                        self._readers.begin(shelf, wanted.name)

    def _is_there(self, wanted: Wanted) -> bool:
        table = wanted.table
        if table is None:
            self._readers.wait(self._shelves.shelf(wanted.cut), wanted.name)
            return self._shelves.map(wanted.cut, wanted.name)
        chunk = self._stored(wanted, wanted.cut)
        if chunk is None:
            return False
        for start, stop in batches_of(wanted, self._run):
            rows = table.values[wanted.at + start : wanted.at + stop]
            rows.copy_(self._uploads.send(chunk.rows(start, stop)))
        table.filled.add(wanted.at)
        return True

    def _stored(self, wanted: Wanted, cut: int) -> Chunk | None:
        """A chunk of the same images and views on disk; None if the disk fails and memory suffices."""
        if not self._shelves.keeps(cut, wanted.look.family):
            return None
        try:
            self._readers.wait(self._shelves.shelf(cut), wanted.name)
            return self._shelves.read(cut, wanted.name)
        except StoreUnavailable as error:
            self._without_store(wanted, error)
            return None

    def _without_store(self, wanted: Wanted, error: StoreUnavailable) -> None:
        if wanted.table is None:
            raise error
        self._shelves.give_up(error)

    def _begin(self, wanted: Wanted, work: Work) -> Begun | None:
        """Claim a chunk and start preparing its inputs; None if another process computes it, or has done so."""
        below = [cut for cut in sorted(CUTS.values()) if PIXELS < cut < wanted.cut]
        claim = None
        try:
            kept = self._kept([*below, wanted.cut], wanted)
            if kept:
                claim = self._shelves.claim(wanted.cut, wanted.name)
                if claim is None:
                    return None
        except StoreUnavailable as error:
            self._without_store(wanted, error)
            kept = []
        try:
            if claim is not None and self._is_there(wanted):
                claim.release()
                return None
            start, inputs = self._inputs(wanted, below, work)
        except BaseException:
            if claim is not None:
                claim.release()
            raise
        above = [cut for cut in kept if cut > start or cut == wanted.cut]
        return Begun(wanted, claim, start, above, inputs)

    def _kept(self, cuts: Iterable[int], wanted: Wanted) -> list[int]:
        return [cut for cut in cuts if self._shelves.keeps(cut, wanted.look.family)]

    def _inputs(self, wanted: Wanted, below: list[int], work: Work) -> tuple[int, Inputs]:
        """The cut to compute from, and batches of what exists there: features in memory or on disk, or pixels."""
        if not is_rounded(self._run):  # otherwise features would be rounded twice
            for cut in reversed(below):
                rows = self._tables.rows(wanted.part, wanted.look, wanted.positions, cut)
                if rows is not None:
                    return cut, (rows[a:b] for a, b in batches_of(wanted, self._run))
                chunk = self._stored(wanted, cut)
                if chunk is not None:
                    return cut, self._ahead(
                        chunk.rows(a, b) for a, b in batches_of(wanted, self._run)
                    )
        if wanted.cut != PIXELS:
            held = self._tables.pixels(wanted.part)
            if held is not None and wanted.positions.start in held.filled:
                pixels = held.values[wanted.positions.start : wanted.positions.stop]
                return PIXELS, (pixels[a:b] for a, b in batches_of(wanted, self._run))
            try:
                self.pixels(wanted.part, work)
            except StoreUnavailable as error:
                self._without_store(wanted, error)
        part, order, size = wanted.part, list(wanted.positions), FILL_BATCH[self._run.device]
        if wanted.look.is_original or self._run.views_made_on == "device":
            batches = part.pixel_batches(order, size, self._run.workers)
        else:
            views = {part.files[p]: wanted.look.views[p] for p in order}
            batches = part.batches(order, size, views.__getitem__, self._run.workers)
        return PIXELS, self._ahead(pixels for _, pixels in batches)

    def _ahead(self, batches: Generator[Tensor, None, None]) -> Ahead[Tensor]:
        return Ahead(batches, BATCHES_AHEAD, "inputs")

    def _finish(self, begun: Begun, writing: dict[Wanted, Written], work: Work) -> None:
        """Compute a chunk, and start to write it."""
        wanted, began = begun.wanted, time.monotonic()
        try:
            if wanted.cut == PIXELS:
                found = {PIXELS: torch.cat(list(begun.inputs))}
            else:
                found = self._layers.run(wanted, begun.start, begun.kept, begun.inputs)
            if wanted.table is not None:
                wanted.table.filled.add(wanted.at)
            try:
                self._write(begun, found, writing)
            except StoreUnavailable as error:
                self._without_store(wanted, error)
        finally:
            begun.close()
        if wanted.cut != PIXELS:
            work.frozen_images += len(wanted)
            work.frozen_seconds += time.monotonic() - began
            work.frozen_multiply_adds += len(wanted) * multiply_adds(
                self._run.width, self._run.image_size, begun.start, wanted.cut
            )

    def _write(
        self, begun: Begun, found: dict[int, Tensor], writing: dict[Wanted, Written]
    ) -> None:
        wanted = begun.wanted
        for cut in begun.kept:
            shelf = self._shelves.shelf(cut)
            if cut != wanted.cut and shelf.has(wanted.name):
                continue
            assert begun.claim is not None
            begun.claim.again()
            held = wanted.table if cut == wanted.cut else None
            future = self._writers.write(
                shelf, wanted.name, found[cut], begun.claim, held is not None
            )
            if held is not None:
                held.writing.append(future)
            if cut == wanted.cut and held is None:
                writing[wanted] = future
            else:
                self._behind.append(future)
