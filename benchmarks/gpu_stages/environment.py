"""The machine: what determines kernels, and what the host has."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import psutil

from benchmarks.gpu_stages.job import Job, Note
from trainable.hardware.device import device_of
from trainable.installation import git_state

WRITTEN = 2**28  # bytes


def environment(job: Job, note: Note) -> None:
    device = device_of(job.device)
    commit, changed = git_state()
    note(
        device=device.facts(),
        half=device.half(),
        cpus=job.cpus,
        cpu_quota=_quota(),
        memory_bytes=psutil.virtual_memory().total,
        disk_free_bytes=psutil.disk_usage(str(job.folder)).free,
        shared_memory_bytes=psutil.disk_usage("/dev/shm").total,
        python=platform.python_version(),
        packages={name: _version(name) for name in ("torch", "torchvision", "ray", "pillow")},
        git_commit=commit,
        git_dirty=changed,
    )
    content = os.urandom(WRITTEN)
    path = job.folder / "written"
    began = time.perf_counter()
    path.write_bytes(content)
    cached = time.perf_counter() - began
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    note(
        disk_write_bytes_per_second=WRITTEN / cached,
        disk_write_and_sync_bytes_per_second=WRITTEN / (time.perf_counter() - began),
    )
    path.unlink()


def _version(name: str) -> str | None:
    """None if it was copied here without metadata."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _quota() -> float | None:
    """CPUs by the cgroup's quota, if it has one."""
    path = Path("/sys/fs/cgroup/cpu.max")
    words = path.read_text().split() if path.is_file() else ["max"]
    return None if words[0] == "max" else int(words[0]) / int(words[1])
