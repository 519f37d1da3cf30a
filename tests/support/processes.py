"""Processes that tests start: none outlives its test or leaves a pipe open."""

import subprocess
from contextlib import suppress
from typing import Any

_started: list["subprocess.Popen[Any]"] = []


def start(*arguments: Any, **options: Any) -> "subprocess.Popen[Any]":
    """`subprocess.Popen` for a process that ends with the test at the latest."""
    process = subprocess.Popen(*arguments, **options)
    _started.append(process)
    return process


def end_all() -> None:
    """Kill what still runs of them, and close their pipes."""
    while _started:
        process = _started.pop()
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it holds what nobody reads
                    pipe.close()
        process.wait()
