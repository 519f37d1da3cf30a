"""Tables read by their own text: CSV, TSV, CelebA's .txt, Parquet, Excel. Every value is the text that stands there.

What a file is, its content says and not its name. Nothing is guessed: rows of another length than the header's, a
repeated header or an unknown encoding are refused, and which words mean "missing" is for others to decide.
"""

import codecs
import csv
import io
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from sys import intern
from typing import Any, Final

import pandas as pd

from trainable.config import RequestError

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".parquet", ".xlsx")
"""Of tables that are found beside the images without being named."""
DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
MARKS: Final = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
COMPRESSED: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
FIELD_LIMIT: Final = 2**24
"""Characters; Python's own is 131,072."""
OLD_EXCEL: Final = b"\xd0\xcf\x11\xe0"
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
"""What people call the column of file names, in small letters."""
UNNAMED: Final = "unnamed "
"""How columns without a name begin."""
FIRST_COLUMN: Final = "image_id"
"""CelebA's own .txt leaves the column of file names without a name."""


@dataclass(frozen=True)
class Sheet:
    """A table as its file has it."""

    path: Path
    how: str
    """How it was read, such as `columns separated by commas, UTF-8`."""
    frame: pd.DataFrame
    """Text without the blanks around it; "" where nothing stands."""
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column: values that were written with and without blanks around them, and count as one."""
    said_rows: int | None = None
    """How many rows the first line says there are, in CelebA's own .txt."""


Rows = Iterable[tuple[int, list[str]]]
"""Fields of each row, with the number of its line."""


def read_sheet(path: Path) -> Sheet:
    """The table in `path`.

    Raises:
        RequestError: it can't be read, or is no such table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{path} must be a table, but reading it says: {error.strerror}"
        ) from None
    if content.startswith(b"PAR1"):
        return _parquet(path)
    if content.startswith(b"PK\x03\x04"):
        return _excel(path)
    for magic, what in COMPRESSED:
        if content.startswith(magic):
            raise RequestError(f"{path} must be a table, but it is compressed ({what}); extract it")
    if content.startswith(OLD_EXCEL):
        raise RequestError(
            f"{path} must be a table, but it is an Excel file of the old kind; save it as .xlsx or CSV"
        )
    text, encoding = decoded(content, path)
    return _text(path, text, encoding)


def decoded(content: bytes, path: Path) -> tuple[str, str]:
    """The text of a file and the name of its encoding: UTF-8, or what a byte order mark says.

    Raises:
        RequestError: another encoding, or no text.
    """
    marked = [(codec, name) for mark, codec, name in MARKS if content.startswith(mark)]
    codec, name = (*marked, ("utf-8", "UTF-8"))[0]
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        what = _likely(content)
        line = content.count(b"\n", 0, error.start) + 1
        raise RequestError(
            f"{path} must be UTF-8 text, but line {line} is not; {what}; save it again as UTF-8"
        ) from None
    if "\0" in text:
        raise RequestError(
            f"{path} must be UTF-8 text, but it holds zero bytes; {_likely(content)}; save it again as UTF-8"
        )
    return text.lstrip("\ufeff"), name


def _likely(content: bytes) -> str:
    """Which encoding that is not UTF-8 a text may have."""
    some = content[:4096]
    if some.count(0) > len(some) // 4:
        return "it may be UTF-16 without a byte order mark"
    if some.count(0):
        return "it is no text"
    return "it may be Windows-1252 or another encoding of one byte a letter"


# ---------------------------------------------------------------- text


def _text(path: Path, text: str, encoding: str) -> Sheet:
    first = _lines(text.lstrip(), 1)[0].strip()
    if first.isascii() and first.isdigit():
        return _celeba(path, text, encoding)
    line, delimiter = _said_delimiter(text)
    if delimiter is None:
        delimiter = _delimiter(text, path)
    header, rows, ended = _header(_csv_rows(text, delimiter, path, skip=line), path)
    kept = _same_width(rows, len(header), path, () if ended else header)
    separated = DELIMITERS.get(delimiter, repr(delimiter))
    return _sheet(path, f"columns separated by {separated}, {encoding}", header, kept)


def _lines(text: str, breaks: int = 0) -> list[str]:
    """At the first so many line breaks, or at all; `str.splitlines` breaks at other signs too."""
    return re.split(r"\r\n|\r|\n", text, maxsplit=breaks)


def _celeba(path: Path, text: str, encoding: str) -> Sheet:
    """A count, the names of the attributes, then rows that begin with the file name, all separated by blanks."""
    lines = [(n, line.split()) for n, line in enumerate(_lines(text), 1) if line.strip()]
    (_, (count,)), names, rows = lines[0], lines[1:2], lines[2:]
    if not names or not rows:
        raise RequestError(
            f"{path} must be a table with a count, the columns' names and rows, but it ends before"
        )
    (number, header), (_, first) = names[0], rows[0]
    if len(header) == len(first) - 1:
        header = [FIRST_COLUMN, *header]
    elif len(header) != len(first):
        raise RequestError(
            f"line {number} of {path} must name the {len(first) - 1} columns after the file name, "
            f"but it names {len(header)}"
        )
    _refuse_repeated(header, path)
    kept = _same_width(iter(rows), len(header), path)
    return _sheet(path, f"CelebA's own format, {encoding}", header, kept, int(count))


def _said_delimiter(text: str) -> tuple[int, str | None]:
    """How many lines a `sep=` takes, and what it says."""
    found = re.match(r'\s*"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', text, re.IGNORECASE)
    return (1, found[1]) if found else (0, None)


def _delimiter(text: str, path: Path) -> str:
    """What separates the columns: what gives a header of several and all rows the same.

    Raises:
        RequestError: nothing does, or more than one.
    """
    widths = {}
    for delimiter in DELIMITERS:
        try:
            _, header = next(iter(_csv_rows(text, delimiter, path)), (0, []))
        except RequestError:  # a quoted name is followed by something else
            continue
        if len(header) > 1:
            widths[delimiter] = len(header)
    if not widths:
        first = _lines(text.strip(), 1)[0][:60]
        raise RequestError(
            f"{path} must be a table whose columns are separated by commas, semicolons or tabs, or by what "
            f"a first line such as sep=| says, but its first line is {first!r}"
        )
    if len(widths) > 1:
        fitting = [each for each in widths if _fits(text, each, path)]
        if len(fitting) > 1:
            raise RequestError(
                f"the columns of {path} must be separated in one way, but it could be "
                f"{' or '.join(DELIMITERS[each] for each in fitting)}; put a first line sep=, or sep=; there"
            )
        if fitting:
            return fitting[0]
    return max(widths, key=lambda each: widths[each])


def _fits(text: str, delimiter: str, path: Path) -> bool:
    try:
        header, rows, _ = _header(_csv_rows(text, delimiter, path), path)
        return bool(_same_width(rows, len(header), path))
    except RequestError:
        return False


def _csv_rows(text: str, delimiter: str, path: Path, skip: int = 0) -> Rows:
    """Rows of a CSV (RFC 4180) but blank ones; a blank after a delimiter does not hide a quote."""
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
                f"{path} must be a table, but line {reader.line_num + skip} says: {error}; "
                "look for a quote that is never closed"
            ) from None
        if any(map(str.strip, row)):
            _refuse_swallowed(row, delimiter, path, reader.line_num + skip)
            yield reader.line_num + skip, row


def _refuse_swallowed(row: Sequence[str], delimiter: str, path: Path, line: int) -> None:
    """Has a stray quote made one field of several rows?"""
    for field_ in row:
        if "\n" in field_ or "\r" in field_:
            inner = _lines(field_)[1:]
            if any(each.count(delimiter) >= len(row) - 1 > 0 for each in inner):
                raise RequestError(
                    f"{path} must be a table, but a quoted field that ends in line {line} holds whole rows; "
                    "look for a stray quote"
                )


def _header(rows: Rows, path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]], bool]:
    """The names of the columns, the rows below them, and whether a delimiter ends the names.

    Raises:
        RequestError: no names, names of files in their place, or a name twice.
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
    return _refuse_repeated(header, path), below, ended


def _refuse_repeated(header: list[str], path: Path) -> list[str]:
    header = [name or f"{UNNAMED}{place}" for place, name in enumerate(header, 1)]
    again = [name for place, name in enumerate(header) if name in header[:place]]
    if again:
        raise RequestError(
            f"each column of {path} must have a name of its own, but {again[0]!r} is there "
            f"{header.count(again[0])} times; rename or remove one"
        )
    return header


def _same_width(rows: Rows, width: int, path: Path, header: Sequence[str] = ()) -> list[list[str]]:
    """The rows, each of `width` fields. An empty field too many is what a delimiter at the end of a line leaves.

    Raises:
        RequestError: a row has more or fewer, or it is not certain which field belongs to which name of the `header`.
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
                f"every row of {path} must have {width} fields as the header has, "
                f"but line {number} has {len(row)}"
            )
        kept.append(list(map(intern, row)))  # a few values fill most columns
    if ended and unended:
        raise RequestError(
            f"every row of {path} must have {width} fields as the header has, but line {unended} may lack the last "
            f"one: its end is empty, and lines such as {ended} end with a delimiter besides"
        )
    if longer == len(kept) > 0 and header and not _names_fit(header, kept[0]):
        raise RequestError(
            f"every row of {path} must have {width} fields as the header has, but all have one more: it may be an "
            "empty last one, or a first one that the header does not name; name it there"
        )
    return kept


def _names_fit(header: Sequence[str], row: Sequence[str]) -> bool:
    """Do file names stand below the name of a column of such?"""
    under = [
        name
        for name, value in zip(header, row, strict=True)
        if value.strip().lower().endswith(IMAGE_SUFFIXES)
    ]
    return len(under) == 1 and under[0].lower() in NAMES_ARE_IN


def _sheet(
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


# ---------------------------------------------------------------- Parquet and Excel


def _parquet(path: Path) -> Sheet:
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        columns = [list(map(_as_text, column.to_pylist())) for column in table.columns]
    except Exception as error:  # a damaged file, letters that are none, dates beyond the calendar: many kinds of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(
            f"{path} must be a whole Parquet file, but reading it says: {reason}"
        ) from None
    header = _refuse_repeated([str(name).strip() for name in table.column_names], path)
    return _sheet(path, "Parquet", header, list(zip(*columns, strict=True)))


def _excel(path: Path) -> Sheet:
    """The one sheet that holds anything."""
    try:
        import openpyxl
    except ImportError:
        raise RequestError(
            f"{path} is an Excel file, which needs a reader; pip install 'face-attribute-sweep[excel]', "
            "or save it as CSV"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: list(_excel_rows(sheet)) for sheet in book.worksheets}
    except Exception as error:  # a zip of another kind, or a damaged one: many kinds of errors
        raise RequestError(
            f"{path} must be a table, but it is a zip and no Excel file ({error}); extract it"
        ) from None
    full = {title: rows for title, rows in sheets.items() if rows}
    if len(full) != 1:
        raise RequestError(
            f"{path} must have one sheet that holds a table, but {len(full)} hold something"
            f"{': ' if full else ''}{', '.join(full)}; save the one as CSV"
        )
    ((title, found),) = full.items()
    widest = max(len(row) for _, row in found)
    padded = ((number, row + [""] * (widest - len(row))) for number, row in found)
    header, rows, _ = _header(padded, path)
    return _sheet(path, f"Excel, sheet {title}", header, _same_width(rows, len(header), path))


def _excel_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    sheet.reset_dimensions()  # what some programs write there is wrong
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        texts = list(map(_as_text, row))
        if any(texts):
            yield number, texts


def _as_text(value: object) -> str:
    """As a CSV would have it; whole numbers without a point."""
    if value is None or value != value:  # not a number
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if isinstance(value, date) else str(value)


# ---------------------------------------------------------------- files of two columns


def read_pairs(path: Path) -> dict[str, int]:
    """A file name and a number in each row, separated by blanks, commas, semicolons or tabs, under a header or none.

    Raises:
        RequestError: it is no such file, or names a file twice.
    """
    try:
        text, _ = decoded(path.read_bytes(), path)
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}") from None
    split = _pair_splitter(text)
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(text), 1):
        fields = split(line)
        if not fields or (number == 1 and len(fields) == 2 and not _is_whole(fields[1])):
            continue
        if len(fields) != 2 or not fields[0] or not _is_whole(fields[1]):
            raise RequestError(
                f"{path} must hold a file name and a number in each row, but line {number} is {line[:60]!r}"
            )
        name = _plain(fields[0])
        if name in found:
            raise RequestError(
                f"{path} must name each file once, but {fields[0]!r} is there again in line {number}"
            )
        found[name] = int(fields[1])
    if not found:
        raise RequestError(
            f"{path} must hold a file name and a number in each row, but it has no rows"
        )
    return found


def _plain(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/"))


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None


def _pair_splitter(text: str) -> Callable[[str], list[str]]:
    first = _lines(text.lstrip(), 1)[0]
    for delimiter in DELIMITERS:
        if delimiter in first:
            return lambda line: (
                [f.strip().strip('"') for f in line.split(delimiter)] if line.strip() else []
            )
    return str.split
