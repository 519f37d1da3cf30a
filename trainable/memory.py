"""What a process that runs one trial after another does with the memory that each of them frees.

Only glibc's malloc is told anything; with another C library these functions do nothing, and all works as well.
"""

import ctypes
from contextlib import suppress
from typing import Final

import psutil
import torch

from trainable.metric import measure

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
IDLE_BYTES: Final = 3 * 2**28


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for the next step and the next trial.

    Gradients and moments of a large head are mapped and unmapped otherwise, and every page of them faulted in anew:
    a step of the 25088-4096-1024-1 head takes 0.30 s instead of 0.46 s (docs/log.md).
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def import_before_training() -> None:
    """Let a tiny step and a tiny measurement import what they need: torch and scikit-learn do so at first use.

    What an import leaves in memory stays there. Among the large tensors of a first trial it would part what these
    free, and the next trial's would have to be put above: 0.3 GiB more a process in the mean, up to 1 (docs/log.md).
    """
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.ones(2, 1)).sum().backward()
    optimizer.step()
    measure(torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0]))


def give_back_idle_memory() -> None:
    """Give freed pages back to the system where more than 768 MiB of them lie idle; called while a trial holds its own.

    What the trial before left may be parted so that this one's tensors did not fit, and were put above it.
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
    """Resident and this process's own (mapped files are not), but not in use; some 0.3 GiB of it never was malloc's."""
    libc.mallinfo2.restype = _MallInfo
    heap = libc.mallinfo2()
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared - heap.uordblks - heap.hblkhd)
