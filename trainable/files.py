"""Files that survive a crash: write aside, fsync, rename; JSON without NaN; lines that may be cut anywhere."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from trainable.config import RequestError

LOG = logging.getLogger(__name__)
STREAMED_BYTES: Final = 2**25
StrPath = str | Path


class Disk:
    """What is done to files, in steps between any two of which a process may be killed.

    A test puts a disk in memory in its place, and goes through every order of the steps of several processes. Each is
    one step for those who look on, but `write`, of which a part may be seen. `create` is O_EXCL.
    """

    def create(self, path: Path) -> None:
        """Make an empty file.

        Raises:
            FileExistsError: it is there; of many who try, one alone makes it.
        """
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))

    def write(self, path: Path, content: bytes) -> None:
        """Let the file hold `content`; it is on the disk when this returns."""
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
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
        path.mkdir(exist_ok=True)

    def sync(self, folder: Path) -> None:
        """Make what was created and renamed in the folder survive a power cut."""
        sync_folder(folder)


DISK: Final = Disk()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place at the end.

    A reader, or a crash at any moment, sees the old or the new file whole.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


class Streamed(io.RawIOBase):
    """A large file to write once: every 32 MiB go to the disk and leave the page cache before more come.

    Else gigabytes of weights fill it, which takes fresh memory, two to three times as long where that is slow to get
    (virtual machines), and pushes out what is read again and again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("wb", buffering=0)
        self._written = self._settled = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        for start in range(0, len(view), STREAMED_BYTES):
            part = view[start : start + STREAMED_BYTES]
            while part:
                part = part[self._file.write(part) :]
            self._written = self._file.tell()
            if self._written - self._settled >= STREAMED_BYTES:
                self._settle()
        return len(view)

    def _settle(self) -> None:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.fdatasync(self._file.fileno())
            os.posix_fadvise(self._file.fileno(), 0, self._written, os.POSIX_FADV_DONTNEED)
        self._settled = self._written

    def close(self) -> None:
        self._file.close()
        super().close()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, wholly or not at all."""
    with replaced(path) as aside:
        aside.write_bytes(content)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """Add one line; it is on the disk when this returns. A half-written line before it is cut off first."""
    line = json.dumps(facts, allow_nan=False).encode() + b"\n"
    with path.open("ab+") as file:
        _cut_half_line(path, file.fileno())
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _cut_half_line(path: Path, handle: int) -> None:
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        whole = path.read_bytes().rfind(b"\n") + 1
        LOG.warning("%s ended in a half-written line of %d bytes: dropped", path, size - whole)
        os.ftruncate(handle, whole)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of `path`; a half-written last one is left out and logged; no file is no line.

    Raises:
        RequestError: a line that is not the last holds no JSON object.
    """
    return parse_json_lines(whole_lines(path), path)


def whole_lines(path: StrPath) -> bytes:
    """What `path` holds up to the end of its last whole line; a half-written one after it is logged; no file is b""."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return b""
    whole = content.rfind(b"\n") + 1
    if rest := len(content) - whole:
        LOG.info("%s ends in a half-written line of %d bytes: left out", path, rest)
    return content[:whole]


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


def now() -> str:
    """The time in UTC as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
