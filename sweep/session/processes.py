"""Identifies a process and tells whether it is alive, without clocks and without confusing containers."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
NAMESPACES = ("pid", "time")
"""Namespaces in which a process number and a start time are valid."""


class Stat(NamedTuple):
    """Fields of /proc/PID/stat."""

    pid: int
    state: str
    start_ticks: int

    @staticmethod
    def read(name: str) -> "Stat":
        """
        Raises:
            OSError: no such process, or it can't be seen.
        """
        before, _, after = (PROC / name / "stat").read_text(errors="replace").rpartition(")")
        fields = after.split()
        return Stat(int(before.split()[0]), fields[0], int(fields[19]))  # see proc(5)


@dataclass(frozen=True)
class Process:
    """A process on a machine; the last three are None if the system does not show them (no /proc, or another's)."""

    host: str
    pid: int
    boot: str | None = None
    """The kernel's number of this boot."""
    namespaces: str | None = None
    start_ticks: int | None = None
    """Since that boot: a process with this number that started at another time is another process."""

    @staticmethod
    def this() -> "Process":
        host, pid = socket.gethostname(), os.getpid()
        try:
            stat = Stat.read("self")
            boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
            spaces = [PROC / "self/ns" / name for name in NAMESPACES]
            namespaces = " ".join(str(path.readlink()) for path in spaces if path.is_symlink())
        except (OSError, ValueError, IndexError):
            return Process(host, pid)
        if stat.pid != pid or not namespaces:  # this /proc shows another container's processes
            return Process(host, pid)
        return Process(host, pid, boot, namespaces, stat.start_ticks)

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Process":
        """
        Raises:
            KeyError, TypeError, ValueError: the facts name no process.
        """
        host, pid, ticks = str(facts["host"]), int(facts["pid"]), facts.get("start_ticks")
        return Process(
            host,
            pid,
            facts.get("boot"),
            facts.get("namespaces"),
            None if ticks is None else int(ticks),
        )


def lives(process: Process) -> bool | None:
    """Is it alive? None if that can't be seen from here. A zombie is dead."""
    if why_unseen(process):
        return None
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's process
    try:
        stat = Stat.read(str(process.pid))
    except (OSError, ValueError, IndexError):
        return None  # other users' processes may be hidden
    return stat.state not in "ZX" and stat.start_ticks == process.start_ticks


def why_unseen(process: Process) -> str:
    """Why this machine can't see whether the process is alive; "" if it can."""
    this = Process.this()
    if process.host != this.host:
        return "it runs on another machine"
    if None in (process.boot, process.namespaces, process.start_ticks):
        return "it did not record how to tell its process from others"
    if None in (this.boot, this.namespaces):
        return "this system can't tell one process from another"
    if process.boot != this.boot:
        return "this machine has restarted since, or another machine has the same name"
    if process.namespaces != this.namespaces:
        return "it runs in another container"
    return ""
