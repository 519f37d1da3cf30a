"""A Ray that starts while the driver prepares: whatever ends the driver, nothing of it is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sweep.show.status import read_status
from tests.support.processes import start
from tests.support.project import ROOT

pytestmark = pytest.mark.ray


def hear_sigint() -> None:
    """What a shell starts in the background ignores it, and so would all that is started there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begin(config: Path, mark: str) -> subprocess.Popen[str]:
    """The command with `mark` in its environment, which all that it starts inherit."""
    return start(
        [sys.executable, "-m", "sweep", "run", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SWEEP_STORE": mark, "SWEEP_RAY_BESIDE_CPUS": "1"},
        preexec_fn=hear_sigint,
    )


def marked(mark: str) -> list[str]:
    """Programs that run with it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SWEEP_STORE") == mark:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_request_that_is_refused_while_ray_starts_leaves_nothing_behind(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure({"lr": 1e-3, "epochs": 1}, model={"weights": "/nowhere.pth"})
    process = begin(config, mark := str(tmp_path / "store"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "/nowhere.pth" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    wait_until(lambda: not marked(mark))


def test_a_folder_whose_path_is_too_long_for_rays_sockets_is_refused_with_the_remedy(
    configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    process = begin(configure({"lr": 1e-3, "epochs": 1}), mark := str(tmp_path / "store"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "set RAY_TMPDIR to a folder" in err and err.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if "run" in path.name]
    wait_until(lambda: not marked(mark))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_while_ray_starts_ends_it_too(
    configure: Callable[..., Path], tmp_path: Path, number: int, code: int
) -> None:
    process = begin(configure({"lr": 1e-3, "epochs": 1}), mark := str(tmp_path / "store"))
    wait_until(lambda: any("raylet" in program for program in marked(mark)))
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err and "***" not in err
    if number != signal.SIGKILL:
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".run")]
    wait_until(lambda: not marked(mark))


def test_a_sweep_whose_reader_goes_comes_to_its_end_as_any_other(
    configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of `sweep run sweep.yaml 2>&1 | head -1` in an environment without UTF-8."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = begin(configure({"lr": [1e-3, 1e-4], "epochs": 2}), str(tmp_path / "store"))
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=240) == 0
    facts = read_status(tmp_path / "run")
    assert facts["counts"] == {"finished": 2}
    assert [trial["epoch"] for trial in facts["trials"]] == [2, 2]
    log = (tmp_path / "run" / "sweep.log").read_text()
    assert log.count("finished   ") == 2 and "finished: 2 trials ended, 0 failed" in log


@pytest.mark.slow
def test_a_dashboard_that_does_not_start_in_time_is_done_without(
    configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two sweeps start at the same moment on a busy machine."""
    monkeypatch.setenv("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "0")
    process = begin(configure({"lr": 1e-3, "epochs": 1}), mark := str(tmp_path / "store"))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "no Ray dashboard" in out and "dashboard" not in err
    assert read_status(tmp_path / "run")["counts"] == {"finished": 1}
    wait_until(lambda: not marked(mark))


SLOW_AGENT = """
import os, sys, time
if any(argument.endswith("dashboard/agent.py") for argument in sys.argv):
    first = os.environ["SLOW"]
    if first == "/" or not os.path.exists(first):
        os.makedirs(first, exist_ok=True)
        time.sleep(40)
"""


@pytest.mark.slow
@pytest.mark.parametrize("tries", [1, 2])
def test_where_a_busy_machine_is_too_slow_for_ray_it_is_started_a_second_time(
    configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    """Its raylet gives its agents 15 s, then exits (ray-project/ray#65983); nothing of that attempt remains."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("SLOW", str(tmp_path / "slow") if tries == 1 else "/")
    process = begin(configure({"lr": 1e-3, "epochs": 500}), mark := str(tmp_path / "store"))
    if tries == 1:
        wait_until(lambda: any((tmp_path / "run").glob("trials/*/epochs.jsonl")), 240)
        assert sum("gcs_server" in program for program in marked(mark)) == 1
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    assert process.returncode == (143 if tries == 1 else 2), err
    assert "Traceback" not in err
    assert ("the machine was too busy" in err and err.count("\n") == 1) == (tries == 2)
    wait_until(lambda: not marked(mark))
