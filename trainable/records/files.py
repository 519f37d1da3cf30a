"""Files that survive a crash: write aside, fsync, rename; JSON without NaN; lines that can be cut anywhere."""

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator

from trainable.errors import RequestError

LOG = logging.getLogger(__name__)
STREAMED_BYTES: Final = 2**25  # written to disk at a time; the only value measured (docs/log.md)
StrPath = str | Path
LONGEST_LINE: Final = 2**16
"""Bytes that are searched for the last line of a file, unless it is longer. Assumed: a row has about 600."""


class File(io.FileIO):
    """An open file without a buffer: `write` writes everything, `sync` brings it to disk."""

    def write(self, content: Any, /) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        while left:
            left = left[super().write(left) :]
        return size

    @property
    def size(self) -> int:
        return os.fstat(self.fileno()).st_size

    def sync(self) -> None:
        os.fsync(self.fileno())


class Disk:
    """All operations on the records, as steps between any two of which a process may be killed.

    Tests replace it: one goes through every order of the steps of several processes, one cuts the power after any of
    them. Each step is atomic to observers, except writing to an open file, of which a part can be seen. Unless stated
    otherwise, a power cut can undo a step until the file or its folder is synced.
    """

    def open(self, path: Path, mode: str) -> File:
        """Open a file to write to it; `mode` is wb, ab+ or rb+ as in Python, or xb if it must not exist yet.

        Raises:
            FileExistsError: mode xb, and it exists; of many processes that try, only one creates it.
        """
        return File(path, mode)

    def create(self, path: Path) -> None:
        """Create an empty file that does not exist yet (O_EXCL).

        Raises:
            FileExistsError: it exists.
        """
        self.open(path, "xb").close()

    def write(self, path: Path, content: bytes) -> None:
        """Write `content` to the file; it is on disk when this returns, but not the name of a new file."""
        with self.open(path, "wb") as file:
            file.write(content)
            file.sync()

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file within one folder."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Delete the file, if it exists."""
        path.unlink(missing_ok=True)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def names(self, folder: Path) -> list[str]:
        """The names in the folder; none if it does not exist."""
        return os.listdir(folder) if folder.is_dir() else []

    def moved(self, path: Path) -> int | None:
        """When the file was last written or touched, by the file server's clock, in nanoseconds; None without a file.

        The file is opened, since a network file system may otherwise report an old time.
        """
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(handle).st_mtime_ns
        finally:
            os.close(handle)

    def touch(self, path: Path) -> None:
        """Set the file's time to now.

        Raises:
            FileNotFoundError: it does not exist.
        """
        os.utime(path)

    def make_folder(self, path: Path) -> None:
        """Create the folder if it does not exist; its parent must."""
        path.mkdir(exist_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Delete the folder with everything in it, in any order, as far as possible."""
        shutil.rmtree(path, ignore_errors=True)

    def sync(self, folder: Path) -> None:
        """Make everything created, renamed and deleted in the folder survive a power cut."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_disk = Disk()


def current_disk() -> Disk:
    """The disk that records are written to."""
    return _disk


@contextmanager
def writing_to(disk: Disk) -> Iterator[None]:
    """Replace the real disk by another one, for a test."""
    global _disk
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, through the current disk, which replaces it at the end.

    A reader, or a crash at any moment, sees either the old or the new file complete.
    """
    disk = current_disk()
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        with disk.open(aside, "rb+") as file:
            file.sync()
        disk.rename(aside, path)
    finally:
        disk.unlink(aside)
    disk.sync(path.parent)


class Streamed(io.RawIOBase):
    """A large file to write once: every 32 MiB are written to disk and leave the page cache before more follow.

    Otherwise gigabytes of weights fill the cache, which takes fresh memory (two to three times as long where that is
    slow to get, as on virtual machines) and evicts what is read again and again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = current_disk().open(path, "wb")
        self._settled = 0

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        for start in range(0, len(view), STREAMED_BYTES):
            self._file.write(view[start : start + STREAMED_BYTES])
            if self._file.tell() - self._settled >= STREAMED_BYTES:
                self._settle()
        return len(view)

    def _settle(self) -> None:
        self._settled = self._file.tell()
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.fdatasync(self._file.fileno())
            os.posix_fadvise(self._file.fileno(), 0, self._settled, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        self._file.close()
        super().close()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, entirely or not at all."""
    with replaced(path) as aside, current_disk().open(aside, "wb") as file:
        file.write(content)


def settle_file(path: Path) -> None:
    """Sync a file, if it exists, before acting on it: its writer may have died before doing so."""
    if path.exists():
        with current_disk().open(path, "rb+") as file:
            file.sync()


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents; none of them can be lost once this returns."""
    disk = current_disk()
    made = [path, *(each for each in path.parents if not each.exists())]
    for each in reversed(made):
        disk.make_folder(each)
        disk.sync(each.parent)  # even if it existed: its creator may have died before this


def to_json(facts: Mapping[str, Any]) -> bytes:
    """`facts` as indented JSON; NaN is refused, since other readers can't read it."""
    return (json.dumps(facts, indent=2, allow_nan=False, default=str) + "\n").encode()


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    write_atomically(path, to_json(facts))


def read_bytes(path: StrPath) -> bytes:
    """The content of a file, with its length when opened; twice as fast as `Path.read_bytes`, and a run has many files.

    Raises:
        FileNotFoundError: it does not exist.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(handle).st_size
        content = os.read(handle, size)
        while len(content) < size and (part := os.read(handle, size - len(content))):
            content += part
        return content
    finally:
        os.close(handle)


def read_json(path: StrPath) -> dict[str, Any]:
    """The object in `path`.

    Raises:
        RequestError: there is no such file, or it holds no JSON object.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}; is its folder a run folder?") from None
    return parse_json(content, path)


def parse_json(content: bytes, path: StrPath) -> dict[str, Any]:
    """The object in the `content` of `path`.

    Raises:
        RequestError: it is not a JSON object.
    """
    try:
        facts = json.loads(content)
    except ValueError as error:
        raise RequestError(f"{path} must hold JSON, but it can't be read: {error}") from None
    if not isinstance(facts, dict):
        raise RequestError(f"{path} must hold a JSON object, but it holds {type(facts).__name__}")
    return facts


def append_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Add one line; it is on disk when this returns. A half-written line before it is cut off first."""
    line = json.dumps(facts, allow_nan=False).encode() + b"\n"
    disk = current_disk()
    with disk.open(path, "ab+") as file:
        if (
            not file.size
        ):  # before its first line, so that the name of a file with lines is never lost
            disk.sync(path.parent)
        _cut_torn_line(path, file)
        file.write(line)
        file.sync()


def _cut_torn_line(path: Path, file: File) -> None:
    """Cut off what a killed writer or a power cut left behind."""
    size = file.size
    end = os.pread(file.fileno(), LONGEST_LINE, max(0, size - LONGEST_LINE))
    torn = _torn_bytes(end)
    if torn == len(end):  # the line may begin earlier
        torn = _torn_bytes(path.read_bytes())
    if torn:
        LOG.warning("%s ended in a half-written line of %d bytes: dropped", path, torn)
        file.truncate(size - torn)
        file.sync()  # otherwise the next write could mix with what is cut off


def _torn_bytes(content: bytes) -> int:
    """How many bytes at the end of a file of lines are not a whole line.

    After a power cut, the last line may have its end, but zeros at its beginning. The lines before it are whole: a line
    is written only once the one before it is on disk.
    """
    whole = content.rfind(b"\n") + 1
    if whole == len(content) and content:
        whole = content.rfind(b"\n", 0, -1) + 1
        with suppress(ValueError):
            json.loads(content[whole:])
            return 0
    return len(content) - whole


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of `path`; a half-written last one is left out and logged; none if there is no file.

    Raises:
        RequestError: a line before the last is not JSON, or any line is not an object.
    """
    return parse_json_lines(whole_lines(path), path)


def whole_lines(path: StrPath) -> bytes:
    """What `path` holds up to the end of its last whole line; a half-written one is logged; b"" without a file."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return b""
    if torn := _torn_bytes(content):
        LOG.info("%s ends in a half-written line of %d bytes: left out", path, torn)
    return content[: len(content) - torn]


def parse_json_lines(lines: bytes, path: StrPath) -> list[dict[str, Any]]:
    """The objects in the whole lines that were read from `path`.

    Raises:
        RequestError: a line is not a JSON object.
    """
    rows = []
    for number, line in enumerate(lines.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RequestError(f"line {number} of {path} must hold JSON, but: {error}") from None
        if not isinstance(row, dict):
            raise RequestError(
                f"line {number} of {path} must hold a JSON object, but it holds {type(row).__name__}"
            )
        rows.append(row)
    return rows


def sha256_of(path: Path) -> str:
    """The digest of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_time(value: object) -> bool:
    """Is it a time in ISO 8601, as from `now`, or empty?"""
    try:
        return value is None or value == "" or bool(datetime.fromisoformat(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _time(value: str) -> str:
    if not is_time(value):
        raise ValueError(f"{value!r} is not a time")
    return value


Time = Annotated[str, AfterValidator(_time)]


def now() -> str:
    """The time in UTC as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
