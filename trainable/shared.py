"""Frozen features computed once a node and shared by all its trials, through the store.

A chunk stands for some images in a fixed order, each in one view: its name is the digest of their contents and views.
"""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Final

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from trainable.config import RunSettings, TrialConfig
from trainable.data import LabelledImages, TrainingData
from trainable.device import device_of
from trainable.features import EVALUATION_BATCH, Batches, Held, Plain, Work, autocast, seen_by
from trainable.model import CUTS, Backbone, forward_frozen, frozen_layers, multiply_adds
from trainable.store import STORED, Chunk, Shelf, StoreUnavailable, default_folder
from trainable.views import ORIGINAL, View, normalise

LOG = logging.getLogger(__name__)
PIXELS: Final = 0  # the cut before all layers: what is kept there are decoded images
ANY_CUT: Final = -1
FILL_BATCH: Final = {"cpu": 8, "cuda": 128}  # images sent through frozen layers at a time
SMALLEST_CHUNK, LARGEST_CHUNK, CHUNKS = 8, 256, 16  # images; a part has at least so many chunks
POLL_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Look:
    """One view of every image of a part: all original, all mirrored, or as an epoch's jitter draws them."""

    views: tuple[View, ...]
    family: str
    """fixed, for views that come again in every epoch; epoch, for those of one epoch alone."""


def looks(config: TrialConfig, epoch: int, files: Sequence[str]) -> tuple[list[Look], Tensor]:
    """The looks that `epoch` needs, and for each image (images,) int64 which of them it sees."""
    seen = [seen_by(config, epoch, file) for file in files]
    if config.augmentation == "flip_jitter":
        return [Look(tuple(seen), "epoch")], torch.zeros(len(files), dtype=torch.int64)
    fixed = [Look((ORIGINAL,) * len(files), "fixed")]
    if config.augmentation == "flip":
        fixed.append(Look((View(mirrored=True),) * len(files), "fixed"))
    return fixed, torch.tensor([int(each.mirrored) for each in seen])


@dataclass(frozen=True)
class Table:
    """Stored features of a part in one look, chunk by chunk in the part's order."""

    chunks: tuple[Chunk, ...]
    size: int
    """Images in every chunk but the last."""

    def row(self, position: int) -> np.ndarray[Any, Any]:
        row: np.ndarray[Any, Any] = self.chunks[position // self.size].values[position % self.size]
        return row


class Shared:
    """The store as one process uses it. It outlives its trials, so that the next finds every chunk mapped.

    Where the store can't be used, `problem` says why and trials go on without it.
    """

    def __init__(self, run: RunSettings, data: TrainingData, backbone: Backbone) -> None:
        assert run.sharing is not None
        self.run, self.data = run, data
        self.kept = set(run.sharing.kept)
        self.problem = ""
        self.holds = run.sharing.resident
        self._layers = frozen_layers(backbone).to(run.device)
        self._digest = backbone.features_digest()
        self._open: dict[tuple[int, str], Chunk] = {}
        self._passing: set[tuple[int, str]] = set()
        self._shelves: dict[int, Shelf] = {}
        self._fixed_names: dict[tuple[str, View], list[str]] = {}
        self._resident: dict[tuple[int, ...], Tensor] = {}
        self._resident_epoch: dict[tuple[int, ...], Tensor] = {}
        self.tell: Callable[[str], None] = lambda text: None
        """Called now and then with how far the filling is, and with "" when it is over."""

    def keeps(self, cut: int, family: str) -> bool:
        """Is this cut of these views to be stored?"""
        return not self.problem and f"{cut} {family}" in self.kept

    def give_up(self, error: StoreUnavailable) -> None:
        """Go on without the store; said once."""
        self.problem = str(error)
        self.close()
        LOG.warning("frozen features are not shared any more: %s", error)

    def resident(self, tables: Sequence[Table], family: str) -> Tensor:
        """Rows of `tables`, one after another, in the device's memory; those of views that come again stay there."""
        key = tuple(id(chunk) for table in tables for chunk in table.chunks)
        if key in self._resident:
            return self._resident[key]
        if family == "epoch":
            self._resident_epoch.clear()  # before the next one takes its place
        held = self._resident_epoch if family == "epoch" else self._resident
        format = tables[0].chunks[0].format
        held[key] = torch.cat(
            [
                torch.from_numpy(chunk.values.copy()).view(format).to(self.run.device)
                for table in tables
                for chunk in table.chunks
            ]
        )
        return held[key]

    def drop_resident(self) -> None:
        """Hold nothing in the device's memory any more: it was full."""
        self._resident.clear()
        self._resident_epoch.clear()
        self.holds = False

    def close(self) -> None:
        self._resident.clear()
        self._resident_epoch.clear()
        self._open.clear()
        self._passing.clear()
        self.data.training.kept = self.data.validation.kept = None

    # where a chunk lies

    def shelf(self, cut: int) -> Shelf:
        if cut not in self._shelves:
            self._shelves[cut] = self._shelf(self._facts(cut))
        return self._shelves[cut]

    def _claims(self, cut: int) -> Shelf:
        """Where a chunk is claimed: decoded images at their own shelf, features at one that holds nothing else."""
        if cut == PIXELS:
            return self.shelf(PIXELS)
        if ANY_CUT not in self._shelves:
            facts = self._facts(cut) | {"holds": "claims", "layers": "any"}
            self._shelves[ANY_CUT] = self._shelf(facts)
        return self._shelves[ANY_CUT]

    def _shelf(self, facts: dict[str, Any]) -> Shelf:
        assert self.run.sharing is not None
        return Shelf.open(self.run.store or default_folder(), facts, self.run.sharing.limit_bytes)

    def _facts(self, cut: int) -> dict[str, Any]:
        """Everything that changes the values, apart from the images and how they are seen."""
        facts: dict[str, Any] = {
            "holds": "decoded images",
            "image_size": self.run.image_size,
            "resize": "upright RGB, bilinear",
            "pillow": PIL.__version__,
        }
        if cut == PIXELS:
            return facts
        cpu = f"{torch.backends.cpu.get_cpu_capability()}, {self.run.threads} threads"
        return facts | {
            "holds": "frozen features",
            "weights": self._digest,
            "width": self.run.width,
            "layers": f"features[:{cut}]",
            "precision": self.run.precision,
            "format": self.run.store_format,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "device": device_of("cuda").name() if self.run.device == "cuda" else cpu,
        }

    # filling

    def pixels(self, part: LabelledImages) -> None:
        """Let `part` read decoded images from the store, where they are to be kept."""
        if part.kept is None and self.keeps(PIXELS, "fixed"):
            plain = Look((ORIGINAL,) * len(part), "fixed")
            part.kept = self.table(part, plain, PIXELS, Work()).row

    def table(self, part: LabelledImages, look: Look, cut: int, work: Work) -> Table:
        """Every chunk of `part` in `look`, mapped; those that nobody has computed yet are computed here.

        Raises:
            StoreUnavailable: the store can't be used.
        """
        return self.tables(part, [look], cut, work)[0]

    def tables(
        self, part: LabelledImages, wanted: Sequence[Look], cut: int, work: Work
    ) -> list[Table]:
        """Tables of several looks; while another process computes a chunk, this one does the next."""
        if wanted[0].family == "epoch":
            self._leave_epoch()
        before = set(self._open)
        size = chunk_size(len(part))
        names = [self._names(part, look, size) for look in wanted]
        missing = {
            (at, number): name
            for at, column in enumerate(names)
            for number, name in enumerate(column)
        }
        chunks = len(missing)
        while missing:
            done: list[tuple[int, int]] = []
            for (at, number), name in missing.items():
                positions = range(number * size, min((number + 1) * size, len(part)))
                if not self._mapped(cut, name):
                    ready = chunks - len(missing) + len(done)
                    self.tell(f"frozen features: {ready} of {chunks} chunks")
                    if not self._claimed(part, wanted[at], positions, cut, name, work):
                        continue
                done.append((at, number))
            for key in done:
                del missing[key]
            if not done:
                time.sleep(POLL_SECONDS)
                work.waited_seconds += POLL_SECONDS
        self.tell("")
        if wanted[0].family == "epoch":
            self._passing = set(self._open) - before
        return [Table(tuple(self._open[cut, name] for name in column), size) for column in names]

    def _names(self, part: LabelledImages, look: Look, size: int) -> list[str]:
        """Of every chunk in `look`; those of views that come again are computed once."""
        key = part.files[0], look.views[0]
        if look.family == "fixed" and key in self._fixed_names:
            return self._fixed_names[key]
        starts = range(0, len(part), size)
        names = [chunk_name(part, look, range(s, min(s + size, len(part)))) for s in starts]
        if look.family == "fixed":
            self._fixed_names[key] = names
        return names

    def _leave_epoch(self) -> None:
        """Close the last epoch's own views, so that they may be evicted."""
        for key in self._passing:
            self._open.pop(key, None)
        self._passing.clear()

    def _mapped(self, cut: int, name: str) -> bool:
        if (cut, name) not in self._open:
            chunk = self.shelf(cut).read(name)
            if chunk is None:
                return False
            self._open[cut, name] = chunk
        return True

    def _claimed(
        self, part: LabelledImages, look: Look, positions: range, cut: int, name: str, work: Work
    ) -> bool:
        """Compute a chunk unless another process does; True if it is mapped now.

        One claim is for all cuts: who computes the head's features of these images passes by block 5's.
        """
        with self._claims(cut).claim(name) as mine:
            if not mine:
                return False
            if not self._mapped(cut, name):
                self._compute(part, look, positions, cut, name, work)
        return self._mapped(cut, name)

    def _compute(
        self, part: LabelledImages, look: Look, positions: range, cut: int, name: str, work: Work
    ) -> None:
        """Run the frozen layers up to `cut` over a chunk and store what is to be kept on the way."""
        if cut == PIXELS:
            size = FILL_BATCH[self.run.device]
            decoded = part.batches(list(positions), size, lambda file: ORIGINAL, self.run.workers)
            self.shelf(PIXELS).write(name, torch.cat([pixels for _, pixels in decoded]))
            return
        self.pixels(part)
        levels = [c for c in sorted(CUTS.values()) if 0 < c <= cut and self.keeps(c, look.family)]
        begin = next((c for c in reversed(levels) if self._may_begin(c, name)), PIXELS)
        began = time.monotonic()
        found: dict[int, list[Tensor]] = {c: [] for c in levels if c > begin}
        for hidden in self._inputs(part, look, positions, begin, name):
            for low, high in pairwise([begin, *found]):
                with autocast(self.run.precision, self.run.device):
                    hidden = forward_frozen(self._layers[low:high], hidden)
                last_first = hidden.permute(0, 2, 3, 1)  # channels last, as they lie in memory
                if self.run.store_format == "float16":
                    last_first = last_first.half()
                found[high].append(last_first.cpu())
        for level, parts in found.items():
            if not self.shelf(level).has(name):
                self.shelf(level).write(name, torch.cat(parts))
        work.frozen_images += len(positions)
        work.frozen_seconds += time.monotonic() - began
        work.frozen_multiply_adds += len(positions) * multiply_adds(
            self.run.width, self.run.image_size, begin, cut
        )

    def _may_begin(self, cut: int, name: str) -> bool:
        """May a higher cut be computed from what is stored at this one? Rounded features would be rounded twice."""
        return self.run.store_format != "float16" and self._mapped(cut, name)

    def _inputs(
        self, part: LabelledImages, look: Look, positions: range, begin: int, name: str
    ) -> Iterator[Tensor]:
        size = FILL_BATCH[self.run.device]
        if begin == PIXELS:
            views = {part.files[p]: look.views[p] for p in positions}
            for _, pixels in part.batches(
                list(positions), size, views.__getitem__, self.run.workers
            ):
                yield normalise(pixels.to(self.run.device))
            return
        chunk = self._open[begin, name]
        for start in range(0, len(positions), size):
            yield as_features(
                torch.from_numpy(chunk.values[start : start + size].copy()), chunk.format
            ).to(self.run.device)


def chunk_size(images: int) -> int:
    """Images in a chunk of a part: few enough that trials that start together find one each."""
    return min(max(-(-images // CHUNKS), SMALLEST_CHUNK), LARGEST_CHUNK)


def chunk_name(part: LabelledImages, look: Look, positions: range) -> str:
    """Digest of the contents of the images at `positions`, in order, and of how each is seen."""
    text = "".join(f"{part.digests[p]} {look.views[p]}\n" for p in positions)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def as_features(tensor: Tensor, format: torch.dtype) -> Tensor:
    """Stored rows (batch, side, side, channels) as features (batch, channels, side, side), channels last in memory."""
    if format is torch.bfloat16:
        tensor = tensor.view(torch.bfloat16)
    if format is torch.float16:
        tensor = tensor.float()
    return tensor.permute(0, 3, 1, 2)


@dataclass
class FromStore:
    """Features read from the store; for a look that is not kept there, computed as in the reference."""

    plain: Plain
    shared: Shared
    work: Work = field(default_factory=Work)

    def training(self, epoch: int, order: Sequence[int]) -> Batches:
        images = self.plain.data.training
        wanted, which = looks(self.plain.config, epoch, images.files)
        found = self._tables(images, wanted)
        if found is None:
            return self._plainly(self.plain.training(epoch, order))
        return self._read(found, which, order, self.plain.config.batch_size)

    def validation(self) -> Batches:
        images = self.plain.data.validation
        found = self._tables(images, [Look((ORIGINAL,) * len(images), "fixed")])
        if found is None:
            return self._plainly(self.plain.validation())
        which = torch.zeros(len(images), dtype=torch.int64)
        return self._read(found, which, range(len(images)), EVALUATION_BATCH)

    def held_training(self, epoch: int) -> Held | None:
        images = self.plain.data.training
        return self._held(images, *looks(self.plain.config, epoch, images.files))

    def held_validation(self) -> Held | None:
        images = self.plain.data.validation
        which = torch.zeros(len(images), dtype=torch.int64)
        return self._held(images, [Look((ORIGINAL,) * len(images), "fixed")], which)

    def _held(self, images: LabelledImages, wanted: list[Look], which: Tensor) -> Held | None:
        if not self.shared.holds:
            return None
        tables = self._tables(images, wanted)
        if tables is None:
            return None
        self.work.shared_images += len(images)
        table = self.shared.resident(tables, wanted[0].family)
        rows = which * len(which) + torch.arange(len(which))
        return Held(table, rows.to(table.device))

    def _plainly(self, batches: Batches) -> Batches:
        self.plain.work = self.work
        return batches

    def _tables(self, images: LabelledImages, wanted: list[Look]) -> list[Table] | None:
        cut = self.plain.model.cut
        try:
            if cut != PIXELS and self.shared.keeps(cut, wanted[0].family):
                return self.shared.tables(images, wanted, cut, self.work)
            self.shared.pixels(images)
        except StoreUnavailable as error:
            self.shared.give_up(error)
        return None

    def _read(self, tables: list[Table], which: Tensor, order: Sequence[int], size: int) -> Batches:
        """Batches in `order`, read two ahead by a thread of its own."""
        run = self.plain.run
        first = tables[0].chunks[0]
        kind = STORED[first.format]
        choice, pinned = which.tolist(), run.device == "cuda"

        def assemble(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
            shape = (len(positions), *first.values.shape[1:])
            rows = np.empty(shape, kind)
            for slot, position in enumerate(positions):
                rows[slot] = tables[choice[position]].row(position)
            hidden = as_features(torch.from_numpy(rows), first.format)
            return torch.tensor(positions), hidden.pin_memory() if pinned else hidden

        batches = (order[start : start + size] for start in range(0, len(order), size))
        with ThreadPoolExecutor(1, thread_name_prefix="features") as pool:
            ahead = deque(pool.submit(assemble, batch) for batch in islice(batches, 2))
            while ahead:
                positions, hidden = ahead.popleft().result()
                ahead.extend(pool.submit(assemble, batch) for batch in islice(batches, 1))
                self.work.shared_images += len(positions)
                yield positions, hidden.to(run.device, non_blocking=True)
