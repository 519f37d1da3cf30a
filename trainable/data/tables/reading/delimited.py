"""Reads CSV and its relatives, and CelebA's own .txt."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trainable.data.tables.reading.sheet import (
    Rows,
    Sheet,
    header_and_rows,
    named_once,
    of_one_width,
    sheet_of,
)
from trainable.data.tables.reading.text import DELIMITERS, lines_of
from trainable.errors import RequestError

FIELD_LIMIT: Final = 2**24
"""Characters; Python's own limit is 131,072. Assumed."""
FIRST_COLUMN: Final = "image_id"
"""In CelebA's own .txt, the column of file names has no name."""


def text_sheet(path: Path, text: str, encoding: str) -> Sheet:
    first = lines_of(text.lstrip(), 1)[0].strip()
    if first.isascii() and first.isdigit():
        return _celeba(path, text, encoding)
    line, delimiter = _said_delimiter(text)
    if delimiter is None:
        delimiter = _delimiter(text, path)
    header, rows, ended = header_and_rows(_csv_rows(text, delimiter, path, skip=line), path)
    kept = of_one_width(rows, len(header), path, () if ended else header)
    separated = DELIMITERS.get(delimiter, repr(delimiter))
    return sheet_of(path, f"columns separated by {separated}, {encoding}", header, kept)


def _celeba(path: Path, text: str, encoding: str) -> Sheet:
    """A count, the names of the attributes, then rows that begin with the file name, all separated by blanks."""
    lines = [(n, line.split()) for n, line in enumerate(lines_of(text), 1) if line.strip()]
    (_, (count,)), names, rows = lines[0], lines[1:2], lines[2:]
    if not names or not rows:
        raise RequestError(
            f"{path} must be a table with a count, the columns' names and rows, but it ends earlier"
        )
    (number, header), (_, first) = names[0], rows[0]
    if len(header) == len(first) - 1:
        header = [FIRST_COLUMN, *header]
    elif len(header) != len(first):
        raise RequestError(
            f"line {number} of {path} must name the {len(first) - 1} columns after the file name, "
            f"but it names {len(header)}"
        )
    named_once(header, path)
    kept = of_one_width(iter(rows), len(header), path)
    return sheet_of(path, f"CelebA's own format, {encoding}", header, kept, int(count))


def _said_delimiter(text: str) -> tuple[int, str | None]:
    """How many lines a `sep=` line takes, and its delimiter."""
    found = re.match(r'\s*"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', text, re.IGNORECASE)
    return (1, found[1]) if found else (0, None)


def _delimiter(text: str, path: Path) -> str:
    """The delimiter: the one that gives the header several columns and every row as many.

    Raises:
        RequestError: no delimiter does, or several do.
    """
    widths = {}
    for delimiter in DELIMITERS:
        try:
            _, header = next(iter(_csv_rows(text, delimiter, path)), (0, []))
        except RequestError:  # something follows a quoted name
            continue
        if len(header) > 1:
            widths[delimiter] = len(header)
    if not widths:
        first = lines_of(text.strip(), 1)[0][:60]
        raise RequestError(
            f"{path} must be a table whose columns are separated by commas, semicolons or tabs, or as "
            f"a first line such as sep=| says, but its first line is {first!r}"
        )
    if len(widths) > 1:
        fitting = [each for each in widths if _fits(text, each, path)]
        if len(fitting) > 1:
            raise RequestError(
                f"the columns of {path} must be separated in one way, but it could be "
                f"{' or '.join(DELIMITERS[each] for each in fitting)}; add a first line sep=, or sep=;"
            )
        if fitting:
            return fitting[0]
    return max(widths, key=lambda each: widths[each])


def _fits(text: str, delimiter: str, path: Path) -> bool:
    try:
        header, rows, _ = header_and_rows(_csv_rows(text, delimiter, path), path)
        return bool(of_one_width(rows, len(header), path))
    except RequestError:
        return False


def _csv_rows(text: str, delimiter: str, path: Path, skip: int = 0) -> Rows:
    """Rows of a CSV (RFC 4180) without blank ones; a blank after a delimiter does not hide a quote."""
    csv.field_size_limit(FIELD_LIMIT)
    lines = io.StringIO(text, newline="")
    for _ in range(skip):
        lines.readline()
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RequestError(
                f"{path} must be a table, but line {reader.line_num + skip} can't be read: {error}; "
                "look for a quote that is never closed"
            ) from None
        if any(map(str.strip, row)):
            _refuse_swallowed(row, delimiter, path, reader.line_num + skip)
            yield reader.line_num + skip, row


def _refuse_swallowed(row: Sequence[str], delimiter: str, path: Path, line: int) -> None:
    """Refuse a row in which a stray quote has made one field of several rows."""
    for field_ in row:
        if "\n" in field_ or "\r" in field_:
            inner = lines_of(field_)[1:]
            if any(each.count(delimiter) >= len(row) - 1 > 0 for each in inner):
                raise RequestError(
                    f"{path} must be a table, but a quoted field that ends in line {line} holds whole rows; "
                    "look for a stray quote"
                )
