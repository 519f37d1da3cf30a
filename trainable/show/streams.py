"""Standard output and error of a command in any state: closed, full, gone, or unable to show some characters."""

import codecs
import io
import os
import sys
from typing import Any, Final

PLAIN: Final = {
    "…": "...",
    "–": "-",
    "·": "-",
    "→": "->",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
}
"""Substitutes for an encoding that lacks them; any other character is shown as Python would escape it."""
REPLACED: Final = "command.replaced"  # our error handler's name in Python's codecs


class Output(io.RawIOBase):
    """A file descriptor for output; a failed write is raised, or ignored if the command must go on."""

    def __init__(self, handle: int, goes_on: bool = False) -> None:
        self._handle = handle
        self.goes_on = goes_on

    @property
    def name(self) -> str:
        return {1: "standard output", 2: "standard error"}[self._handle]

    def fileno(self) -> int:
        return self._handle

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._handle)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._handle, data)
        except OSError as error:
            if not self.goes_on:
                raise OSError(error.errno, error.strerror, self.name) from None
            return memoryview(data).nbytes


def take_over() -> Output:
    """Replace standard output and error by such files, and return the former. Errors of the latter are never raised.

    Closed descriptors 0 to 2 are opened on /dev/null; otherwise the next opened file would get what is printed.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    codecs.register_error(REPLACED, _replaced)
    outputs = Output(1, goes_on=sys.stdout is None), Output(2, goes_on=True)
    sys.stdout, sys.stderr = (
        _text(raw, old) for raw, old in zip(outputs, (sys.stdout, sys.stderr), strict=True)
    )
    return outputs[0]


def _text(raw: Output, old: Any) -> Any:
    if old is not None and old not in (sys.__stdout__, sys.__stderr__):
        return old  # a program captures what we print
    encoding = getattr(old, "encoding", None) or "utf-8"
    if old is not None:
        old.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=REPLACED,
        line_buffering=raw.isatty() or raw.fileno() == 2,
    )


def go_on() -> None:
    """From now on, no failure of standard output ends this command: a sweep is worth more than its output."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Output):
        raw.goes_on = True


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    said = "".join(PLAIN.get(c, c.encode("unicode_escape").decode()) for c in lacking)
    return said, error.end
