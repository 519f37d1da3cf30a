"""One driver at a time holds a run folder. A dead one's hold is taken over, and whoever lost his stops.

The hold is a file that names its driver; a living driver moves the file's time. Everything here holds on a network file
system too: a file comes whole, from one process alone (link), and is taken away by whoever has made the claim on it.
"""

import errno
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from trainable.config import RequestError
from trainable.faults import folder_gone
from trainable.files import now
from trainable.record import RunFolder

BEAT_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 60.0
"""How long a hold from another host must not move before its driver counts as dead."""
POLL_SECONDS: Final = 0.5
HALF_WRITTEN_SECONDS: Final = 2.0
CLAIM_SECONDS: Final = 0.01
NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Of a file system without hard links, where a file can only be made in place."""


@dataclass(frozen=True)
class Holder:
    """Who holds a run."""

    token: str
    host: str
    pid: int
    pid_started: float
    """A process of this number that started at another time is another one."""
    since: str

    @staticmethod
    def me() -> "Holder":
        pid = os.getpid()
        started = psutil.Process(pid).create_time()
        return Holder(uuid.uuid4().hex, socket.gethostname(), pid, started, now())

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def process_lives(self) -> bool:
        """Of a holder on this host."""
        try:
            return psutil.Process(self.pid).create_time() == self.pid_started
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


DAMAGED: Final = Holder("damaged", "", 0, 0.0, "")
"""Whom a hold names that can't be read."""


@contextmanager
def only_driver(
    run: RunFolder, take_over: bool = False, tell: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Hold the run folder; `tell` says why it takes long.

    Raises:
        RequestError: no run folder, or another driver holds it.
    """
    run.read_manifest()
    me = Holder.me()
    handle = _acquire(run, me, take_over, tell)
    beat = _Beat(run, handle)
    beat.start()
    try:
        yield
    finally:
        beat.stop()
        os.close(handle)
        with suppress(RequestError, OSError):  # nothing to let go of, or no way to
            _take_away(run, me, me)


def read_holder(run: RunFolder) -> Holder | None:
    """Who holds the run; None where nobody does.

    Raises:
        RequestError: the file is damaged.
    """
    return _read(run.hold)


def _acquire(run: RunFolder, me: Holder, take_over: bool, tell: Callable[[str], None]) -> int:
    """The hold as an open file."""
    while (handle := _make(run.hold, me)) is None:
        try:
            holder = read_holder(run)
        except RequestError:
            if not take_over:
                raise
            holder = DAMAGED
        if holder is None:
            continue  # let go just now
        if not take_over and not _is_dead(run.hold, holder, tell):
            raise RequestError(
                f"one driver at a time holds {run.path}, and {holder} has held it since {holder.since}; "
                f"wait for it, or stop it"
                + ("" if holder.is_here else "; --take-over takes the run from it")
            )
        if _take_away(run, holder, me, tell):
            take_over = False
    for left in run.hold.parent.glob(f"{run.hold.name}.*.taken"):  # by a newcomer that was killed
        if me.token not in left.name:
            left.unlink(missing_ok=True)
    return handle


def _make(path: Path, me: Holder) -> int | None:
    """Make the file `path` that names `me`, whole or not at all, as an open file; None where it is there."""
    aside = path.with_name(f".{path.name}.{me.token}.tmp")
    handle = os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
    try:
        _name(handle, me)
        os.link(aside, path)
    except OSError as error:
        os.close(handle)
        if error.errno == errno.EEXIST:
            return None
        if error.errno not in NO_LINKS:
            raise
    else:
        return handle
    finally:
        aside.unlink()
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    _name(handle, me)
    return handle


def _name(handle: int, me: Holder) -> None:
    os.write(handle, json.dumps(asdict(me)).encode())
    os.fsync(handle)


def _read(path: Path) -> Holder | None:
    until = time.monotonic() + HALF_WRITTEN_SECONDS
    while True:
        try:
            return Holder(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            if time.monotonic() > until:
                raise RequestError(
                    f"{path} must name the driver that holds the run, but it is damaged; "
                    "if no driver is running, --take-over"
                ) from None
            time.sleep(0.05)  # it is being written: without links in place


def _is_dead(path: Path, holder: Holder, tell: Callable[[str], None]) -> bool:
    """By its process on this host; on another, by its file `path` that nobody moves while we look."""
    if holder.is_here:
        return not holder.process_lives
    tell(f"{holder} holds {path.parent}; watching for {WATCH_SECONDS:.0f} s whether it is alive …")
    first, until = _moved(path), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        if _moved(path) != first:
            return False
    return True


def _moved(path: Path) -> int:
    """When the hold was last moved. It is opened, since a network file system may remember old times else."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)


def _take_away(
    run: RunFolder, holder: Holder, me: Holder, tell: Callable[[str], None] = lambda text: None
) -> bool:
    """Take the hold of `holder` away; False where it is not his any more, or another is about to.

    Only who has made the claim on a hold may take that very hold away, the holder himself too. Who was killed with a
    claim is succeeded by who makes the claim on his. So nobody ever touches a hold that he has not just read.
    """
    claims = []
    token = holder.token
    while True:
        claim = run.hold.with_name(f"{run.hold.name}.{token}.taken")
        claims.append(claim)
        handle = _make(claim, me)
        if handle is not None:
            os.close(handle)
            break
        claimer = _read(claim)
        if claimer is None or not _is_dead(claim, claimer, tell):
            time.sleep(CLAIM_SECONDS)
            return False
        token = claimer.token
    try:
        if _token(run) != holder.token:
            return False
        run.hold.unlink()
        return True
    finally:
        for claim in claims:
            claim.unlink(missing_ok=True)


def _token(run: RunFolder) -> str | None:
    try:
        holder = read_holder(run)
    except RequestError:
        holder = DAMAGED
    return holder.token if holder is not None else None


class _Beat(threading.Thread):
    """Moves the hold's time; where the hold is not ours any more, ends the driver as SIGTERM does."""

    def __init__(self, run: RunFolder, handle: int) -> None:
        super().__init__(daemon=True, name="hold")
        self._run, self._handle = run, handle
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            if not self._is_ours():
                what = "is gone" if folder_gone(self._run) else "was taken over"
                print(f"{self._run.path} {what}; this driver stops", file=sys.stderr)
                # not SIGINT, which is ignored in what a shell started with &
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _is_ours(self) -> bool:
        """Move the time, and look whether the file is still the one that we made; an error of the disk says nothing."""
        try:
            os.utime(self._handle)
            return os.stat(self._run.hold).st_ino == os.fstat(self._handle).st_ino
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def stop(self) -> None:
        self._ended.set()
        self.join()
