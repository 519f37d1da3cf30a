"""Reads tables as text: CSV, TSV, CelebA's .txt, Parquet, Excel. Every value is the text in the file.

The format follows from the content, not the name. Nothing is guessed: rows of another length than the header's, a
repeated header or an unknown encoding are refused, and which words mean "missing" is decided elsewhere.
"""

from pathlib import Path
from typing import Final

from trainable.data.tables.reading.binary import excel_sheet, parquet_sheet
from trainable.data.tables.reading.delimited import text_sheet
from trainable.data.tables.reading.sheet import IMAGE_SUFFIXES, NAMES_ARE_IN, UNNAMED, Sheet
from trainable.data.tables.reading.text import decoded
from trainable.errors import RequestError

__all__ = [
    "IMAGE_SUFFIXES",
    "NAMES_ARE_IN",
    "TABLE_SUFFIXES",
    "UNNAMED",
    "Sheet",
    "read_sheet",
]

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".parquet", ".xlsx")
"""Of tables that are found beside the images if none is named."""
COMPRESSED: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
OLD_EXCEL: Final = b"\xd0\xcf\x11\xe0"


def read_sheet(path: Path) -> Sheet:
    """The table in `path`.

    Raises:
        RequestError: it can't be read, or is not such a table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{path} must be a table, but it can't be read: {error.strerror}"
        ) from None
    if content.startswith(b"PAR1"):
        return parquet_sheet(path)
    if content.startswith(b"PK\x03\x04"):
        return excel_sheet(path)
    for magic, what in COMPRESSED:
        if content.startswith(magic):
            raise RequestError(f"{path} must be a table, but it is compressed ({what}); extract it")
    if content.startswith(OLD_EXCEL):
        raise RequestError(
            f"{path} must be a table, but it is in the old Excel format; save it as .xlsx or CSV"
        )
    text, encoding = decoded(content, path)
    return text_sheet(path, text, encoding)
