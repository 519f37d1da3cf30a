"""A table as in its file, and what must hold in any format: its header, and the width of its rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Final

import pandas as pd

from trainable.errors import RequestError

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
NAMES_ARE_IN: Final = frozenset(
    (
        "filename",
        "file_name",
        "file",
        "image_id",
        "image",
        "image_name",
        "image_path",
        "img",
        "path",
    )
)
"""Common names of the column of file names, in lower case."""
UNNAMED: Final = "unnamed "
"""The prefix of columns without a name."""


@dataclass(frozen=True)
class Sheet:
    """A table as in its file."""

    path: Path
    how: str
    """How it was read, such as `columns separated by commas, UTF-8`."""
    frame: pd.DataFrame
    """Text without surrounding blanks; "" for an empty field."""
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column: values that occur with and without surrounding blanks, and count as one."""
    said_rows: int | None = None
    """The number of rows in the first line of CelebA's own .txt."""


Rows = Iterable[tuple[int, list[str]]]


def header_and_rows(
    rows: Rows, path: Path
) -> tuple[list[str], Iterator[tuple[int, list[str]]], bool]:
    """The names of the columns, the rows below them, and whether the names end with a delimiter.

    Raises:
        RequestError: no names, file names in their place, or a repeated name.
    """
    below = iter(rows)
    number, header = next(below, (0, []))
    if not header:
        raise RequestError(f"{path} must be a table, but it is empty")
    header = [name.strip() for name in header]
    ended = not header[-1]
    while len(header) > 1 and not header[-1]:
        header.pop()
    named = [name for name in header if name.lower().endswith(IMAGE_SUFFIXES)]
    if named:
        raise RequestError(
            f"line {number} of {path} must name the columns, but it holds the file name {named[0]!r}; "
            "put a line with names above it"
        )
    return named_once(header, path), below, ended


def named_once(header: list[str], path: Path) -> list[str]:
    header = [name or f"{UNNAMED}{place}" for place, name in enumerate(header, 1)]
    again = [name for place, name in enumerate(header) if name in header[:place]]
    if again:
        raise RequestError(
            f"each column of {path} must have a name of its own, but {again[0]!r} occurs "
            f"{header.count(again[0])} times; rename or remove one"
        )
    return header


def of_one_width(rows: Rows, width: int, path: Path, header: Sequence[str] = ()) -> list[list[str]]:
    """The rows, each with `width` fields. An extra empty field comes from a delimiter at the end of a line.

    Raises:
        RequestError: a row has more or fewer, or it is unclear which field belongs to which name of the `header`.
    """
    kept = []
    ended = unended = longer = 0
    for number, row in rows:
        if len(row) > width and not row[-1].strip():
            ended, longer = ended or number, longer + 1
            while len(row) > width and not row[-1].strip():
                row.pop()
        elif not row[-1].strip():
            unended = unended or number
        if len(row) != width:
            raise RequestError(
                f"every row of {path} must have {width} fields like the header, "
                f"but line {number} has {len(row)}"
            )
        kept.append(list(map(intern, row)))  # a few values fill most columns
    if ended and unended:
        raise RequestError(
            f"every row of {path} must have {width} fields like the header, but line {unended} may lack the last "
            f"one: its end is empty, while lines such as {ended} end with an extra delimiter"
        )
    if longer == len(kept) > 0 and header and not _names_fit(header, kept[0]):
        raise RequestError(
            f"every row of {path} must have {width} fields like the header, but all have one more: it may be an "
            "empty last field, or a first field that the header does not name; name it there"
        )
    return kept


def _names_fit(header: Sequence[str], row: Sequence[str]) -> bool:
    """Are file names below the name of a file-name column?"""
    under = [
        name
        for name, value in zip(header, row, strict=True)
        if value.strip().lower().endswith(IMAGE_SUFFIXES)
    ]
    return len(under) == 1 and under[0].lower() in NAMES_ARE_IN


def sheet_of(
    path: Path,
    how: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    said_rows: int | None = None,
) -> Sheet:
    if not rows:
        raise RequestError(f"{path} must have rows, but it has none")
    columns, merged = {}, {}
    for name, column in zip(header, zip(*rows, strict=True), strict=True):
        plain = {value: value.strip() for value in set(column)}
        if any(value != bare for value, bare in plain.items()):
            both = {bare for value, bare in plain.items() if value != bare and bare in plain}
            if both := {bare for bare in both if bare}:
                merged[name] = tuple(sorted(both))
            column = tuple(plain[value] for value in column)
        columns[name] = pd.Series(column, dtype=object)
    return Sheet(path, how, pd.DataFrame(columns), merged, said_rows)
