"""Tests many captures in one process, and running out of memory: outside a capture, and inside one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from benchmarks.gpu_stages.bench import ALL_DIGITS, Bench, digits, reserved_bytes, results
from benchmarks.gpu_stages.equality import setting, small
from benchmarks.gpu_stages.job import Job, Note, last_line
from trainable.hardware.device import WARM_UP_STEPS, device_of

CAPTURES: Final = 20
SETTLED: Final = 4  # captures after which memory must not grow
COPIED: Final = 2**20  # bytes at a time
TOO_MUCH: Final = 2**50  # bytes, more than any device or address space has
SQUEEZE: Final = 2**22  # bytes that a trial may use in total


@contextmanager
def copying(device: str) -> Iterator[list[int]]:
    """Meanwhile another thread copies from the device to the host and back; yields its count, in a list of one."""
    place = device_of(device)
    ended, copies, failed = threading.Event(), [0], []

    def copy() -> None:
        try:
            with place.queueing:
                here = torch.zeros(COPIED, dtype=torch.uint8, device=place.torch)
                there = place.host_buffer((COPIED,), torch.uint8)
            while not ended.is_set():
                with place.queueing, place.beside():
                    there.copy_(here, non_blocking=True)
                    here.copy_(there, non_blocking=True)
                    mark = place.mark()
                mark.wait()
                copies[0] += 1
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield copies
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def many_captures(bench: Bench, trials: int = CAPTURES) -> dict[str, Any]:
    """Run trials with graphs one after another in this process while another thread copies: are all equal?

    Reserved bytes are read after each trial, once idle memory was returned.
    """
    device = device_of(bench.run.device)
    config = setting("block5", "64", batch_size=16)
    here = bench.but(graphs=True).sharing("resident")
    by = here.shared()
    alike, reserved = [], []
    first: list[float] = []
    with copying(bench.run.device) as copies:
        for _ in range(trials):
            found = results(here.rows(config, by=by))
            first = first or found
            alike.append(digits(first, found))
            device.give_back()
            reserved.append(reserved_bytes(bench.run.device))
    return {"digits_as_first": min(alike), "reserved_bytes": reserved, "copies": copies[0]}


def captures(job: Job, note: Note) -> None:
    found = many_captures(small(job, 100, 20, epochs=2, precision=job.half))
    flat = max(found["reserved_bytes"]) <= max(found["reserved_bytes"][:SETTLED])
    note(**found, flat=flat)


# ---------------------------------------------------------------- out of memory


def full_outside(bench: Bench) -> dict[str, Any]:
    """Run a trial when GPU memory is nearly full, and again when there is room, in this process.

    A CPU sets no limit, so nothing is raised there.
    """
    device = device_of(bench.run.device)
    config = setting("block5", "64", batch_size=16)
    before = results(bench.rows(config))
    device.give_back()
    raised, kind = "", ""
    total = max(device.total_bytes(), 1)
    device.limit_memory((reserved_bytes(bench.run.device) + SQUEEZE) / total)
    try:
        bench.rows(config)
    except Exception as error:
        raised, kind = last_line(error), type(error).__name__
    finally:
        device.limit_memory(1.0)
    device.give_back()
    after = results(bench.rows(config))
    return {"raised": raised, "kind": kind, "digits_afterwards": digits(before, after)}


def full_inside(bench: Bench) -> dict[str, Any]:
    """Capture a step that asks for too much memory, then run a trial with graphs in the same process.

    A CPU captures nothing: there the step itself raises its allocator's error.
    """
    device = device_of(bench.run.device)
    config = setting("block5", "64", batch_size=16)
    here = bench.but(graphs=True)
    before = results(here.rows(config))
    size = [1]
    held: list[torch.Tensor] = []

    def step() -> None:
        held[:] = [torch.empty(size[0], dtype=torch.uint8, device=device.torch)]

    replayed = device.replayed(step)
    for _ in range(WARM_UP_STEPS):
        replayed()
    size[0] = TOO_MUCH
    raised, kind = "", ""
    try:
        replayed()
    except Exception as error:
        raised, kind = last_line(error), type(error).__name__
    held.clear()
    found = {"raised": raised, "kind": kind}
    try:
        after = digits(before, results(here.rows(config)))
    except Exception as error:
        return found | {"same_process_afterwards": last_line(error)}
    said = "works" if after == ALL_DIGITS else f"{after} digits"
    return found | {"same_process_afterwards": said}


def memory(job: Job, note: Note) -> None:
    bench = small(job, 100, 20, epochs=1, precision=job.half).sharing("resident")
    note(outside=full_outside(bench))
    note(inside=full_inside(bench))
