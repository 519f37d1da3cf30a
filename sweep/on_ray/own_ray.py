"""Ray on this machine, started in the background while its workers import what trials need."""

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ray

from sweep.on_ray.installed import job, python_path
from trainable.errors import RequestError
from trainable.hardware.cpus import usable_cpus

IMPORTED_EARLY: Final = "trainable.trial"
CPUS_TO_SPARE: Final = int(os.environ.get("SWEEP_RAY_BESIDE_CPUS", 8))
"""With fewer, Ray's processes and the driver compete for the cores: 4 s slower with two (docs/log.md)."""
SIGACTION_BYTES: Final = 256
"""More than C's `struct sigaction` takes anywhere (152 on Linux)."""


@contextmanager
def sigterm_as_it_was() -> Iterator[None]:
    """Keep the program's own handling of SIGTERM across `ray.init`, which sets a C++ handler that prints a stack
    before it ends the process, and across `ray.shutdown`, which sets the default."""
    system, before = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    system.sigaction(signal.SIGTERM, None, before)
    try:
        yield
    finally:
        system.sigaction(signal.SIGTERM, before, None)


class OwnRay:
    """A local Ray. It ends with `close`, or with this process, however that ends.

    Its thread lives as long as Ray does: when a thread ends, the kernel ends the processes that it started.
    """

    def __init__(self, trials_at_a_time: int) -> None:
        """With this many workers that import early, at most one per CPU; on few CPUs, Ray starts only in `ready`."""
        cpus = usable_cpus()
        self.begins_now = cpus >= CPUS_TO_SPARE
        self._started = threading.Event()
        self._unwanted = threading.Event()
        self._context: Any = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(cpus,), name="ray", daemon=True)
        if self.begins_now:
            os.environ |= {
                "RAY_preload_python_modules": IMPORTED_EARLY,
                # Ray starts a worker per CPU, and at once ends those above this number
                "RAY_num_workers_soft_limit": str(min(cpus, trials_at_a_time)),
            }
            self._thread.start()

    def ready(self) -> Any:
        """Ray's context, once it has started.

        Raises:
            RequestError: it can't start here.
        """
        if not self.begins_now and self._thread.ident is None:
            self._thread.start()
        self._started.wait()
        if self._error is not None:
            reason = (str(self._error) or type(self._error).__name__).splitlines()[0]
            raise RequestError(
                f"Ray must start on this machine, but it does not: {reason}{_remedy(self._error)}"
            )
        return self._context

    @property
    def has_started(self) -> bool:
        """Would `ready` return without waiting?"""
        return self._started.is_set()

    def close(self) -> None:
        """End it; a Ray that is still starting ends by itself, and is not waited for."""
        self._unwanted.set()
        if self._started.is_set():
            self._thread.join()

    def _run(self, cpus: int) -> None:
        try:
            with sigterm_as_it_was(), python_path():
                self._context = ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    job_config=job(),
                )
        except Exception as error:  # raised in `ready`
            self._error = error
        self._started.set()
        self._unwanted.wait()
        with sigterm_as_it_was():
            ray.shutdown()


def _remedy(error: Exception) -> str:
    """What to do where Ray can't keep its files: its sockets need a short path, and its token the user's home."""
    file = str(error.filename or "") if isinstance(error, OSError) else ""
    if file and Path(file).is_relative_to(Path.home()):
        return "; set HOME to a folder that can be written to: Ray keeps its token there"
    if file or "AF_UNIX" in str(error):
        return "; set RAY_TMPDIR to a folder of yours with a short path, for Ray's files"
    return ""
