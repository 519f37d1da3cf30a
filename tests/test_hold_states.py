"""The hold in every order of the steps of several drivers: never two of them, no number twice, and always a way in."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweep import hold
from sweep.hold import Driver
from sweep.processes import Process
from tests import old_hold
from tests.every_order import Answered, AtOnce, File, Files, Orders, State
from tests.old_hold import OldDriver
from trainable.config import RequestError
from trainable.record import RunFolder

RUN = RunFolder(Path("/run"))
HOLDER = 3
"""The process that holds the run at first, behind three newcomers; its number is 1."""
Program = Callable[[Answered], object]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wait is a whole watch, and the hour is always the same."""
    monkeypatch.setattr(hold, "WATCH_SECONDS", hold.POLL_SECONDS)
    monkeypatch.setattr(hold, "HALF_WRITTEN_SECONDS", hold.POLL_SECONDS)
    monkeypatch.setattr(hold, "now", lambda: "today")
    monkeypatch.setattr(hold, "why_unseen", lambda process: "it is elsewhere")


class Followed(Driver):
    """Tells where what it does next follows from a number alone, however it came there."""

    disk: Answered

    def _await(self, session: int) -> None:
        self.disk.reach(("await", session))
        super()._await(session)

    def _draw(self, number: int) -> bool:
        self.disk.reach(("draw", number, self.session))
        drawn = super()._draw(number)
        self.disk.reach(("drawn", drawn, number, self.session))
        return drawn

    def let_go(self) -> None:
        self.disk.reach(("let go", self.session))
        super().let_go()


def driver(who: int, disk: Answered) -> Driver:
    return Followed(
        RUN,
        process=Process("host", 100 + who),
        token=f"driver {who}",
        disk=disk,
        lives=lambda process: disk.step("lives", what=process.pid),
        sleep=disk.sleep,
    )


def newcomer(who: int, take_over: bool = False) -> Program:
    def program(disk: Answered) -> None:
        one = driver(who, disk)
        with suppress(RequestError):
            number = one.take(take_over)
            disk.reach(("holds", number))
            disk.holds(number)
            one.let_go()

    return program


def holder(disk: Answered) -> None:
    one = driver(HOLDER, disk)
    one.session = 1
    disk.holds(1)
    one.let_go()


def older_version(disk: Answered) -> None:
    """Holds by driver.json alone."""
    disk.holds(0)
    disk.unlink(RUN.driver)


def held(owner: int | None, content: bytes | None = None) -> Files:
    """By session 1, which process `owner` drew."""
    named = driver(HOLDER, Answered((), {}))._named(1) if content is None else content
    return tuple((str(path), File(named, 0, owner)) for path in (RUN.driver, RUN.holder(1)))


def held_by_older_version(owner: int | None) -> Files:
    facts = {"token": "old", "host": "host", "pid": 100 + HOLDER, "pid_started": 1.0, "since": ""}
    return ((str(RUN.driver), File(json.dumps(facts).encode(), 0, owner)),)


HALF_DRAWN: Files = ((str(RUN.holder(1)), File(b"", 0, None)),)
PIDS = {100 + who: who for who in range(HOLDER + 1)}


def orders(
    programs: Sequence[Program],
    files: Files,
    elsewhere: Sequence[int] = (),
    opened: int = 0,
    silence: bool = False,
) -> Orders:
    """`elsewhere`: who does not see the others' processes, nor they his. `opened`: sessions of an older version."""

    def sees(who: int, pid: int, living: bool) -> bool | None:
        facts_known = pid in PIDS and files != held_by_older_version(HOLDER)
        return living if facts_known and (who in elsewhere) == (PIDS[pid] in elsewhere) else None

    sessions = json.dumps({"sessions": [{"number": n + 1} for n in range(opened)]}).encode()
    unchanging = {str(RUN.manifest): sessions, str(RUN.session): None}
    return Orders(programs, files, sees, PIDS, unchanging, silence)


class Watched:
    """Goes through all states, and asks of each what must hold."""

    def __init__(self, orders: Orders, overtaken: bool = False) -> None:
        self.count, self._orders = 0, orders
        self._lost: dict[tuple[int, int, Files], bool] = {}
        self._ways_in: set[tuple[tuple[str, bytes], ...]] = set()
        for state in orders.states():
            self.count += 1
            holders = orders.holders(state)
            if not overtaken:
                assert len(holders) <= 1, f"two hold the run:\n{orders.story(state)}"
            assert len(set(state.drawn)) == len(state.drawn), f"drawn twice:\n{orders.story(state)}"
            newest = self._newest(state)
            for process, number in holders:
                if number:  # not an older version's
                    assert self._has_lost(process, number, state) == (newest > number)
            self._has_way_in(state)

    def _newest(self, state: State) -> int:
        return RUN.newest_drawn(AtOnce(state.files, {}, False))

    def _has_lost(self, process: int, number: int, state: State) -> bool:
        """At its next look."""
        key = process, number, state.files
        if key not in self._lost:
            one = driver(process, AtOnce(state.files, {}, False))
            one.session = number
            self._lost[key] = one.has_lost()
        return self._lost[key]

    def _has_way_in(self, state: State) -> None:
        """If all died now, a later one would get in, and draw a number of its own."""
        contents = tuple((path, file.content) for path, file in state.files)
        if contents in self._ways_in:
            return
        self._ways_in.add(contents)
        for sees_dead in (False, None):
            later = driver(9, AtOnce(state.files, self._orders.unchanging, sees_dead))
            assert later.take() > max((0, *state.drawn, self._newest(state)))


def test_the_race_of_the_old_hold_is_found() -> None:
    """One moves a living hold aside and puts it back; meanwhile a third makes his own."""
    path = Path("/run/driver.json")

    def old_newcomer(who: int) -> Program:
        def program(disk: Answered) -> None:
            me = old_hold.Holder(f"driver {who}", "host", 100 + who, 1.0, "")
            see: Callable[[int], bool] = lambda pid: bool(disk.step("lives", what=pid))
            one = OldDriver(path, me, disk, see, disk.sleep)
            with suppress(RequestError):
                one.acquire()
                disk.holds(0)
                one.let_go()

        return program

    dead = old_hold.Holder("driver 3", "host", 100 + HOLDER, 1.0, "")
    files = ((str(path), File(json.dumps(asdict(dead)).encode(), 0, None)),)
    three = Orders(
        [old_newcomer(who) for who in range(3)], files, lambda who, pid, living: living, PIDS
    )
    for state in three.states():
        if len(three.holders(state)) == 2:
            print(three.story(state))
            return
    pytest.fail("the race was not found")


NEWCOMERS = [newcomer(who) for who in range(3)]


def test_x() -> None:
    import time
    for name, programs, files in [
        ("nobody", NEWCOMERS, ()),
        ("dead", NEWCOMERS, held(None)),
        ("living", [*NEWCOMERS, holder], held(HOLDER)),
    ]:
        for count in (2,3):
            t=time.time()
            ps = programs[:count]+programs[3:] if count==3 or name!="living" else None
            if ps is None: continue
            w = Watched(orders(ps, files))
            print(name, count, w.count, len(w._ways_in), round(time.time()-t,1), flush=True)
