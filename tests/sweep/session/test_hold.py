"""One driver at a time: who may take a hold over, and that whoever lost it stops. Real processes, real files.

In every order of their steps: test_hold_states.py.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from sweep.session import hold
from sweep.session.hold import Driver, Holder, only_driver, read_hold
from sweep.session.processes import Process, Stat, lives
from tests.support.manifests import put_manifest, session
from tests.support.old_hold import Holder as OldHolder
from tests.support.old_hold import OldDriver
from tests.support.processes import start
from tests.support.project import ROOT
from trainable.errors import RequestError
from trainable.records.files import Disk, write_json
from trainable.records.run_folder import RunFolder

Text = Callable[[pytest.ExceptionInfo[Exception]], str]

DRIVER = """
import sys, time
from pathlib import Path
from sweep.session import hold
from trainable.records.run_folder import RunFolder
hold.BEAT_SECONDS = 0.1
with hold.only_driver(RunFolder(Path(sys.argv[1]))):
    print("holds", flush=True)
    time.sleep(60)
"""

NEWCOMER = """
import sys
from pathlib import Path
from sweep.session import hold
from trainable.errors import RequestError
from trainable.records.run_folder import RunFolder
try:
    with hold.only_driver(RunFolder(Path(sys.argv[1]))):
        print("holds")
except RequestError as error:
    print(error)
"""
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
STEPPED_CLOCK = [
    *("unshare", "--mount", "bash", "-c"),
    """began=$(awk '/^btime/ {print $2}' /proc/stat) && file=$(mktemp) &&
    sed "s/^btime .*/btime $((began + 2))/" /proc/stat >"$file" && mount --bind "$file" /proc/stat &&
    rm "$file" && exec "$@" """,
    "bash",
]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    put_manifest(folder)
    return folder


@pytest.fixture
def driver(run: RunFolder) -> subprocess.Popen[str]:
    """Another process that holds the run."""
    process = start(
        [sys.executable, "-c", DRIVER, str(run.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


ELSEWHERE: dict[str, dict[str, Any]] = {
    "another machine": {"host": "elsewhere"},
    "this machine before it was started anew": {"boot": "another"},
    "a container with the same host name": {"namespaces": "pid:[1]"},
    "a system that tells nothing": {"boot": None, "namespaces": None, "start_ticks": None},
}
"""Drivers whose process can't be seen from here, though its number may be that of a living one."""
GONE: dict[str, Any] = {"start_ticks": 1}
"""Of a process whose number another one has by now."""


def held_by(run: RunFolder, session: int = 1, **changed: Any) -> None:
    """Write down a hold of somebody else: this process, but for what is changed."""
    run.sessions.mkdir(exist_ok=True)
    process = replace(Process.this(), **changed)
    write_json(run.holder(session), Holder("his", "today", process, session).to_json())


def held_by_older_version(run: RunFolder) -> None:
    """By driver.json alone, which does not say how to tell its process from another."""
    write_json(run.driver, asdict(OldHolder("his", Process.this().host, os.getpid(), 1.0, "today")))


def holder(run: RunFolder) -> Process | None:
    hold = read_hold(run)
    return hold.holder.process if hold is not None else None


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Somebody moves this file's time."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()


@pytest.fixture
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second without a sign of life is enough."""
    monkeypatch.setattr(hold, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(hold, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(hold, "HALF_WRITTEN_SECONDS", 0.05)


def refusal(run: RunFolder, refused: Text) -> str:
    with pytest.raises(RequestError) as caught, only_driver(run):
        raise AssertionError("two drivers hold the run")
    return refused(caught)


def test_a_hold_ends_with_its_driver(run: RunFolder) -> None:
    with only_driver(run):
        assert holder(run) == Process.this()
        assert json.loads(run.driver.read_text())["pid"] == os.getpid()
    assert holder(run) is None and not run.driver.exists()
    with pytest.raises(ZeroDivisionError), only_driver(run):
        raise ZeroDivisionError
    assert holder(run) is None


def test_each_driver_draws_the_next_number(run: RunFolder) -> None:
    drawn = []
    for _ in range(3):
        with only_driver(run) as session:
            drawn.append(session)
    held_by(run, session=4, **GONE)
    with only_driver(run) as session:
        drawn.append(session)
    assert drawn == [1, 2, 3, 5]


@pytest.mark.parametrize("shown_by", ["manifest", "session"])
def test_in_a_folder_of_an_older_version_numbers_go_on_after_its_sessions(
    run: RunFolder, shown_by: str
) -> None:
    if shown_by == "manifest":
        put_manifest(run, sessions=(session(1), session(2)))
    else:
        write_json(run.session, {"number": 2})
    with only_driver(run) as number:
        assert number == 3


def test_a_second_driver_is_told_who_holds_the_run(
    run: RunFolder, driver: subprocess.Popen[str], refused: Text
) -> None:
    hold = read_hold(run)
    assert hold is not None
    said = refusal(run, refused)
    assert f"process {driver.pid} on {hold.holder.process.host} has held it since" in said
    assert "--take-over" not in said, "its process can be seen to live"
    assert driver.poll() is None


def test_a_driver_that_was_killed_is_succeeded_at_once(
    run: RunFolder, driver: subprocess.Popen[str]
) -> None:
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    said: list[str] = []
    with only_driver(run, tell=said.append) as session:
        assert holder(run) == Process.this() and session == 2
    assert said == []


def test_another_process_of_the_same_number_is_not_the_driver(run: RunFolder) -> None:
    held_by(run, **GONE)
    with only_driver(run):
        pass


@pytest.mark.system("unshare")
@pytest.mark.parametrize("place", [CONTAINER, STEPPED_CLOCK], ids=["container", "stepped-clock"])
def test_a_living_driver_is_not_succeeded_from_such_a_place(
    run: RunFolder, driver: subprocess.Popen[str], place: list[str]
) -> None:
    """Another container of the same host name; this machine after its clock was set by two seconds."""
    if subprocess.run([*place, "true"], capture_output=True).returncode:
        pytest.skip("namespaces need rights that this process does not have")
    newcomer = [*place, sys.executable, "-c", NEWCOMER, str(run.path)]
    cwd = ROOT
    said = subprocess.run(newcomer, capture_output=True, text=True, cwd=cwd).stdout
    assert f"process {driver.pid} on" in said and "has held it since" in said
    assert ("--take-over" in said) == (place is CONTAINER), "its process can be seen but there"
    assert driver.poll() is None


def test_a_zombie_is_dead() -> None:
    child = start([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(
        Process.this(), pid=child.pid, start_ticks=Stat.read(str(child.pid)).start_ticks
    )
    assert lives(process) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Stat.read(str(child.pid)).state == "Z"
    assert lives(process) is False
    child.wait()
    assert lives(process) is False


def test_the_living_hold_of_an_older_version_is_respected(
    run: RunFolder, short_watch: None, refused: Text
) -> None:
    """It does not say enough of its process, so its heartbeat decides."""
    held_by_older_version(run)
    with beating(run.driver):
        assert "today" in refusal(run, refused)
    with only_driver(run):
        assert holder(run) == Process.this()
    assert not run.driver.exists()


def test_an_older_version_starts_nothing_while_a_run_is_held(run: RunFolder) -> None:
    me = OldHolder("mine", "here", os.getpid(), 1.0, "today")
    older = OldDriver(run.driver, me, Disk(), lambda pid: True, time.sleep)
    with only_driver(run), pytest.raises(RequestError, match="damaged"):
        older.acquire()
    older.acquire()


def test_a_driver_from_which_an_older_version_took_the_run_has_lost(run: RunFolder) -> None:
    one = Driver(run)
    one.take()
    assert not one.has_lost()
    held_by_older_version(run)
    assert one.has_lost()


def test_who_is_taken_over_stops_and_says_so(run: RunFolder, driver: subprocess.Popen[str]) -> None:
    with only_driver(run, take_over=True):
        _, err = driver.communicate(timeout=30)
        assert "was taken over; this driver stops" in err
        assert driver.returncode == -signal.SIGTERM
        assert holder(run) == Process.this(), "the loser left the hold alone"
        assert json.loads(run.driver.read_text())["pid"] == os.getpid()


def test_a_driver_that_slept_while_it_was_taken_over_stops_when_it_wakes(
    run: RunFolder, driver: subprocess.Popen[str]
) -> None:
    driver.send_signal(signal.SIGSTOP)
    with only_driver(run, take_over=True):
        pass
    driver.send_signal(signal.SIGCONT)
    _, err = driver.communicate(timeout=30)
    assert "was taken over; this driver stops" in err


def test_take_over_is_meant_for_whoever_held_the_run_then(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, refused: Text
) -> None:
    """Of two who take over the same driver, one is refused."""
    held_by(run)
    one, another, draw = Driver(run), Driver(run), Driver._draw

    def is_slower(driver: Driver, number: int) -> bool:
        if driver is one and another.session == 0:
            another.take(take_over=True)
        return draw(driver, number)

    monkeypatch.setattr(Driver, "_draw", is_slower)
    with pytest.raises(RequestError) as caught:
        one.take(take_over=True)
    assert "one driver at a time" in refused(caught)


def test_a_driver_whose_run_folder_is_gone_says_that_and_not_that_it_was_taken_over(
    run: RunFolder, driver: subprocess.Popen[str]
) -> None:
    """Also where something else, as Ray does, has made a folder of that name again."""
    run.path.rename(run.path.with_name("elsewhere"))
    run.path.mkdir()
    _, err = driver.communicate(timeout=30)
    assert "is gone; this driver stops" in err


def test_a_session_that_ends_since_its_folder_is_gone_is_not_cut_short(run: RunFolder) -> None:
    """Its trials notice it too, and it may be ending for that when the heart does: seen as exit code 143, unsaid."""
    program = """
import sys, threading, time
from pathlib import Path
from sweep.session import hold
from sweep.session.interruption import Interruption
from trainable.records.run_folder import RunFolder
hold.BEAT_SECONDS = 0.1
run, interruption = RunFolder(Path(sys.argv[1])), Interruption()
with hold.only_driver(run):
    interruption.watch()
    run.path.rename(run.path.with_name("elsewhere"))
    interruption.begin_to_end()
    while any(thread.name == "hold" for thread in threading.enumerate()):
        time.sleep(0.01)
    interruption.leave()
    print("said why")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, run.path], capture_output=True, text=True, timeout=60
    )
    assert "is gone; this driver stops" in ended.stderr
    assert (ended.returncode, ended.stdout) == (0, "said why\n"), ended.stderr


def test_a_program_whose_sweep_runs_in_a_thread_is_not_ended_with_it(run: RunFolder) -> None:
    """The session sees by itself that its run was taken over."""
    program = """
import sys, threading, time
from pathlib import Path
from sweep.session import hold
from trainable.records.run_folder import RunFolder
hold.BEAT_SECONDS = 0.1
def session():
    with hold.only_driver(RunFolder(Path(sys.argv[1]))):
        while not any(thread.name == "hold" for thread in threading.enumerate()):
            time.sleep(0.01)
        print("held", flush=True)
        while any(thread.name == "hold" for thread in threading.enumerate()):
            time.sleep(0.01)
thread = threading.Thread(target=session)
thread.start()
thread.join()
print("goes on")
"""
    process = start(
        [sys.executable, "-c", program, run.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with only_driver(run, take_over=True):
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "goes on\n"), err
    assert "was taken over; this driver stops" in err


def test_a_driver_keeps_its_hold_moving(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "BEAT_SECONDS", 0.05)
    with only_driver(run):
        first = run.holder(1).stat().st_mtime_ns
        until = time.monotonic() + 20
        while run.holder(1).stat().st_mtime_ns == first:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_disk_that_fails_in_the_taking_leaves_nothing_that_holds(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trainable.records.files.Disk.write", full)
        with pytest.raises(OSError, match="No space"), only_driver(run):
            pass
    with only_driver(run) as session:
        assert session == 2


# ---------------------------------------------------------------- by a clock that nobody waits for


class Waiting(Driver):
    """A driver that counts its seconds instead of waiting, and sees no other's process unless told how."""

    def __init__(
        self,
        run: RunFolder,
        told: list[str] | None = None,
        lives: Callable[[Process], bool | None] = lambda process: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self.waited = 0.0
        self.meanwhile = meanwhile
        tell = (lambda text: None) if told is None else told.append
        super().__init__(run, tell, lives=lives, sleep=self.wait)

    def wait(self, seconds: float) -> None:
        self.waited += seconds
        self.meanwhile()


def beat_of(path: Path) -> Callable[[], None]:
    """Moves this file's time with each call."""
    seconds = count(1)
    return lambda: os.utime(path, (next(seconds),) * 2)


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_driver_that_cant_be_seen_is_dead_when_its_hold_does_not_move(
    run: RunFolder, where: str
) -> None:
    held_by(run, **ELSEWHERE[where])
    said: list[str] = []
    one = Waiting(run, said, lives)
    assert one.take() == 2 and one.waited == 60
    assert len(said) == 1 and "s for a sign of life" in said[0]


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_driver_that_cant_be_seen_is_alive_when_its_hold_moves(
    run: RunFolder, refused: Text, where: str
) -> None:
    held_by(run, **ELSEWHERE[where])
    one = Waiting(run, lives=lives, meanwhile=beat_of(run.holder(1)))
    with pytest.raises(RequestError, match="--take-over") as caught:
        one.take()
    refused(caught)
    assert one.waited < 5, "it is refused as soon as the hold has moved"


def test_a_driver_that_cant_be_seen_may_let_go_while_it_is_watched(run: RunFolder) -> None:
    held_by(run, host="elsewhere")
    one = Waiting(run, lives=lives, meanwhile=run.ended(1).touch)
    assert one.take() == 2
    assert one.waited < 5, "nobody waits for one that has ended"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"host": "a", "pid": "b"}'])
@pytest.mark.parametrize("version", ["this", "older"])
def test_of_a_damaged_hold_the_heartbeat_decides(
    run: RunFolder, refused: Text, version: str, content: str
) -> None:
    """As of a driver that was killed between the making of its file and the writing."""
    run.sessions.mkdir()
    path = run.holder(1) if version == "this" else run.driver
    path.write_text(content)
    with pytest.raises(RequestError, match="a driver whose file is damaged") as caught:
        Waiting(run, lives=lives, meanwhile=beat_of(path)).take()
    assert "--take-over" in refused(caught)
    one = Waiting(run, lives=lives)
    one.take()
    one.let_go()
    path.write_text(content)
    assert Waiting(run, lives=lives).take(take_over=True)


def test_who_comes_first_or_after_one_that_let_go_waits_for_nobody(run: RunFolder) -> None:
    for number in (1, 2):
        told: list[str] = []
        one = Waiting(run, told=told)
        assert one.take() == number and one.waited == 0 and told == []
        one.let_go()
        assert read_hold(run) is None


def test_nobody_holds_a_run_before_the_first(run: RunFolder) -> None:
    assert read_hold(run) is None


def test_a_minute_without_a_sign_of_life_is_waited_for_and_why(run: RunFolder) -> None:
    held_by(run, host="elsewhere")
    told: list[str] = []
    one = Waiting(run, told=told)
    assert one.take() == 2 and one.waited == 60
    assert told == [
        f"process {os.getpid()} on elsewhere holds {run.path}, and it runs on another machine; "
        "waiting up to 60 s for a sign of life …"
    ]


def test_of_a_hold_that_stays_half_written_two_seconds_more_are_waited_for(run: RunFolder) -> None:
    run.sessions.mkdir()
    run.holder(1).touch()
    told: list[str] = []
    one = Waiting(run, told=told)
    assert one.take() == 2 and one.waited == 62
    assert told[0].startswith(f"a driver whose file is damaged holds {run.path}; waiting up to")


@pytest.mark.parametrize("living", [True, None])
def test_who_was_refused_leaves_the_other_s_hold_as_it_was(
    run: RunFolder, living: bool | None
) -> None:
    """Its end is not the other's."""
    held_by(run)
    beat = run.holder(1)
    one = Driver(run, lives=lambda process: living, sleep=lambda seconds: os.utime(beat, (1, 1)))
    with pytest.raises(RequestError, match="wait for it, or stop it") as caught:
        one.take()
    assert ("--take-over" in str(caught.value)) == (living is None)
    one.let_go()
    assert not run.ended(1).exists()
    assert (hold := read_hold(run)) is not None and hold.holder.token == "his"


def test_a_run_is_lost_to_a_newer_number_and_to_no_damaged_copy(run: RunFolder) -> None:
    one, other = Waiting(run), Waiting(run)
    one.take()
    assert not one.has_lost()
    run.driver.write_text("damaged")
    assert not one.has_lost()
    run.driver.unlink()
    assert not one.has_lost()
    assert other.take(take_over=True) == 2
    assert one.has_lost() and not other.has_lost()
    one.let_go()
    assert json.loads(run.driver.read_text())["session"] == 2, "the loser leaves it alone"
    assert (hold := read_hold(run)) is not None and hold.holder.token == other.token


@pytest.mark.parametrize("content", ["", None, "another"])
def test_a_run_is_lost_with_the_file_that_names_its_driver_unless_that_is_damaged(
    run: RunFolder, content: str | None
) -> None:
    one = Waiting(run)
    one.take()
    if content is None:
        run.holder(1).unlink()
    elif content == "":
        run.holder(1).write_text(content)
    else:
        held_by(run)
    assert one.has_lost() == (content != "")


@pytest.mark.parametrize(("moved", "silent"), [(900, 100.0), (1000, 0.0), (1060, 0.0)])
def test_the_silence_of_a_hold_is_the_time_since_its_last_sign_of_life(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, moved: int, silent: float
) -> None:
    """By two clocks: where the file server's is ahead, there is none."""
    held_by(run)
    os.utime(run.holder(1), (moved, moved))
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    found = read_hold(run)
    assert found is not None and found.silent_seconds == silent and found.living is True


def test_a_damaged_hold_is_seen_and_says_nothing_of_a_process(
    run: RunFolder, short_watch: None
) -> None:
    run.sessions.mkdir()
    run.holder(1).write_text("{")
    found = read_hold(run)
    assert found is not None and found.living is None
    assert (str(found.holder), found.holder.why_unseen) == ("a driver whose file is damaged", "")
    held_by(run, 2, host="elsewhere")
    found = read_hold(run)
    assert found is not None and found.holder.why_unseen == "it runs on another machine"


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("heard", [True, False])
def test_a_time_limit_is_signalled_only_to_who_hears_it_and_only_where_the_folder_is_gone(
    gone: bool, heard: bool
) -> None:
    """Whoever does not listen for SIGUSR1 would die of it unsaid."""
    before = signal.signal(
        signal.SIGUSR1, (lambda number, frame: None) if heard else signal.SIG_DFL
    )
    try:
        expected = signal.SIGUSR1 if gone and heard else signal.SIGTERM
        assert hold._signal_to_end(gone) is expected
    finally:
        signal.signal(signal.SIGUSR1, before)


# ---------------------------------------------------------------- many at once


def contend(
    folder: Path, start: Barrier, finish: Barrier, won: "multiprocessing.Queue[int]"
) -> None:
    start.wait()
    try:
        with only_driver(RunFolder(folder)):
            won.put(os.getpid())
            finish.wait()
    except RequestError:
        finish.wait()


@pytest.mark.whole
def test_of_many_who_find_a_dead_hold_one_gets_it(run: RunFolder) -> None:
    fork = multiprocessing.get_context("fork")
    for _ in range(5):
        held_by(run, run.newest_drawn() + 1, **GONE)
        start, finish, won = fork.Barrier(6), fork.Barrier(6), fork.Queue()
        crowd = [
            fork.Process(target=contend, args=(run.path, start, finish, won)) for _ in range(6)
        ]
        for process in crowd:
            process.start()
        for process in crowd:
            process.join(30)
            assert process.exitcode == 0
        won.get(timeout=5)
        assert won.empty()
        assert sorted(path.name for path in run.path.iterdir()) == ["manifest.json", "sessions"]


@pytest.mark.parametrize("opened", [1, 2, 5])
def test_after_an_older_version_each_of_its_numbers_is_drawn_and_none_is_left_out(
    run: RunFolder, opened: int
) -> None:
    """It drew none: a newcomer that begins at 1 must find all of them taken."""
    put_manifest(run, sessions=tuple(session(number + 1) for number in range(opened)))
    assert Waiting(run).take() == opened + 1
    drawn = {path.name for path in run.sessions.iterdir()}
    assert drawn == {f"{number + 1}.json" for number in range(opened + 1)}


def test_a_hold_whose_file_goes_while_it_is_looked_at_has_been_silent_for_no_time(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can't know for how long says nothing of it."""
    held_by(run)
    monkeypatch.setattr(Disk, "moved", lambda disk, path: None)
    assert (found := read_hold(run)) is not None and found.silent_seconds == 0


def test_a_heartbeat_that_the_disk_refuses_does_not_end_the_driver(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(run)
    driver.take()

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(driver, "beat", refuse)
        assert hold._Heart(driver)._has_lost() is False
    driver.let_go()
    with only_driver(run):
        assert hold._Heart(driver)._has_lost() is True
