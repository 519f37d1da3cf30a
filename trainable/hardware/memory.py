"""How a process that runs trials one after another handles the memory that each of them frees, and how much is free.

Only glibc's malloc is configured; with another C library these functions do nothing, and everything still works.
"""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import torch

from trainable.metric import measure

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
IDLE_BYTES: Final = 3 * 2**28
"""A normal trial leaves 0.5 to 0.62 GiB idle, a fragmented heap 0.87 and more (docs/log.md)."""
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the next step and the next trial.

    Otherwise gradients and moments of a large head are mapped and unmapped, and every page faulted in again:
    a step of the 25088-4096-1024-1 head takes 0.30 s instead of 0.46 s (docs/log.md).
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def import_before_training() -> None:
    """Run a tiny step and a tiny measurement so that torch and scikit-learn make the imports of their first use.

    What an import leaves in memory stays there. Among the large tensors of a first trial it would fragment the memory
    that these free: on average 0.3 GiB more per process, up to 1 (docs/log.md).
    """
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.ones(2, 1)).sum().backward()
    optimizer.step()
    measure(torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0]))


def give_back_idle_memory() -> None:
    """Return freed pages to the system if more than 768 MiB of them are idle; called while a trial holds its own.

    The memory that the previous trial freed may be so fragmented that this trial's tensors did not fit there.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if _idle_bytes(libc) > IDLE_BYTES:
            libc.malloc_trim(0)


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h, since glibc 2.33."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _idle_bytes(libc: ctypes.CDLL) -> int:
    """Resident memory of this process alone (without mapped files) that is unused; 0.3 GiB of it was never malloc's."""
    libc.mallinfo2.restype = _MallInfo
    heap = libc.mallinfo2()
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared - heap.uordblks - heap.hblkhd)


def free_bytes(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Memory that this process could still use, on the machine and within its control groups (v1 and v2).

    A group's page cache counts as free as far as it was not read again, as in `MemAvailable`.
    """
    free = int(psutil.virtual_memory().available)
    for folder, limit, usage, idle in _memory_groups(cgroups, own):
        with suppress(OSError, ValueError):  # no such group here, or "max" for no limit
            room = int((folder / limit).read_text()) - int((folder / usage).read_text())
            free = min(free, room + _statistic(folder / "memory.stat", idle))
    return max(free, 0)


def _memory_groups(cgroups: Path, own: Path) -> Iterator[tuple[Path, str, str, str]]:
    """This process's control groups and their parents, with the names of limit, usage and cache not read again."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                root = cgroups / "memory"
                names = (
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                )
            else:
                continue
            for part in (root / path.strip("/"), *(root / path.strip("/")).parents):
                yield part, *names
                if part == root:
                    break


def _statistic(path: Path, name: str) -> int:
    found = dict(line.split() for line in path.read_text().splitlines())
    return int(found.get(name, 0))
