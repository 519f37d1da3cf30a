"""The hold in every order of the steps of several drivers: never two of them, no number twice, and always a way in."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweep.session import hold
from sweep.session.hold import Driver
from sweep.session.processes import Process
from tests.support import old_hold
from tests.support.every_order import Answered, AtOnce, File, Files, Orders
from tests.support.old_hold import OldDriver
from trainable.errors import RequestError
from trainable.records.run_folder import RunFolder

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


def gone(disk: Answered) -> None:
    """Takes no part."""


def holder(disk: Answered) -> None:
    one = driver(HOLDER, disk)
    one.session = 1
    disk.holds(1)
    one.let_go()


OLD_HOLDER = old_hold.Holder("older", "host", 100 + HOLDER, 1.0, "today")


def old_driver(me: old_hold.Holder, disk: Answered) -> OldDriver:
    def see(pid: int) -> bool:
        return bool(disk.step("lives", what=pid))

    return OldDriver(RUN.driver, me, disk, see, disk.sleep)


def older_version(disk: Answered) -> None:
    """Holds by driver.json alone."""
    disk.holds(0)
    old_driver(OLD_HOLDER, disk).let_go()


def held(owner: int | None) -> Files:
    """By session 1, which process `owner` drew; None: one that is dead."""
    named = driver(HOLDER, Answered((), {}))._named(1)
    return tuple((str(path), File(named, 0, owner)) for path in (RUN.driver, RUN.holder(1)))


def held_by_older_version(owner: int | None) -> Files:
    return ((str(RUN.driver), File(json.dumps(asdict(OLD_HOLDER)).encode(), 0, owner)),)


HALF_DRAWN: Files = ((str(RUN.holder(1)), File(b"", 0, None)),)
PIDS = {100 + who: who for who in range(HOLDER + 1)}
NEWCOMERS = [newcomer(who) for who in range(3)]
HERE = "aaaa"
ELSEWHERE = HOLDER_ELSEWHERE, ONE_ELSEWHERE, EACH_ELSEWHERE = "aaab", "aaba", "abcd"
"""On which machine each of the four is: who is on another one can't be seen."""


def orders(
    programs: Sequence[Program],
    files: Files,
    machines: str = HERE,
    opened: int = 0,
    silence: bool = False,
) -> Orders:
    """`opened`: sessions of an older version that are on record."""

    def sees(who: int, pid: int, living: bool) -> bool | None:
        return living if pid in PIDS and machines[who] == machines[PIDS[pid]] else None

    sessions = json.dumps({"sessions": [{"number": n + 1} for n in range(opened)]}).encode()
    unchanging = {str(RUN.manifest): sessions, str(RUN.session): None}
    return Orders(programs, files, sees, PIDS, unchanging, silence)


def look_at_all(orders: Orders, overtaken: bool = False) -> None:
    """Go through all states, and ask of each what must hold. `overtaken`: may one that lives lose the run?"""
    asked = set()
    for state in orders.states():
        holders = orders.holders(state)
        if not overtaken and len(holders) > 1:
            pytest.fail(f"two hold the run:\n{orders.story(state)}")
        if len(set(state.drawn)) < len(state.drawn):
            pytest.fail(f"a number is drawn twice:\n{orders.story(state)}")
        for process, number in holders:
            if number and (process, number, state.disk) not in asked:  # 0 is an older version's
                asked.add((process, number, state.disk))
                sees_whether_it_lost(process, number, orders.disks[state.disk])
    for contents in {tuple((path, file.content) for path, file in disk) for disk in orders.disks}:
        finds_a_way_in(contents, orders.unchanging)
    print(f"{len(orders.came_from):,} states, {len(orders.disks):,} disks")


def sees_whether_it_lost(process: int, number: int, files: Files) -> None:
    """At its next look: where a newer number was drawn, and there alone."""
    disk = AtOnce(files, {}, False)
    one = driver(process, disk)
    one.session = number
    assert one.has_lost() == (RUN.newest_drawn(disk) > number)


def finds_a_way_in(
    contents: Iterable[tuple[str, bytes]], unchanging: Mapping[str, bytes | None]
) -> None:
    """If all died now, a later one would get in, and draw a number of its own."""
    files = tuple((path, File(content, 0, None)) for path, content in contents)
    for sees_dead in (False, None):
        disk = AtOnce(files, unchanging, sees_dead)
        newest = RUN.newest_drawn(disk)
        assert driver(9, disk).take() > newest


def test_the_race_of_the_old_hold_is_found() -> None:
    """One moves a living hold aside and puts it back; meanwhile a third makes his own."""

    def old_newcomer(who: int) -> Program:
        def program(disk: Answered) -> None:
            one = old_driver(replace(OLD_HOLDER, token=f"newcomer {who}", pid=100 + who), disk)
            with suppress(RequestError):
                one.acquire()
                disk.holds(0)
                one.let_go()

        return program

    three = orders([old_newcomer(who) for who in range(3)], held_by_older_version(None))
    found = next(state for state in three.states() if len(three.holders(state)) == 2)
    assert "/run/driver.json.newcomer" in three.story(found)


SLOW, WHOLE = pytest.mark.slow, pytest.mark.whole
DEAD: dict[str, tuple[Files, str]] = {
    "nobody": ((), HERE),
    "seen": (held(None), HERE),
    "unseen": (held(None), HOLDER_ELSEWHERE),
    "unseen-by-one": (held(None), ONE_ELSEWHERE),
    "each-unseen": (held(None), EACH_ELSEWHERE),
    "died-before-it-wrote": (HALF_DRAWN, HERE),
    "older-version": (held_by_older_version(None), HOLDER_ELSEWHERE),
}
LARGE = ("unseen", "each-unseen", "died-before-it-wrote", "older-version")


@pytest.mark.parametrize(
    "dead", [pytest.param(dead, marks=SLOW if dead in LARGE else WHOLE) for dead in DEAD]
)
def test_of_three_newcomers_at_a_dead_hold_one_at_a_time_gets_in(dead: str) -> None:
    files, machines = DEAD[dead]
    look_at_all(orders(NEWCOMERS, files, machines))


@pytest.mark.parametrize("dead", DEAD)
def test_of_two_newcomers_at_a_dead_hold_one_at_a_time_gets_in(dead: str) -> None:
    files, machines = DEAD[dead]
    look_at_all(orders(NEWCOMERS[:2], files, machines))


@pytest.mark.parametrize(
    "machines",
    [pytest.param(HERE, marks=WHOLE), *(pytest.param(m, marks=SLOW) for m in ELSEWHERE)],
)
def test_a_holder_that_lives_is_succeeded_by_none_of_three(machines: str) -> None:
    look_at_all(orders([*NEWCOMERS, holder], held(HOLDER), machines))


@pytest.mark.parametrize("machines", [HERE, *ELSEWHERE])
def test_a_holder_that_lives_is_succeeded_by_none_of_two(machines: str) -> None:
    look_at_all(orders([*NEWCOMERS[:1], gone, NEWCOMERS[2], holder], held(HOLDER), machines))


def test_a_living_driver_of_an_older_version_is_not_succeeded() -> None:
    files = held_by_older_version(HOLDER)
    look_at_all(orders([*NEWCOMERS[:2], gone, older_version], files, HOLDER_ELSEWHERE))


def test_numbers_go_on_after_those_of_an_older_version() -> None:
    look_at_all(orders(NEWCOMERS[:2], (), opened=2))


@pytest.mark.parametrize(
    "third", [gone, pytest.param(newcomer(2), marks=SLOW)], ids=["two", "three"]
)
def test_who_is_taken_over_sees_it_at_his_next_look(third: Program) -> None:
    two = [newcomer(who, take_over=True) for who in range(2)]
    look_at_all(orders([*two, third, holder], held(HOLDER)), overtaken=True)


def test_who_is_silent_too_long_may_lose_the_run_and_sees_it() -> None:
    """A machine that slept, or a disk that hung; here also a newcomer between two of its steps."""
    programs = [*NEWCOMERS[:2], gone, holder]
    look_at_all(orders(programs, held(HOLDER), EACH_ELSEWHERE, silence=True), overtaken=True)


def test_a_hold_that_forgets_its_numbers_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker itself: without what makes the hold safe, it finds two drivers, or a number drawn twice."""
    let_go = Driver.let_go

    def forget(one: Driver) -> None:
        let_go(one)
        one.disk.unlink(RUN.holder(one.session))

    monkeypatch.setattr(Driver, "let_go", forget)
    with pytest.raises(pytest.fail.Exception, match=r"two hold the run|drawn twice"):
        look_at_all(orders(NEWCOMERS, ()))
