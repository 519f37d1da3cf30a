"""How many CPUs may be used: what the system says, by affinity and by a container's quota."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib.externals.loky.backend.context as counting
import pytest

from tests.support.project import ROOT
from trainable.hardware.cpus import usable_cpus

QUOTAS = {
    "v2": {"/sys/fs/cgroup/cpu.max": "{quota} 100000"},
    "v1": {
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "{quota}",
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    },
}


def test_a_process_that_is_kept_to_one_cpu_counts_one() -> None:
    ask = (
        "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]);"
        "from trainable.hardware.cpus import usable_cpus; print(usable_cpus())"
    )
    root = ROOT
    told = subprocess.run(
        [sys.executable, "-c", ask], cwd=root, capture_output=True, check=True, text=True
    )
    assert int(told.stdout) == 1


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("quota", [50_000, 150_000, 400_000, 1_600_000])
def test_a_containers_quota_is_counted_in_whole_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, quota: int
) -> None:
    """On a machine of 64 CPUs, with files as the kernel writes them."""
    files = {}
    for number, (path, text) in enumerate(QUOTAS[version].items()):
        files[path] = tmp_path / str(number)
        files[path].write_text(text.format(quota=quota) + "\n")

    def opened(path: str, *rest: Any) -> Any:
        return files[path].open(*rest)

    monkeypatch.setattr(counting, "open", opened, raising=False)
    monkeypatch.setattr(os.path, "exists", lambda path: path in files)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    assert usable_cpus() == math.ceil(quota / 100_000)
