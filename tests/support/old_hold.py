"""The hold as it was on 26 November 2026 (commit 21d5110), with its race, which test_hold_states.py must find.

Changed only so far as to go through `Disk`: files are reached by their path instead of an open handle, and the hold's
heart, which takes no part in it, is left out.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from trainable.errors import RequestError
from trainable.records.files import Disk


@dataclass(frozen=True)
class Holder:
    token: str
    host: str
    pid: int
    pid_started: float
    since: str


@dataclass
class OldDriver:
    hold: Path
    me: Holder
    disk: Disk
    lives: Callable[[int], bool]
    sleep: Callable[[float], None]

    def acquire(self) -> None:
        while True:
            try:
                self.disk.create(self.hold)
            except FileExistsError:
                pass
            else:
                self.disk.write(self.hold, json.dumps(asdict(self.me)).encode())
                return
            holder = self.read_holder()
            if holder is None:
                continue  # let go just now
            if self.lives(holder.pid):
                raise RequestError("another driver holds the run")
            self._move_away(holder)

    def let_go(self) -> None:
        with suppress(RequestError, OSError):
            if (holder := self.read_holder()) is not None and holder.token == self.me.token:
                self.disk.unlink(self.hold)

    def read_holder(self) -> Holder | None:
        while True:
            try:
                return Holder(**json.loads(self.disk.read(self.hold)))
            except FileNotFoundError:
                return None
            except (ValueError, TypeError):
                raise RequestError("the hold is damaged") from None

    def _move_away(self, holder: Holder) -> None:
        aside = self.hold.with_name(f"{self.hold.name}.{self.me.token}")
        try:
            self.disk.rename(self.hold, aside)
        except FileNotFoundError:
            return
        if holder.token.encode() not in self.disk.read(aside):
            self.disk.rename(aside, self.hold)  # another newcomer was faster, and this is his
            return
        self.disk.unlink(aside)
