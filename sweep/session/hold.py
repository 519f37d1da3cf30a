"""One driver at a time holds a run folder: the one that drew the newest number, which is its session's.

`sessions/<n>.json` names the driver that drew n. Only one process can create it (O_EXCL), it is never deleted, and
n + 1 is created only after the end of n was seen: `<n>.ended`, a process that is gone, or no heartbeat for 60 s. So
nothing is ever removed, no number is drawn twice, and one of many newcomers gets in, on a network file system too.
`tests/sweep/session/test_hold_states.py` tests every order of the steps below.
"""

import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sweep.session.processes import Process, lives, why_unseen
from trainable.errors import RequestError
from trainable.records.faults import folder_gone
from trainable.records.files import Disk, current_disk, now, to_json
from trainable.records.manifest import read_manifest, session_numbers
from trainable.records.run_folder import RunFolder

BEAT_SECONDS: Final = 5.0  # twelve of them fit into WATCH_SECONDS; assumed
WATCH_SECONDS: Final = 60.0
"""How long a hold must show no heartbeat before its driver counts as dead, if its process can't be seen; assumed."""
POLL_SECONDS: Final = 0.5  # assumed
HALF_WRITTEN_SECONDS: Final = 2.0
"""A hold is one short write, so a file that is not JSON for longer is damaged; assumed."""


@dataclass(frozen=True)
class Holder:
    """Who holds a run, or did."""

    token: str
    since: str
    process: Process
    session: int | None = None
    """None for an older version, whose hold is driver.json itself."""

    def to_json(self) -> dict[str, Any]:
        facts = {"session": self.session, "token": self.token, "since": self.since}
        return facts | asdict(self.process)

    @staticmethod
    def from_json(facts: dict[str, Any]) -> "Holder":
        """
        Raises:
            KeyError, TypeError, ValueError: the facts name no driver.
        """
        process = Process.from_json(facts)
        return Holder(str(facts["token"]), str(facts["since"]), process, facts.get("session"))

    def __str__(self) -> str:
        if self is UNREADABLE:
            return "a driver whose file is damaged"
        return f"process {self.process.pid} on {self.process.host}"

    @property
    def why_unseen(self) -> str:
        """Why only its heartbeat shows whether it is alive; "" if its process does."""
        return "" if self is UNREADABLE else why_unseen(self.process)


UNREADABLE: Final = Holder("", "an unknown time", Process("", 0))


@dataclass
class Driver:
    """Waits to hold a run, holds it, then lets go. Tests can replace disk, processes and waiting."""

    run: RunFolder
    tell: Callable[[str], None] = lambda text: None
    process: Process = field(default_factory=Process.this)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    disk: Disk = field(default_factory=current_disk)
    lives: Callable[[Process], bool | None] = lives
    sleep: Callable[[float], None] = time.sleep
    session: int = field(init=False, default=0)

    def take(self, take_over: bool = False) -> int:
        """Draw the number under which the run is held. `take_over` applies to the driver that holds it now.

        Raises:
            RequestError: another driver holds it.
        """
        self.disk.make_folder(self.run.sessions)
        if not take_over:
            self._await_older_version()
        number = self.run.newest_drawn(self.disk)
        while True:
            if number and not take_over:
                self._await(number)
            number += 1
            if self._draw(number):
                break
            take_over = False  # another newcomer was faster
        while number <= self._opened():  # by an older version, without files in sessions/
            number += 1
            if not self._draw(number):
                raise RequestError(f"{self.run.path} was taken over by another driver meanwhile")
        self._show()
        return number

    def has_lost(self) -> bool:
        """Does another driver hold the run by now, or is it gone?"""
        mine, shown = self._read(self.run.holder(self.session)), self._read(self.run.driver)
        if mine is None or mine.token not in (self.token, UNREADABLE.token):
            return True
        older_version = shown is not None and shown is not UNREADABLE and shown.session is None
        return older_version or self.run.newest_drawn(self.disk) > self.session

    def beat(self) -> None:
        self.disk.touch(self.run.holder(self.session))

    def let_go(self) -> None:
        """Let go of whatever was drawn. Disk errors are ignored: the process ends, and others see that too."""
        with suppress(OSError):
            shown = self._read(self.run.driver)
            if shown is not None and shown.token == self.token:
                self.disk.unlink(self.run.driver)
        with suppress(OSError):
            if self.session:
                self.disk.create(self.run.ended(self.session))

    def _draw(self, number: int) -> bool:
        """Try to draw this number; False if another driver did."""
        path = self.run.holder(number)
        try:
            self.disk.create(path)
        except FileExistsError:
            return False
        self.session = number
        self.disk.write(path, self._named(number))
        self.disk.sync(path.parent)
        return True

    def _named(self, number: int) -> bytes:
        return to_json(Holder(self.token, now(), self.process, number).to_json())

    def _show(self) -> None:
        """Name the holder in driver.json: for people, and for older versions, which then start nothing."""
        aside = self.run.driver.with_name(f".driver.json.{self.session}.tmp")
        self.disk.write(aside, self._named(self.session))
        self.disk.rename(aside, self.run.driver)

    def _opened(self) -> int:
        """The highest number of a recorded session."""
        found = [0, *session_numbers(self.disk.read(self.run.manifest))]
        with suppress(FileNotFoundError, ValueError, LookupError, TypeError):
            found.append(int(json.loads(self.disk.read(self.run.session))["number"]))
        return max(found)

    def _await(self, session: int) -> None:
        """Return once the driver that drew this number has ended.

        Raises:
            RequestError: it is alive.
        """
        path = self.run.holder(session)
        if not self._has_ended(session):
            holder = self._read(path) or UNREADABLE
            self._await_end(holder, path, lambda: self._has_ended(session))

    def _await_older_version(self) -> None:
        if older := self._older_version():
            self._await_end(older, self.run.driver, lambda: self._older_version() is None)

    def _await_end(self, holder: Holder, path: Path, has_ended: Callable[[], bool]) -> None:
        seen = living = self.lives(holder.process)
        if seen is None:
            why = holder.why_unseen
            self.tell(
                f"{holder} holds {self.run.path}{why and f', and {why}'}; "
                f"waiting up to {WATCH_SECONDS:.0f} s for a sign of life …"
            )
            living = self._moves(path, has_ended)
        if not living or has_ended():
            return
        raise RequestError(
            f"only one driver at a time can hold {self.run.path}, but {holder} has held it since {holder.since}; "
            "wait for it, or stop it" + ("" if seen else ", or take the run over with --take-over")
        )

    def _moves(self, path: Path, has_ended: Callable[[], bool]) -> bool:
        first = self.disk.moved(path)
        for _ in range(round(WATCH_SECONDS / POLL_SECONDS)):
            self.sleep(POLL_SECONDS)
            if has_ended():
                return False
            if self.disk.moved(path) != first:
                return True
        return False

    def _has_ended(self, session: int) -> bool:
        return self.disk.moved(self.run.ended(session)) is not None

    def _older_version(self) -> Holder | None:
        """The hold of a driver of an older version, dead or alive."""
        shown = self._read(self.run.driver)
        return shown if shown is not None and shown.session is None else None

    def _read(self, path: Path) -> Holder | None:
        """The driver that the file names, once it is written; None if there is no file."""
        for _ in range(round(HALF_WRITTEN_SECONDS / POLL_SECONDS)):
            try:
                return Holder.from_json(json.loads(self.disk.read(path)))
            except FileNotFoundError:
                return None
            except (KeyError, TypeError, ValueError):
                self.sleep(POLL_SECONDS)
        return UNREADABLE


@contextmanager
def only_driver(
    run: RunFolder, take_over: bool = False, tell: Callable[[str], None] = lambda text: None
) -> Iterator[int]:
    """Hold the run folder; yields the session's number. `tell` is called with the reason if it takes long.

    Raises:
        RequestError: not a run folder, or another driver holds it.
    """
    read_manifest(run)
    driver = Driver(run, tell)
    heart = _Heart(driver)
    try:
        driver.take(take_over)
        heart.start()
        yield driver.session
    finally:
        heart.stop()
        driver.let_go()


class _Heart(threading.Thread):
    """Updates the hold's heartbeat; if the hold is lost, ends the driver by a signal.

    A driver outside the main thread would not get the signal, and its program is not ours to end: it checks by itself
    (sweep.on_ray.bookkeeper).
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__(daemon=True, name="hold")
        self._is_heard = threading.current_thread() is threading.main_thread()
        self._driver = driver
        self._ended = threading.Event()

    def run(self) -> None:
        # check at once: this process may have been suspended for an hour since it took the run
        while True:
            if self._has_lost():
                run = self._driver.run
                gone = bool(folder_gone(run))
                what = "is gone" if gone else "was taken over"
                print(f"{run.path} {what}; this driver stops", file=sys.stderr)
                if self._is_heard:
                    os.kill(os.getpid(), _signal_to_end(gone))
                return
            if self._ended.wait(BEAT_SECONDS):
                return

    def _has_lost(self) -> bool:
        """A disk error proves nothing."""
        try:
            if self._driver.has_lost():
                return True
            self._driver.beat()
        except OSError:
            pass
        return False

    def stop(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join()


def _signal_to_end(gone: bool) -> signal.Signals:
    """SIGTERM; if the folder is gone, SIGUSR1, which a session treats as its time limit (sweep.session.interruption).

    The session may have noticed by itself that the folder is gone, and be about to report it: SIGTERM would cut that
    short. SIGINT is ignored by processes that a shell started with &.
    """
    heard = callable(signal.getsignal(signal.SIGUSR1))
    return signal.SIGUSR1 if gone and heard else signal.SIGTERM


@dataclass(frozen=True)
class Hold:
    """What can be seen of a hold without waiting."""

    holder: Holder
    living: bool | None
    """Judged by its process; None if that can't be seen."""
    silent_seconds: float
    """Since its last sign of life, by the clocks of this machine and the file server."""


def read_hold(run: RunFolder) -> Hold | None:
    """The hold on the run, its driver dead or alive; None if the last driver let go."""
    driver = Driver(run)
    older, newest = driver._older_version(), run.newest_drawn()
    if older is not None:
        holder, path = older, run.driver
    elif newest and not driver._has_ended(newest):
        path = run.holder(newest)
        holder = driver._read(path) or UNREADABLE
    else:
        return None
    moved = driver.disk.moved(path)
    silent = 0.0 if moved is None else max(0.0, time.time() - moved / 1e9)
    return Hold(holder, lives(holder.process), silent)
