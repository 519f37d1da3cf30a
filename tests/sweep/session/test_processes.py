"""What a process can tell of others: nothing is guessed where the system does not show it."""

import os
import shutil
from pathlib import Path

import pytest

from sweep.session import processes
from sweep.session.processes import Process, lives, why_unseen


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of which this process sees what the test leaves in it: at first, all that concerns itself."""
    proc = tmp_path / "proc"
    for name in ("self", str(os.getpid())):
        (proc / name / "ns").mkdir(parents=True)
        shutil.copyfile("/proc/self/stat", proc / name / "stat")
        for namespace in processes.NAMESPACES:
            (proc / name / "ns" / namespace).symlink_to(f"{namespace}:[1]")
    boot = proc / "sys" / "kernel" / "random" / "boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("first\n")
    monkeypatch.setattr(processes, "PROC", proc)
    return proc


def test_where_the_system_shows_them_this_process_is_alive(shown: Path) -> None:
    this = Process.this()
    assert None not in (this.boot, this.namespaces, this.start_ticks)
    assert lives(this) is True and why_unseen(this) == ""


def no_proc(proc: Path) -> None:
    shutil.rmtree(proc)


def another_containers(proc: Path) -> None:
    (proc / "self" / "stat").write_text("1 (init) S " + "0 " * 30)


def unreadable(proc: Path) -> None:
    (proc / "self" / "stat").write_text("something else")


@pytest.mark.parametrize("change", [no_proc, another_containers, unreadable])
def test_where_it_shows_nothing_of_this_process_no_process_can_be_told_from_another(
    shown: Path, change: object
) -> None:
    before = Process.this()
    assert callable(change)
    change(shown)
    this = Process.this()
    assert (this.pid, this.boot, this.namespaces, this.start_ticks) == (os.getpid(), *3 * [None])
    assert lives(before) is None
    assert why_unseen(before) == "this system can't tell one process from another"
    assert "did not record" in why_unseen(this)


def test_a_process_that_the_system_hides_may_be_alive_or_not(shown: Path) -> None:
    this = Process.this()
    shutil.rmtree(shown / str(os.getpid()))
    assert lives(this) is None


def test_a_number_that_no_process_can_have_is_of_none(shown: Path) -> None:
    facts = vars(Process.this()) | {"pid": 10**30}
    assert lives(Process(**facts)) in (False, None)


def test_after_a_restart_of_the_machine_its_processes_are_others(shown: Path) -> None:
    before = Process.this()
    (shown / "sys" / "kernel" / "random" / "boot_id").write_text("second\n")
    assert lives(before) is None and "has restarted since" in why_unseen(before)
