"""Arrays on a node's disk, shared by every process there: claimed by one writer, mapped by many readers.

A chunk is a file of raw values with a footer that holds shape, number format and SHA-256. It is written aside and
renamed; a lock that dies with its process shows which process computes it, another which ones read it. Nothing here
can be lost: what is missing, short or damaged is computed again.
"""

import fcntl
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import struct
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import Tensor

from trainable.records.files import write_json

LOG = logging.getLogger(__name__)
MAGIC: Final = b"FACECHNK"
TAIL: Final = struct.Struct("<Q8s")  # length of the JSON before it, and MAGIC
MAKING_ROOM: Final = threading.Lock()
WRITING_SECONDS: Final = 60  # an older half-written file has lost its writer; assumed
FREE_SHARE: Final = 0.5
"""Default limit, as a share of the disk space that is free or already used by the store; assumed."""
STORED: Final[
    Mapping[torch.dtype, np.dtype[Any]]
] = {  # NumPy has no bfloat16; its bits are stored as signed integers, which a GPU can index
    torch.float32: np.dtype("<f4"),
    torch.float16: np.dtype("<f2"),
    torch.bfloat16: np.dtype("<i2"),
    torch.uint8: np.dtype("u1"),
}
FORMATS: Final[Mapping[str, torch.dtype]] = {
    str(format).removeprefix("torch."): format for format in STORED
}


class StoreUnavailable(Exception):
    """The store can't be used (read-only, full, over its limit): callers continue without it."""


@dataclass(frozen=True)
class Chunk:
    """A chunk mapped into memory, read-only; the mapping holds its lock, so it is not evicted while in use."""

    values: np.ndarray[Any, Any]
    """(images, …) in the number format of `STORED`."""
    format: torch.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        """A copy of some images' values."""
        return torch.from_numpy(self.values[start:stop].copy()).view(self.format)


@dataclass(frozen=True)
class Shelf:
    """The chunks of one kind, in their own folder beside `key.json`, which says what they are."""

    folder: Path
    limit_bytes: int | None
    """Of the whole store; None: `FREE_SHARE` of what is free or used by the store."""
    _sound: set[tuple[str, int]] = field(default_factory=set, repr=False)
    """(name, inode) of chunks whose digest this process has checked."""

    @classmethod
    def open(cls, root: Path, facts: Mapping[str, Any], limit_bytes: int | None = None) -> Self:
        """The shelf for `facts`: everything that changes the values of a chunk, apart from its images.

        Raises:
            StoreUnavailable: it can't be created.
        """
        canonical = json.dumps(facts, sort_keys=True)
        folder = root / "chunks" / hashlib.sha256(canonical.encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "key.json").exists():
                write_json(folder / "key.json", facts)
        except OSError as error:
            raise StoreUnavailable(f"{folder} can't be created: {error.strerror}") from None
        return cls(folder, limit_bytes)

    def read(self, name: str) -> Chunk | None:
        """The chunk `name`; None if it does not exist, or was damaged and is now deleted."""
        path = self.folder / name
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"{path} can't be read: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(file).st_nlink == 0:  # evicted between opening and locking
                raise BlockingIOError
            chunk = self._map(name, file)
            with suppress(OSError):
                os.utime(file)  # least recently used goes first
        except BlockingIOError:
            return None
        except (ValueError, KeyError, TypeError, struct.error) as error:
            LOG.warning("%s is damaged (%s): computed again", path, error)
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            raise StoreUnavailable(f"{path} can't be locked and mapped: {error.strerror}") from None
        finally:
            os.close(file)  # the mapping has its own handle, which holds the lock
        return chunk

    def _map(self, name: str, file: int) -> Chunk:
        """Map a chunk and check its size and, once in this process, its digest.

        Raises:
            ValueError: the file is not what was written.
        """
        facts = os.fstat(file)
        if facts.st_size < TAIL.size:
            raise ValueError("it is cut short")
        length, magic = TAIL.unpack(os.pread(file, TAIL.size, facts.st_size - TAIL.size))
        if magic != MAGIC or length > facts.st_size - TAIL.size:
            raise ValueError("it has no footer")
        footer_at = facts.st_size - TAIL.size - length
        footer = json.loads(os.pread(file, length, footer_at))
        format = FORMATS[footer["format"]]
        shape = tuple(footer["shape"])
        kind = STORED[format]
        count = int(np.prod(shape))
        if count * kind.itemsize != footer_at:
            raise ValueError(f"it holds {footer_at} bytes, not {count * kind.itemsize}")
        mapped: Any = mmap.mmap(file, footer_at, prot=mmap.PROT_READ)
        if (name, facts.st_ino) not in self._sound:
            if hashlib.sha256(mapped).hexdigest() != footer["sha256"]:
                raise ValueError("its digest differs")
            self._sound.add((name, facts.st_ino))
        return Chunk(np.frombuffer(mapped, kind, count).reshape(shape), format)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def try_claim(self, name: str) -> "Claim | None":
        """The claim on `name`, for the one process that may compute it now; None if another has it.

        Raises:
            StoreUnavailable: files can't be locked here.
        """
        path = self.folder / f"{name}.lock"
        lock = FileLock(path, thread_local=False)  # released by the last thread to write
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except OSError as error:
            raise StoreUnavailable(f"{path} can't be locked: {error.strerror}") from None
        return Claim(lock, path)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """True for the one process that may compute `name` now; the claim ends with the block or the process.

        Raises:
            StoreUnavailable: files can't be locked here.
        """
        claim = self.try_claim(name)
        try:
            yield claim is not None
        finally:
            if claim is not None:
                claim.release()

    def write(self, name: str, values: Tensor) -> None:
        """Add a chunk, which the caller has claimed; least recently used chunks are deleted to make room for it.

        Raises:
            StoreUnavailable: the disk is full or read-only, or the limit leaves no room.
        """
        content = values.contiguous().flatten().view(torch.uint8).numpy().data
        self.write_pieces(name, values.dtype, tuple(values.shape), [content])

    def write_pieces(
        self, name: str, format: torch.dtype, shape: tuple[int, ...], pieces: Iterable[memoryview]
    ) -> None:
        """`write` for values that come piece by piece; this process need not check their digest again."""
        size = math.prod(shape) * STORED[format].itemsize
        own = f"{name}.{os.getpid()}-"
        aside = self.folder / f"{own}{uuid.uuid4().hex[:8]}.tmp"
        sha256 = hashlib.sha256()
        try:
            with ExitStack() as opened:
                with MAKING_ROOM:  # so that the next of several writers counts this one
                    make_room(self.folder.parent, size, self.limit_bytes)
                    for left in self.folder.glob(f"{name}.*.tmp"):  # left by a killed writer
                        if not left.name.startswith(own):  # another thread may write the same chunk
                            left.unlink(missing_ok=True)
                    file = opened.enter_context(aside.open("wb"))
                    file.truncate(size)
                for piece in pieces:
                    sha256.update(piece)
                    file.write(piece)
                facts = {
                    "format": str(format).removeprefix("torch."),
                    "shape": list(shape),
                    "sha256": sha256.hexdigest(),
                }
                footer = json.dumps(facts).encode()
                file.write(footer + TAIL.pack(len(footer), MAGIC))
                inode = os.fstat(file.fileno()).st_ino
            # without fsync: after a power cut, the digest shows damage
            aside.rename(self.folder / name)
            self._sound.add((name, inode))
        except OSError as error:
            raise StoreUnavailable(f"{aside} can't be written: {error.strerror}") from None
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


class Claim:
    """This process's right to compute a chunk, until its last use ends; it ends with the process."""

    def __init__(self, lock: BaseFileLock, path: Path) -> None:
        self._lock, self._path = lock, path
        self._uses = 1
        self._counting = threading.Lock()

    def again(self) -> bool:
        """Count one more use; False if the last one has ended."""
        with self._counting:
            self._uses += self._uses > 0
            return self._uses > 0

    @property
    def is_held(self) -> bool:
        return self._uses > 0

    def release(self) -> None:
        """End one use."""
        with self._counting:
            self._uses -= 1
            if self._uses == 0:
                with suppress(OSError):
                    self._path.unlink()  # whoever waits for it checks for the chunk first
                self._lock.release()


@dataclass(frozen=True)
class Stored:
    """One file of the store."""

    path: Path
    bytes: int
    used_at: float
    """When it was last opened, in seconds since the epoch."""


def stored(chunks: Path) -> list[Stored]:
    """Every chunk below `chunks`, half-written ones too, least recently used first."""
    found = []
    for folder in chunks.glob("*/"):
        for entry in os.scandir(folder):
            if entry.name.endswith((".lock", ".json")):
                continue
            try:
                facts = entry.stat()
            except FileNotFoundError:
                continue
            found.append(Stored(Path(entry.path), facts.st_size, facts.st_mtime))
    return sorted(found, key=lambda each: each.used_at)


def limit_of(chunks: Path, taken: int, limit_bytes: int | None) -> int:
    """Bytes that the store may use."""
    if limit_bytes is not None:
        return limit_bytes
    return int(FREE_SHARE * (shutil.disk_usage(chunks).free + taken))


def make_room(chunks: Path, needed: int, limit_bytes: int | None) -> None:
    """Delete least recently used chunks, never one in use, until `needed` bytes fit within the limit.

    Raises:
        StoreUnavailable: they don't fit.
    """
    try:
        found = stored(chunks)
        taken = sum(each.bytes for each in found)
        limit = limit_of(chunks, taken, limit_bytes)
    except OSError as error:
        raise StoreUnavailable(f"{chunks} can't be read: {error.strerror}") from None
    for each in found:
        if taken + needed <= limit:
            return
        if evict(each.path):
            taken -= each.bytes
    if taken + needed > limit:
        raise StoreUnavailable(
            f"the limit of {limit / 1e9:.2f} GB leaves no room for {needed / 1e9:.2f} GB beside "
            f"{taken / 1e9:.2f} GB in use; raise it with --store-limit"
        )


def evict(path: Path) -> bool:
    """Delete a chunk unless a process is reading it; True if it is gone."""
    try:
        if path.suffix == ".tmp" and time.time() - path.stat().st_mtime < WRITING_SECONDS:
            return False  # being written
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
