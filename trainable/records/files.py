"""Files that survive a crash: write aside, fsync, rename; JSON without NaN; lines that may be cut anywhere."""

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
STREAMED_BYTES: Final = 2**25  # sent to the disk at a time; measured with this alone (docs/log.md)
StrPath = str | Path
LONGEST_LINE: Final = 2**16
"""So many bytes are looked at for the last line of a file, unless it is longer. Assumed: a row has some 600."""


class File(io.FileIO):
    """An open file without a buffer: `write` writes all of it, `sync` brings it to the disk."""

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
    """Everything that is done to the records, in steps between any two of which a process may be killed.

    Tests put others in its place: one goes through every order of the steps of several processes, one lets the power
    go after any of them. Each is one step for those who look on, but what is written to an open file, of which a part
    may be seen. Unless it says so, a step may be undone by a power cut until the file or its folder is synced.
    """

    def open(self, path: Path, mode: str) -> File:
        """Open a file to write to it; `mode` is wb, ab+ or rb+ as in Python, xb where nobody else may have made it.

        Raises:
            FileExistsError: mode xb, and it is there; of many who try, one alone makes it.
        """
        return File(path, mode)

    def create(self, path: Path) -> None:
        """Make an empty file that nobody else has made (O_EXCL).

        Raises:
            FileExistsError: it is there.
        """
        self.open(path, "xb").close()

    def write(self, path: Path, content: bytes) -> None:
        """Let the file hold `content`; it is on the disk when this returns, but not the name of a new file."""
        with self.open(path, "wb") as file:
            file.write(content)
            file.sync()

    def rename(self, old: Path, new: Path) -> None:
        """Within one folder."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Delete the file, if it is there."""
        path.unlink(missing_ok=True)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def names(self, folder: Path) -> list[str]:
        """Of what lies in the folder; none where it is not there."""
        return os.listdir(folder) if folder.is_dir() else []

    def moved(self, path: Path) -> int | None:
        """When the file was last written or touched, by the file server's clock, in nanoseconds; None without a file.

        It is opened, since a network file system may remember an old time else.
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
        """Move the file's time to now.

        Raises:
            FileNotFoundError: it is not there.
        """
        os.utime(path)

    def make_folder(self, path: Path) -> None:
        """Make it, if it is not there; the folder around it is."""
        path.mkdir(exist_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Delete the folder with all that is in it, in any order, as far as that can be done."""
        shutil.rmtree(path, ignore_errors=True)

    def sync(self, folder: Path) -> None:
        """Make what was created, renamed and deleted in the folder survive a power cut."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_disk = Disk()


def current_disk() -> Disk:
    """The one that records are written to."""
    return _disk


@contextmanager
def writing_to(disk: Disk) -> Iterator[None]:
    """Put another disk in the place of the real one, for a test."""
    global _disk
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, through the current disk, which takes its place at the end.

    A reader, or a crash at any moment, sees the old or the new file whole.
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
    """A large file to write once: every 32 MiB go to the disk and leave the page cache before more come.

    Else gigabytes of weights fill it, which takes fresh memory, two to three times as long where that is slow to get
    (virtual machines), and pushes out what is read again and again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = current_disk().open(path, "wb")
        self._settled = 0

    def writable(self) -> bool:
        return True

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
    """Replace `path` by `content`, wholly or not at all."""
    with replaced(path) as aside, current_disk().open(aside, "wb") as file:
        file.write(content)


def settle_file(path: Path) -> None:
    """Bring what is read there to the disk, if it is there: who wrote it may have died before he did."""
    if path.exists():
        with current_disk().open(path, "rb+") as file:
            file.sync()


def make_folders(path: Path) -> None:
    """Make a folder and those around it, as far as they are not there; none of them is lost once this returns."""
    disk = current_disk()
    made = [path, *(each for each in path.parents if not each.exists())]
    for each in reversed(made):
        disk.make_folder(each)
        disk.sync(each.parent)  # also of one that was there: who made it may have died before this


def to_json(facts: Mapping[str, Any]) -> bytes:
    """`facts` as indented JSON; NaN is refused, since other readers can't read it."""
    return (json.dumps(facts, indent=2, allow_nan=False, default=str) + "\n").encode()


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    write_atomically(path, to_json(facts))


def read_bytes(path: StrPath) -> bytes:
    """The content of a file, as long as it is when opened; half the time of `Path.read_bytes`, and a run has many.

    Raises:
        FileNotFoundError: it is not there.
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
        RequestError: no such file, or no JSON object in it.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}; is its folder a run folder?") from None
    return parse_json(content, path)


def parse_json(content: bytes, path: StrPath) -> dict[str, Any]:
    """The object in the `content` of `path`.

    Raises:
        RequestError: no JSON object in it.
    """
    try:
        facts = json.loads(content)
    except ValueError as error:
        raise RequestError(f"{path} must hold JSON, but reading it says: {error}") from None
    if not isinstance(facts, dict):
        raise RequestError(f"{path} must hold a JSON object, but it holds {type(facts).__name__}")
    return facts


def append_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Add one line; it is on the disk when this returns. A line before it that is not whole is cut off first."""
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
    """Cut off what a writer left that was killed, or whose power went."""
    size = file.size
    end = os.pread(file.fileno(), LONGEST_LINE, max(0, size - LONGEST_LINE))
    torn = _torn_bytes(end)
    if torn == len(end):  # of a line that may begin before
        torn = _torn_bytes(path.read_bytes())
    if torn:
        LOG.warning("%s ended in a half-written line of %d bytes: dropped", path, torn)
        file.truncate(size - torn)
        file.sync()  # else what is written next may be mixed with what is cut off


def _torn_bytes(content: bytes) -> int:
    """How many bytes at the end of a file of lines are no whole line.

    After a power cut a last line may have its end, and zeros where it begins. Those before it are whole: a line is
    written once the one before it is on the disk.
    """
    whole = content.rfind(b"\n") + 1
    if whole == len(content) and content:
        whole = content.rfind(b"\n", 0, -1) + 1
        with suppress(ValueError):
            json.loads(content[whole:])
            return 0
    return len(content) - whole


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of `path`; a half-written last one is left out and logged; no file is no line.

    Raises:
        RequestError: a line that is not the last holds no JSON, or any of them no object.
    """
    return parse_json_lines(whole_lines(path), path)


def whole_lines(path: StrPath) -> bytes:
    """What `path` holds up to the end of its last whole line; a half-written one after it is logged; no file is b""."""
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
        RequestError: a line holds no JSON object.
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
    """Is it a time as `now` gives it, in ISO 8601, or empty?"""
    try:
        return value is None or value == "" or bool(datetime.fromisoformat(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _time(value: str) -> str:
    if not is_time(value):
        raise ValueError(f"{value!r} is no time")
    return value


Time = Annotated[str, AfterValidator(_time)]


def now() -> str:
    """The time in UTC as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
