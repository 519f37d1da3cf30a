"""Files of two columns beside a table, with a file name and a number in each row."""

import re
from collections.abc import Callable
from pathlib import Path

from trainable.data.tables.names import normal
from trainable.data.tables.reading.text import DELIMITERS, decoded, lines_of
from trainable.errors import RequestError


def read_pairs(path: Path) -> dict[str, int]:
    """A file name and a number in each row, separated by blanks, commas, semicolons or tabs, with or without a header.

    Raises:
        RequestError: it is not such a file, or names a file twice.
    """
    try:
        text, _ = decoded(path.read_bytes(), path)
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}") from None
    split = _pair_splitter(text)
    found: dict[str, int] = {}
    for number, line in enumerate(lines_of(text), 1):
        fields = split(line)
        if not fields or (number == 1 and len(fields) == 2 and not _is_whole(fields[1])):
            continue
        if len(fields) != 2 or not fields[0] or not _is_whole(fields[1]):
            raise RequestError(
                f"{path} must hold a file name and a number in each row, but line {number} is {line[:60]!r}"
            )
        name = normal(fields[0])
        if name in found:
            raise RequestError(
                f"{path} must name each file once, but {fields[0]!r} is repeated in line {number}"
            )
        found[name] = int(fields[1])
    if not found:
        raise RequestError(
            f"{path} must hold a file name and a number in each row, but it has no rows"
        )
    return found


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None


def _pair_splitter(text: str) -> Callable[[str], list[str]]:
    first = lines_of(text.lstrip(), 1)[0]
    for delimiter in DELIMITERS:
        if delimiter in first:
            return lambda line: (
                [f.strip().strip('"') for f in line.split(delimiter)] if line.strip() else []
            )
    return str.split
