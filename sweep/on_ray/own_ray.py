"""Ray on this machine, started in the background while its workers import what trials need."""

import ctypes
import logging
import os
import signal
import tempfile
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
LATE: Final = "timed out during startup"
"""Ray's words where its raylet gave up because its agents took more than 15 s to start (ray-project/ray#65983)."""
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
        self._cpus = cpus
        self._thread = self._trying(again=False)
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

    def _trying(self, *, again: bool) -> threading.Thread:
        """Tried again where a busy machine (say, another sweep is starting) was too slow for Ray's own limits."""
        return threading.Thread(target=self._run, args=(again,), name="ray", daemon=True)

    def _run(self, again: bool) -> None:
        try:
            with sigterm_as_it_was(), python_path():
                self._context = ray.init(
                    address="local",
                    num_cpus=self._cpus,
                    include_dashboard=None,  # started, but not required: with True, a late one is an error
                    dashboard_host="127.0.0.1",
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,  # errors are raised; a late dashboard is reported by us
                    job_config=job(),
                )
        except Exception as error:  # raised in `ready`
            if LATE in str(error) and not again and not self._unwanted.is_set():
                self._thread = self._trying(again=True)
                self._thread.start()
                return  # and the kernel ends the processes that this thread started
            self._error = error
        self._started.set()
        self._unwanted.wait()
        with sigterm_as_it_was():
            ray.shutdown()


def _remedy(error: Exception) -> str:
    """What to do: Ray's sockets need a short path, its token the user's home, its start an idle machine."""
    file = str(error.filename or "") if isinstance(error, OSError) else ""
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if file and Path(file).is_relative_to(Path.home()):
        return "; set HOME to a folder that can be written to: Ray keeps its token there"
    if (file and Path(file).is_relative_to(temporary)) or "AF_UNIX" in str(error):
        return "; set RAY_TMPDIR to a folder of yours with a short path, for Ray's files"
    if LATE in str(error):
        return "; the machine was too busy, twice: start again when it is less busy"
    return ""
