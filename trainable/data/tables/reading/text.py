"""The text of a file: its encoding, its lines, and its delimiters."""

import codecs
import re
from pathlib import Path
from typing import Final

from trainable.errors import RequestError

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
MARKS: Final = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)


def decoded(content: bytes, path: Path) -> tuple[str, str]:
    """The text of a file and the name of its encoding: UTF-8, or the one of its byte order mark.

    Raises:
        RequestError: another encoding, or not text.
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
            f"{path} must be UTF-8 text, but it contains null bytes; {_likely(content)}; save it again as UTF-8"
        )
    return text.lstrip("\ufeff"), name


def _likely(content: bytes) -> str:
    """A guess at the encoding of a text that is not UTF-8."""
    some = content[:4096]
    if some.count(0) > len(some) // 4:
        return "it may be UTF-16 without a byte order mark"
    if some.count(0):
        return "it is not text"
    return "it may be Windows-1252 or another single-byte encoding"


def lines_of(text: str, breaks: int = 0) -> list[str]:
    """Split at the first `breaks` line breaks, or at all; `str.splitlines` also splits at other characters."""
    return re.split(r"\r\n|\r|\n", text, maxsplit=breaks)
