"""What goes wrong around a sweep under a real Ray: disks, folders, hung workers, nodes that come and go, memory."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.ray_sweeps import GOOD, assert_as_calm, end, running, sweep, wait_for
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]  # also on a slow machine
EPOCHS = 30


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that runs no trial, and no other node yet."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs rights that this process does not have")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.system("mount")
def test_a_sweep_whose_disk_fails_says_so_in_one_line_and_goes_on_when_it_is_mended(
    configure: Callable[..., Path], tmp_path: Path, small_disk: Path, cluster: Any
) -> None:
    """Full, then read-only at the next start, then gone."""
    cluster.add_node(num_cpus=1)
    config = configure(
        {"lr": [GOOD, 1e-3], "epochs": 2 * EPOCHS}, storage=str(small_disk), sharing="off"
    )
    run, filler = RunFolder(small_disk / "run"), small_disk / "filler"
    moved = small_disk / "moved"

    def refused(process: subprocess.Popen[str], said: str) -> None:
        code, out, err = end(process)
        assert code == 2, out + err
        last = err.strip().splitlines()[-1]
        assert said in last and "sweep resume" in last
        assert "Traceback" not in out + err

    def start(*command: object) -> subprocess.Popen[str]:
        return sweep(*command, tmp=tmp_path, address=cluster.address)

    process = start("run", config)
    wait_for(lambda: running(run, 5), process)
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**12)):
            pass
    refused(process, "must have room")
    filler.unlink()

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, out, err = end(start("resume", run.path))
    assert (code, err.count("\n")) == (2, 1) and "Read-only file system" in err, out + err
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)

    process = start("resume", run.path)
    wait_for(lambda: running(run, 10), process)
    run.path.rename(moved)
    refused(process, "must stay where it is, but it is gone")
    shutil.rmtree(run.path, ignore_errors=True)  # Ray may have made a folder of its own there
    moved.rename(run.path)

    code, out, err = end(start("resume", run.path))
    assert code == 0, out + err
    assert_as_calm(run, trials=2)


def test_a_hung_worker_is_ended_and_its_trial_tried_again(
    configure: Callable[..., Path], tmp_path: Path, cluster: Any
) -> None:
    cluster.add_node(num_cpus=1)
    config = configure(
        {"lr": GOOD, "epochs": 3 * EPOCHS},
        guards={"collapse_epochs": "off", "hung_after": "6s"},
        sharing="off",
    )
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path, address=cluster.address)
    victim = wait_for(lambda: running(run, epochs=3), process)
    os.kill(victim.status().pid, signal.SIGSTOP)
    code, out, err = end(process)
    assert code == 0, out + err
    assert (victim.status().attempt, victim.status().failures) == (2, 1)
    assert "no sign of life for 6.0 s" in victim.log.read_text()
    assert_as_calm(run, trials=1)


def test_a_node_that_comes_gets_trials_and_those_of_one_that_goes_are_tried_elsewhere(
    configure: Callable[..., Path], tmp_path: Path, cluster: Any
) -> None:
    first = cluster.add_node(num_cpus=1)
    config = configure(
        {"lr": [GOOD, 1e-3, 3e-4], "epochs": 100},
        resources={"cpus_per_trial": 1, "retries": 5},
        sharing="off",
    )
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path, address=cluster.address)
    victim = wait_for(lambda: running(run, epochs=1), process)
    pid = victim.status().pid
    # so that it has not ended when its node goes, however fast that is
    os.kill(pid, signal.SIGSTOP)
    cluster.add_node(num_cpus=1)

    def two_run() -> bool:
        return [r.status().status for r in run.trials()].count(Status.RUNNING) == 2

    wait_for(two_run, process)
    cluster.remove_node(first, allow_graceful=False)
    os.kill(pid, signal.SIGKILL)  # with its node, all that ran there has gone
    code, out, err = end(process)
    assert code == 0, out + err
    assert victim.status().attempt == 2
    assert_as_calm(run, trials=3)
