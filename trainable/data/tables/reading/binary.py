"""Reads Parquet and Excel. Every value is given as a CSV would have it."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from trainable.data.tables.reading.sheet import (
    Sheet,
    header_and_rows,
    named_once,
    of_one_width,
    sheet_of,
)
from trainable.errors import RequestError


def parquet_sheet(path: Path) -> Sheet:
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        columns = [list(map(_as_text, column.to_pylist())) for column in table.columns]
    except Exception as error:  # damaged files, invalid characters, impossible dates
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(
            f"{path} must be a whole Parquet file, but it can't be read: {reason}"
        ) from None
    header = named_once([str(name).strip() for name in table.column_names], path)
    return sheet_of(path, "Parquet", header, list(zip(*columns, strict=True)))


def excel_sheet(path: Path) -> Sheet:
    """The only sheet that holds anything."""
    try:
        import openpyxl
    except ImportError:
        raise RequestError(
            f"{path} is an Excel file, which needs openpyxl; pip install 'face-attribute-sweep[excel]', "
            "or save it as CSV"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: list(_excel_rows(sheet)) for sheet in book.worksheets}
    except Exception as error:  # a zip of another kind, or a damaged one: many kinds of errors
        raise RequestError(
            f"{path} must be a table, but it is a zip and not an Excel file ({error}); extract it"
        ) from None
    full = {title: rows for title, rows in sheets.items() if rows}
    if len(full) != 1:
        raise RequestError(
            f"{path} must have exactly one sheet with content, but {len(full)} have some"
            f"{': ' if full else ''}{', '.join(full)}; save the right one as CSV"
        )
    ((title, found),) = full.items()
    widest = max(len(row) for _, row in found)
    padded = ((number, row + [""] * (widest - len(row))) for number, row in found)
    header, rows, _ = header_and_rows(padded, path)
    return sheet_of(path, f"Excel, sheet {title}", header, of_one_width(rows, len(header), path))


def _excel_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    sheet.reset_dimensions()  # some programs write wrong ones
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
