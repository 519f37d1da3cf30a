"""Runs the frozen layers on one chunk, on the device: inputs, cuts kept on the way, a check for finite values."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

from trainable.config import RunSettings
from trainable.data import LabelledImages
from trainable.data.views import Draws, look_all, normalise
from trainable.errors import RequestError
from trainable.frozen.chunks import FILL_BATCH, PIXELS, Look, chunk_positions, row_shape
from trainable.frozen.reference import as_features, autocast, is_rounded, row_format
from trainable.frozen.resident import Resident
from trainable.frozen.stages import Ahead, Uploads
from trainable.frozen.tables import ResidentTables
from trainable.hardware.device import device_of
from trainable.network.model import forward_frozen

Inputs: TypeAlias = Ahead[Tensor] | Generator[Tensor, None, None]
"""Batches for the layers: from the host, made by a thread, or already on the device."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """A chunk that a trial needs, mapped from disk or in a table."""

    part: LabelledImages
    look: Look
    positions: range
    cut: int
    name: str
    table: Resident | None = None
    at: int = 0
    """Its first row in the table."""

    def __len__(self) -> int:
        return len(self.positions)


def wanted_chunks(
    part: LabelledImages,
    look: Look,
    names: Iterable[str],
    cut: int,
    table: Resident | None = None,
    first: int = 0,
) -> list[Wanted]:
    """Every chunk of `part` in `look`, in the part's order; in `table` from row `first` on."""
    return [
        Wanted(part, look, positions, cut, name, table, first + positions.start)
        for positions, name in zip(chunk_positions(len(part)), names, strict=True)
    ]


def batches_of(wanted: Wanted, run: RunSettings) -> Iterator[tuple[int, int]]:
    """First image of every batch for the layers, and the one after its last."""
    size = FILL_BATCH[run.device]
    for start in range(0, len(wanted), size):
        yield start, min(start + size, len(wanted))


class FrozenLayers:
    """All layers of the backbone, which no trial trains."""

    def __init__(
        self, run: RunSettings, layers: nn.Sequential, tables: ResidentTables, uploads: Uploads
    ) -> None:
        self._run, self._layers, self._tables, self._uploads = run, layers, tables, uploads
        self._device = device_of(run.device)
        self._drawn: tuple[Look, Draws] | None = None

    def run(
        self, wanted: Wanted, start: int, kept: Iterable[int], inputs: Inputs
    ) -> dict[int, Tensor]:
        """Rows of a chunk at its own cut and at those in `kept`, from inputs at `start`; queued, not waited for.

        Raises:
            RequestError: features are not finite, which is checked if they are float16.
        """
        run = self._run
        cuts = sorted({*kept, wanted.cut})
        found = {cut: self._empty(wanted, cut) for cut in cuts}
        lacking = torch.zeros(len(wanted), dtype=torch.bool, device=self._device.torch)
        half = torch.float16 in (row_format(run), getattr(torch, run.precision))
        for (first, stop), given in zip(batches_of(wanted, run), inputs, strict=True):
            hidden = self._hidden(wanted, start, given, first, isinstance(inputs, Ahead))
            for low, high in pairwise([start, *cuts]):
                with autocast(run.precision, run.device):
                    hidden = forward_frozen(self._layers[low:high], hidden)
                rows = found[high][first:stop].copy_(hidden.permute(0, 2, 3, 1))
                if half:
                    lacking[first:stop] |= ~rows.isfinite().flatten(1).all(1)
        if start == PIXELS and (held := self._tables.pixels(wanted.part)) is not None:
            held.filled.add(wanted.positions.start)
        if half and lacking.any():  # waits for the device, once per chunk
            self._refuse(wanted, int(lacking.int().argmax()))
        return found

    def _empty(self, wanted: Wanted, cut: int) -> Tensor:
        """Memory for the rows at `cut`."""
        if wanted.table is not None and cut == wanted.cut:
            return wanted.table.values[wanted.at : wanted.at + len(wanted)]
        shape = row_shape(self._layers, self._run.image_size, cut)
        return torch.empty(
            (len(wanted), *shape), dtype=row_format(self._run), device=self._device.torch
        )

    def _hidden(
        self, wanted: Wanted, start: int, given: Tensor, first: int, on_host: bool
    ) -> Tensor:
        """What goes into the first layer after `start`: features, or normalised views."""
        here = self._uploads.send(given) if on_host else given
        if start != PIXELS:
            return as_features(here, is_rounded(self._run))
        first += wanted.positions.start
        held = self._tables.pixels(wanted.part)
        if held is not None and on_host:
            held.values[first : first + len(here)].copy_(here)
        if not wanted.look.is_original and self._run.views_made_on == "device":
            here = look_all(here, self._draws(wanted.look).between(first, first + len(here)))
        return normalise(here)

    def _draws(self, look: Look) -> Draws:
        """On the device, copied there once per look."""
        if self._drawn is None or self._drawn[0] is not look:
            self._drawn = look, look.draws.to(self._device.torch)
        return self._drawn[1]

    def _refuse(self, wanted: Wanted, place: int) -> None:
        file = wanted.part.files[wanted.positions[place]]
        remedy = "resources.precision to float32"
        if is_rounded(self._run):
            remedy = "store.format to computed"
        raise RequestError(
            f"frozen features must be finite, but those of {file} exceed the range of float16; set {remedy}"
        )
