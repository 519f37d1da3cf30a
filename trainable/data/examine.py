"""Examines a data set before training: table, split, every image, and what overlaps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from trainable.config import DataConfig
from trainable.data import FaceTable, make_split, open_table, split_said, split_warnings
from trainable.data.inspection import Inspection, inspect_images
from trainable.data.overlap import Overlap, find_overlap
from trainable.errors import RequestError
from trainable.hardware.cache import default_folder

Progress = Callable[[int], None]
Begin = Callable[[str, int], Progress]


def no_progress(text: str, total: int) -> Progress:
    """Show nothing."""
    return lambda count: None


@dataclass(frozen=True)
class Opened:
    """A table that was read and split, before its images are inspected."""

    table: FaceTable
    split: pd.DataFrame
    """file, label, part, and identity if known."""


@dataclass(frozen=True)
class Examined:
    """What is known about a data set."""

    table: FaceTable
    split: pd.DataFrame
    """file, label, part, sha256, and identity if known."""
    inspection: Inspection
    overlap: Overlap
    parted: str
    """How the split was made."""

    def understood(self) -> tuple[str, str, str]:
        """What was read: table and images; the target's values; how the split was made, and what was joined for it."""
        return (
            self.table.found,
            f"target {self.table.target}: {self.table.labelled}",
            f"split: {self.parted}",
        )

    def warnings(self) -> Iterator[str]:
        """What the user should know before trusting a figure on this data."""
        yield from split_warnings(self.split)
        for files, what in (
            (self.table.dropped, "rows without an image"),
            (self.table.unlabelled, "images without a label"),
            (self.table.unreadable, "images that can't be decoded"),
        ):
            if files:
                shown = ", ".join(files[:5]) + (", …" if len(files) > 5 else "")
                yield f"{len(files):,} {what} are left out: {shown}"
        yield from self.table.notes
        yield from self.overlap.said()


def open_data(data: DataConfig) -> Opened:
    """Read the table and split it, which takes seconds.

    Raises:
        RequestError: the table or the split can't be used.
    """
    table = open_table(data)
    return Opened(table, make_split(table, data.split))


def examine(data: DataConfig, begin: Begin = no_progress, opened: Opened | None = None) -> Examined:
    """Read the table, split it, and inspect every image; `begin(text, total)` returns a progress callback.

    `opened` is what `open_data` returned for `data`, if it was called before.

    Raises:
        RequestError: the table, the split or an image can't be used.
    """
    opened = opened or open_data(data)
    table, split = opened.table, opened.split
    files = list(table.rows["file"])
    looked = inspect_images(
        table.images, files, default_folder(), begin("checking every image", len(files))
    )
    if looked.problems and data.unreadable == "refuse":
        file, problem = looked.problems[0]
        others = f" (and {len(looked.problems) - 1:,} more)" if len(looked.problems) > 1 else ""
        raise RequestError(
            f"every image must be readable, but {table.images / file} {problem}{others}; "
            f"replace it, or set data.unreadable=drop to leave it out"
        )
    if looked.problems:
        table = table.without({file for file, _ in looked.problems})
        split, looked = make_split(table, data.split), looked.sound
    split["sha256"] = looked.images["sha256"].to_numpy()
    overlap = find_overlap(split, looked.column("pixels"), looked.column("perceptual"))
    return Examined(table, split, looked, overlap, split_said(table, data.split, split))
