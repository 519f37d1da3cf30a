"""One driver at a time: who may take a hold over, and that whoever lost it stops. Real processes, real files."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from sweep import hold
from sweep.hold import Holder, only_driver, read_holder
from trainable.config import RequestError
from trainable.files import write_json
from trainable.record import FORMAT_VERSION, RunFolder

Text = Callable[[pytest.ExceptionInfo[Exception]], str]

DRIVER = """
import sys, time
from pathlib import Path
from sweep import hold
from trainable.record import RunFolder
hold.BEAT_SECONDS = 0.1
with hold.only_driver(RunFolder(Path(sys.argv[1]))):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(
        folder.manifest, {"format_version": FORMAT_VERSION, "configurations": [], "sessions": []}
    )
    return folder


@pytest.fixture
def driver(run: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(run.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def held_by(run: RunFolder, **changed: object) -> Holder:
    """Write a hold of somebody else."""
    holder = replace(Holder.me(), **changed)  # type: ignore[arg-type]
    run.hold.write_text(json.dumps(asdict(holder)))
    return holder


def refusal(run: RunFolder, refused: Text) -> str:
    with pytest.raises(RequestError) as caught, only_driver(run):
        raise AssertionError("two drivers hold the run")
    return refused(caught)


def test_a_hold_ends_with_its_driver(run: RunFolder) -> None:
    with only_driver(run):
        holder = read_holder(run)
        assert holder is not None and holder.pid == os.getpid()
    assert read_holder(run) is None
    assert [path.name for path in run.path.iterdir()] == ["manifest.json"]
    with pytest.raises(ZeroDivisionError), only_driver(run):
        raise ZeroDivisionError
    assert read_holder(run) is None


def test_a_second_driver_is_told_who_holds_the_run(
    run: RunFolder, driver: subprocess.Popen[str], refused: Text
) -> None:
    holder = read_holder(run)
    assert holder is not None
    said = refusal(run, refused)
    assert f"process {driver.pid} on {holder.host} has held it since {holder.since}" in said
    assert "--take-over" not in said, "on the same host its process can be seen to live"
    assert driver.poll() is None


def test_a_driver_that_was_killed_holds_nothing(
    run: RunFolder, driver: subprocess.Popen[str]
) -> None:
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert run.hold.exists()
    with only_driver(run):
        holder = read_holder(run)
        assert holder is not None and holder.pid == os.getpid()


def test_another_process_of_the_same_number_is_not_the_driver(run: RunFolder) -> None:
    held_by(run, pid_started=12345.0)
    with only_driver(run):
        pass


def test_a_driver_on_another_host_is_dead_when_its_hold_does_not_move(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "WATCH_SECONDS", 1.0)
    held_by(run, host="elsewhere")
    said: list[str] = []
    began = time.monotonic()
    with only_driver(run, tell=said.append):
        assert time.monotonic() - began >= 1.0
    assert len(said) == 1 and "on elsewhere" in said[0]


def test_a_driver_on_another_host_whose_hold_moves_is_alive(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, refused: Text
) -> None:
    monkeypatch.setattr(hold, "WATCH_SECONDS", 30.0)
    held_by(run, host="elsewhere")
    beat = threading.Timer(1.0, os.utime, [run.hold])
    beat.start()
    began = time.monotonic()
    said = refusal(run, refused)
    assert time.monotonic() - began < 20, "it is refused as soon as the hold has moved"
    assert "--take-over" in said


def test_who_is_taken_over_stops_and_says_so(run: RunFolder, driver: subprocess.Popen[str]) -> None:
    with only_driver(run, take_over=True):
        _, err = driver.communicate(timeout=30)
        assert "was taken over; this driver stops" in err
        assert driver.returncode == -signal.SIGTERM
        holder = read_holder(run)
        assert holder is not None and holder.pid == os.getpid(), "the loser left the hold alone"


def test_a_driver_whose_run_folder_is_gone_says_that_and_not_that_it_was_taken_over(
    run: RunFolder, driver: subprocess.Popen[str]
) -> None:
    """Also where something else, as Ray does, has made a folder of that name again."""
    run.path.rename(run.path.with_name("elsewhere"))
    run.path.mkdir()
    _, err = driver.communicate(timeout=30)
    assert "is gone; this driver stops" in err


def test_a_driver_keeps_its_hold_moving(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "BEAT_SECONDS", 0.05)
    with only_driver(run):
        first = run.hold.stat().st_mtime_ns
        until = time.monotonic() + 20
        while run.hold.stat().st_mtime_ns == first:
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_hold_is_refused_with_the_way_out(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, refused: Text, content: str
) -> None:
    monkeypatch.setattr(hold, "HALF_WRITTEN_SECONDS", 0.1)
    run.hold.write_text(content)
    assert "--take-over" in refusal(run, refused)
    with only_driver(run, take_over=True):
        pass


def test_a_newcomer_that_was_killed_with_its_claim_is_succeeded_and_leaves_nothing(
    run: RunFolder,
) -> None:
    """Killed between any two steps of taking a dead hold away: one claim is left, or a chain of them."""
    dead = held_by(run, pid_started=1.0)
    token = dead.token
    for number in range(3):
        claimer = replace(dead, token=f"newcomer{number}")
        claim = run.hold.with_name(f"{run.hold.name}.{token}.taken")
        claim.write_text(json.dumps(asdict(claimer)))
        token = claimer.token
    with only_driver(run):
        assert [path.name for path in sorted(run.path.iterdir())] == [
            "driver.json",
            "manifest.json",
        ]


def test_a_hold_that_a_living_newcomer_is_taking_away_is_left_to_it(run: RunFolder) -> None:
    dead = held_by(run, pid_started=1.0)
    claim = run.hold.with_name(f"{run.hold.name}.{dead.token}.taken")
    claim.write_text(json.dumps(asdict(replace(Holder.me(), token="newcomer"))))
    assert not hold._take_away(run, dead, Holder.me())
    assert run.hold.exists() and claim.exists()


def test_a_hold_that_came_after_the_dead_one_was_read_is_not_touched(run: RunFolder) -> None:
    dead = held_by(run, pid_started=1.0)
    run.hold.unlink()
    living = held_by(run)
    assert not hold._take_away(run, dead, Holder.me())
    assert read_holder(run) == living
    assert not list(run.path.glob("*.taken"))


def test_without_hard_links_a_hold_is_made_in_place(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, refused: Text
) -> None:
    def no_links(*paths: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(hold.os, "link", no_links)
    with only_driver(run):
        assert "process" in refusal(run, refused)
    assert [path.name for path in run.path.iterdir()] == ["manifest.json"]


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


def test_of_many_who_find_a_dead_hold_one_gets_it(run: RunFolder) -> None:
    fork = multiprocessing.get_context("fork")
    for _ in range(5):
        held_by(run, pid_started=1.0)
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
        assert [path.name for path in run.path.iterdir()] == ["manifest.json"]
