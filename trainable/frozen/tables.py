"""What each resident table holds: features of a part at a cut, in the looks that trials have needed, or pixels."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from trainable.config import RunSettings
from trainable.data import LabelledImages
from trainable.frozen.chunks import Look, row_shape
from trainable.frozen.reference import row_format
from trainable.frozen.resident import Rank, Resident, Residents, Worth


class ResidentTables:
    """The resident tables of a run; a table may have rows that are not filled yet."""

    def __init__(self, run: RunSettings, layers: nn.Sequential, residents: Residents) -> None:
        self._run, self._layers, self._residents = run, layers, residents

    def features(self, part: LabelledImages, looks: list[Look], cut: int) -> Resident | None:
        """A table with a column of rows for each of `looks`; None if there is no room for it.

        Views that recur share one table, which grows by a column with the first trial that mirrors.
        """
        key, columns = _key(part, looks[0], cut), tuple(map(_column, looks))
        before = self._residents.get(key)
        if before is not None:
            columns = tuple(dict.fromkeys((*before.columns, *columns)))
            if columns == before.columns:
                return before
        drawn = looks[0].drawn
        worth = Worth(Rank.EPOCH, cut, -drawn[1]) if drawn else Worth(Rank.FIXED, cut)
        shape = len(part) * len(columns), *row_shape(self._layers, self._run.image_size, cut)
        table = self._residents.take(key, worth, shape, row_format(self._run))
        if table is None and before is not None:  # no room for both: filled from the store again
            self._residents.drop(key)
            before = None
            table = self._residents.take(key, worth, shape, row_format(self._run))
        if table is None:
            return None
        table.columns = columns
        if before is not None:
            before.settle()
            table.values[: len(before.values)].copy_(before.values)
            table.filled |= before.filled
        return table

    def first_row(self, part: LabelledImages, look: Look, table: Resident) -> int:
        """The first row of `look` in `table`."""
        return table.columns.index(_column(look)) * len(part)

    def rows(self, part: LabelledImages, look: Look, positions: range, cut: int) -> Tensor | None:
        """The rows of the images at `positions`, if they are filled."""
        table = self._residents.get(_key(part, look, cut))
        if table is None or _column(look) not in table.columns:
            return None
        first = self.first_row(part, look, table) + positions.start
        return table.values[first : first + len(positions)] if first in table.filled else None

    def pixels(self, part: LabelledImages) -> Resident | None:
        """Decoded images (images, 3, size, size) uint8, some of them filled; `filled` has the first of each chunk."""
        return self._residents.get(("pixels", id(part)))

    def hold_pixels(self, part: LabelledImages) -> Resident | None:
        """The same, allocated if there is room besides everything else."""
        shape = len(part), 3, self._run.image_size, self._run.image_size
        return self.pixels(part) or self._residents.take(
            ("pixels", id(part)), Worth(Rank.DECODED), shape, torch.uint8
        )


def _key(part: LabelledImages, look: Look, cut: int) -> Hashable:
    return id(part), cut, look.drawn


def _column(look: Look) -> Hashable:
    return look.drawn or look.views[0]
