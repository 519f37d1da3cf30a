"""The rows of all trials as columns, which Arrow parses in one go; if it can't, they are parsed line by line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.json import ParseOptions, ReadOptions, read_json

from sweep.search.ranking import best_row
from trainable.metric import Metric
from trainable.records.rows import ADDED, ROW_COLUMNS, Row
from trainable.records.trial_folder import TrialRecord

_TYPES: Final[dict[Any, pa.DataType]] = {int: pa.int64(), float: pa.float64(), str: pa.string()}
SCHEMA: Final = pa.schema(
    [(each.name, _TYPES[each.type]) for each in fields(Row) if each.name in ROW_COLUMNS]
)
BLOCK_BYTES: Final = 2**24
"""What a thread parses at a time; with Arrow's default of 1 MiB it takes half as long again (docs/log.md)."""


@dataclass(frozen=True)
class Epochs:
    """Every epoch of every trial, one trial after the other."""

    table: pa.Table
    """With the columns of SCHEMA, without missing values."""
    starts: tuple[int, ...]
    """Where the rows of each trial begin, and finally where the last one's end."""

    @cached_property
    def columns(self) -> Mapping[str, list[Any]]:
        """The values of each of ROW_COLUMNS."""
        return {name: self.table[name].to_numpy().tolist() for name in ROW_COLUMNS}

    def of(self, place: int) -> "TrialEpochs":
        """The epochs of the trial at this index."""
        return TrialEpochs(self, self.starts[place], self.starts[place + 1])


@dataclass(frozen=True)
class TrialEpochs:
    """Every epoch of one trial."""

    among: Epochs
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def column(self, name: str) -> list[Any]:
        """The values of one of ROW_COLUMNS."""
        return self.among.columns[name][self.start : self.stop]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        columns = (self.column(name) for name in ROW_COLUMNS)
        return tuple(Row(*values) for values in zip(*columns, strict=True))

    def best(self, metric: Metric) -> Row | None:
        """The best epoch. Only epochs with the highest value of the metric are made into rows."""
        if not len(self):
            return None
        scores = [metric.score(value) for value in self.column(metric.value)]
        highest = max(scores)
        return best_row(
            (self._row(place) for place, score in enumerate(scores) if not score < highest), metric
        )

    def _row(self, place: int) -> Row:
        columns, at = self.among.columns, self.start + place
        return Row(*(columns[name][at] for name in ROW_COLUMNS))


def parse_epochs(records: Sequence[TrialRecord], lines: Sequence[bytes]) -> Epochs:
    """The epochs in the complete `lines` that were read from each of `records`.

    Raises:
        RequestError: a record is damaged.
    """
    counts = [each.count(b"\n") for each in lines]
    table = _at_once(b"".join(lines), counts)
    if table is None:
        parts = (_line_by_line(record, each) for record, each in zip(records, lines, strict=True))
        table = pa.concat_tables(parts)
    return Epochs(table, tuple(accumulate(counts, initial=0)))


def _at_once(lines: bytes, counts: Sequence[int]) -> pa.Table | None:
    """The table; None if anything is not as a trial writes it."""
    if not lines:
        return SCHEMA.empty_table()
    if not _is_plain(lines, sum(counts)):
        return None
    parts = ReadOptions(block_size=BLOCK_BYTES)
    options = ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    try:
        table = read_json(pa.BufferReader(lines), parts, options)
    except pa.ArrowInvalid:
        return None
    for name, value in ADDED.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, SCHEMA.field(place), table[name].fill_null(value))
    numbers = np.fromiter(chain.from_iterable(range(1, n + 1) for n in counts), np.int64)
    known = all(column.null_count == 0 for column in table.columns)
    if not known or not np.array_equal(table["epoch"].to_numpy(), numbers):
        return None
    return table if _are_times(table["ended_at"]) else None


def _are_times(texts: pa.ChunkedArray) -> bool:
    """Are all of them ISO 8601, or empty?"""
    try:
        pc.cast(pc.if_else(pc.equal(texts, ""), None, texts), pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return False
    return True


def _is_plain(lines: bytes, count: int) -> bool:
    """Is there one object per line, in ASCII, without null?

    Arrow would also accept two objects on a line, one object over two lines, and bytes that are not text; it doesn't
    distinguish null from a missing key; and it crashes the process if the first line contains null (26.0.1).
    """
    return (
        lines.isascii()
        and b"null" not in lines
        and lines.startswith(b"{")
        and lines.endswith(b"}\n")
        and lines.count(b"}\n{") == count - 1
    )


def _line_by_line(record: TrialRecord, lines: bytes) -> pa.Table:
    rows = record.parse_rows(lines)
    with record.readable_rows():
        columns = [
            pa.array([_KINDS[each.type](getattr(row, each.name)) for row in rows], each.type)
            for each in SCHEMA
        ]
    return pa.table(columns, schema=SCHEMA)


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


_KINDS: Final[dict[pa.DataType, Callable[[Any], Any]]] = {
    pa.int64(): _whole,
    pa.float64(): float,
    pa.string(): lambda text: text,  # a time or None, as Row.from_json has checked
}
