"""Zips that are damaged, or made by a program that knows more than Python's reader."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

DIRECTORY: Final = b"PK\x01\x02"
"""What an entry of a zip's directory begins with; the offsets are those of PKWARE's APPNOTE, 4.3.12."""


def zip_of(path: Path, name: str = "a.jpg", compression: int = zipfile.ZIP_DEFLATED) -> bytearray:
    """A zip at `path` with one file of 5,000 bytes; its content."""
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr(name, bytes(range(250)) * 20)
    return bytearray(path.read_bytes())


def _changed(
    path: Path,
    offset: int,
    new: bytes,
    name: str = "a.jpg",
    compression: int = zipfile.ZIP_DEFLATED,
) -> None:
    content = zip_of(path, name, compression)
    at = content.index(DIRECTORY) + offset
    content[at : at + len(new)] = new
    path.write_bytes(content)


def cut_from_its_directory(path: Path) -> None:
    content = zip_of(path)
    at = content.index(DIRECTORY)
    path.write_bytes(content[: at + 10] + content[at + 20 :])


def of_a_later_version(path: Path) -> None:
    _changed(path, 6, b"\x99")


def with_a_name_that_is_no_utf8(path: Path) -> None:
    _changed(path, 46, b"\xff", name="ä.jpg")


def ending_too_early(path: Path) -> None:
    """Its directory says that the only file is longer than the zip."""
    length = (9_999).to_bytes(4, "little")
    _changed(path, 20, length * 2, compression=zipfile.ZIP_STORED)


def compressed_as_unknown(path: Path) -> None:
    _changed(path, 10, b"\x63")


def with_another_sum(path: Path) -> None:
    _changed(path, 16, bytes(4))


def encrypted(path: Path) -> None:
    _changed(path, 8, b"\x01")


UNOPENED: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "cut": (cut_from_its_directory, "directory"),
    "later version": (of_a_later_version, "zip file version 15.3"),
    "no UTF-8": (with_a_name_that_is_no_utf8, "'utf-8' codec can't decode byte 0xff"),
}
"""Zips whose list of files cannot be read, each with what is said of it."""
UNREAD: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "ends too early": (ending_too_early, "it is damaged: it ends too early"),
    "unknown compression": (compressed_as_unknown, "That compression method is not supported"),
    "another sum": (with_another_sum, "it is damaged: Bad CRC-32 for file 'a.jpg'"),
}
"""Zips whose list can be read, and not the file in them."""
