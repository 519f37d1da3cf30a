"""One driver at a time holds a run folder. A dead one's hold is taken over, and whoever lost his stops.

The hold is a file that names its driver; a living driver moves the file's time. Everything here holds on a network file
system too: a file is made by one process alone (O_EXCL), and moved away by one alone (rename).
"""

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
from trainable.files import now
from trainable.record import RunFolder

BEAT_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 60.0
"""How long a hold from another host must not move before its driver counts as dead."""
POLL_SECONDS: Final = 0.5
HALF_WRITTEN_SECONDS: Final = 2.0


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
    beat = _Beat(run.hold, me, handle)
    beat.start()
    try:
        yield
    finally:
        beat.stop()
        os.close(handle)
        with suppress(RequestError, OSError):  # nothing to let go of, or no way to
            if (holder := read_holder(run)) is not None and holder.token == me.token:
                run.hold.unlink(missing_ok=True)


def read_holder(run: RunFolder) -> Holder | None:
    """Who holds the run; None where nobody does.

    Raises:
        RequestError: the file is damaged.
    """
    until = time.monotonic() + HALF_WRITTEN_SECONDS
    while True:
        try:
            return Holder(**json.loads(run.hold.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            if time.monotonic() > until:
                raise RequestError(
                    f"{run.hold} must name the driver that holds the run, but it is damaged; "
                    "if no driver is running, --take-over"
                ) from None
            time.sleep(0.05)  # it is being written


def _acquire(run: RunFolder, me: Holder, take_over: bool, tell: Callable[[str], None]) -> int:
    """The hold as an open file."""
    while True:
        try:
            handle = os.open(run.hold, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            pass
        else:
            os.write(handle, json.dumps(asdict(me)).encode())
            os.fsync(handle)
            return handle
        holder = None
        if not take_over:
            holder = read_holder(run)
            if holder is None:
                continue  # let go just now
            if not _is_dead(run, holder, tell):
                raise RequestError(
                    f"one driver at a time holds {run.path}, and {holder} has held it since {holder.since}; "
                    f"wait for it, or stop it"
                    + ("" if holder.is_here else "; --take-over takes the run from it")
                )
        _move_away(run, holder, me)
        take_over = False


def _is_dead(run: RunFolder, holder: Holder, tell: Callable[[str], None]) -> bool:
    """By its process on this host; on another, by a file that nobody moves while we look."""
    if holder.is_here:
        return not holder.process_lives
    tell(f"{holder} holds {run.path}; watching for {WATCH_SECONDS:.0f} s whether it is alive …")
    first, until = _moved(run), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        if _moved(run) != first:
            return False
    return True


def _moved(run: RunFolder) -> int:
    """When the hold was last moved. It is opened, since a network file system may remember old times else."""
    try:
        handle = os.open(run.hold, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)


def _move_away(run: RunFolder, holder: Holder | None, me: Holder) -> None:
    """Take the hold of `holder`, or of whoever has it, out of the way; one of several who try does it."""
    aside = run.hold.with_name(f"{run.hold.name}.{me.token}")
    try:
        run.hold.rename(aside)
    except FileNotFoundError:
        return
    if holder is not None and holder.token.encode() not in aside.read_bytes():
        aside.rename(run.hold)  # another newcomer was faster, and this is his, perhaps half written
        return
    aside.unlink()


class _Beat(threading.Thread):
    """Moves the hold's time; where the hold is not ours any more, ends the driver as SIGTERM does."""

    def __init__(self, path: Path, me: Holder, handle: int) -> None:
        super().__init__(daemon=True, name="hold")
        self._path, self._me, self._handle = path, me, handle
        self._ended = threading.Event()

    def run(self) -> None:
        missed = 0
        while not self._ended.wait(BEAT_SECONDS):
            missed = 0 if self._is_ours() else missed + 1
            if missed == 2:  # once may be a newcomer who moves it away and puts it back
                what = "was taken over" if self._path.parent.exists() else "is gone"
                print(f"{self._path.parent} {what}; this driver stops", file=sys.stderr)
                # not SIGINT, which is ignored in what a shell started with &
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _is_ours(self) -> bool:
        """Move the time, and look whether the file is still the one that we made; an error of the disk says nothing."""
        try:
            os.utime(self._handle)
            return os.stat(self._path).st_ino == os.fstat(self._handle).st_ino
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def stop(self) -> None:
        self._ended.set()
        self.join()
