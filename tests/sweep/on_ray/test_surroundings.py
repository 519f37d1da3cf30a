"""Whole sweeps in containers as people have them: a user without a name, a quota of CPUs, little shared memory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.show.status import read_status
from trainable.records.manifest import read_manifest
from trainable.records.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.system("unshare")]

NOBODY = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
QUOTAS = {
    "v1": "mkdir {root}/cpu; echo 100000 >{root}/cpu/cpu.cfs_quota_us; echo 100000 >{root}/cpu/cpu.cfs_period_us",
    "v2": "echo 100000 100000 >{root}/cpu.max",
}


def container(version: str) -> list[str]:
    """As `docker run --cpus 1`: its control group's files, and Docker's 64 MB of shared memory."""
    quota = QUOTAS[version].format(root="/sys/fs/cgroup")
    begin = (
        "set -e; mount -t tmpfs none /sys/fs/cgroup; mount -t tmpfs -o size=64m none /dev/shm; "
        f'{quota}; exec "$@"'
    )
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "bash", "-c", begin, "bash"]


def sweep_in(place: list[str], config: Path, store: Path) -> subprocess.CompletedProcess[str]:
    if subprocess.run([*place, "true"], capture_output=True).returncode:
        pytest.skip("namespaces need rights that this process does not have")
    return subprocess.run(
        [*place, sys.executable, "-m", "sweep", "run", str(config)],
        capture_output=True,
        text=True,
        env={**os.environ, "SWEEP_STORE": str(store)},
    )


@pytest.mark.slow
def test_a_user_without_a_home_and_without_a_name_sweeps(
    configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in many containers: `docker run --user 54321`."""
    monkeypatch.delenv("HOME")
    done = sweep_in(NOBODY, configure({"lr": 1e-3, "epochs": 1}), tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert read_status(tmp_path / "run")["counts"] == {"finished": 1}


@pytest.mark.parametrize("version", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_a_container_of_one_cpu_and_64_mb_of_shared_memory_runs_one_trial_at_a_time(
    configure: Callable[..., Path], tmp_path: Path, version: str
) -> None:
    """On any machine, with frozen work that is shared between trials."""
    config = configure(
        {"strategy": "block5", "lr": [1e-3, 1e-4], "epochs": 2}, resources={"gpus_per_trial": 0}
    )
    done = sweep_in(container(version), config, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert read_status(tmp_path / "run")["counts"] == {"finished": 2}
    granted = read_manifest(RunFolder(tmp_path / "run")).resources
    assert granted is not None and (granted.concurrent, granted.cpus_per_trial) == (1, 1)


@pytest.mark.slow
def test_where_rays_folder_is_another_users_ray_tmpdir_is_named_and_helps(
    configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be kept out of a folder that it makes")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    Path("/tmp/ray").mkdir(exist_ok=True)
    begin = 'mount -t tmpfs -o mode=700,uid=1 none /tmp/ray; exec "$@"'
    place = [
        *("unshare", "--mount", "bash", "-c", begin, "bash"),
        *("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"),
    ]
    config = configure({"lr": 1e-3, "epochs": 1})
    refused = sweep_in(place, config, tmp_path / "store")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "Permission denied: '/tmp/ray/" in refused.stderr
    assert "set RAY_TMPDIR to a folder of yours" in refused.stderr
    assert not (tmp_path / "run").exists()
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        done = sweep_in(place, config, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert read_status(tmp_path / "run")["counts"] == {"finished": 1}
