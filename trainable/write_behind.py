"""Writes a trial's weights and state while the next one trains: in a thread, for one trial at a time."""

import threading
from collections.abc import Callable
from typing import Final

from trainable.hardware.memory import free_bytes

ROOM: Final = 2
"""A waiting state needs this many times its own size of free memory, since the next trial takes as much again, and
gradients; and for every worker of the machine, since all of them can end at once. Estimated, not measured."""


class Behind:
    """Holds what at most one trial has left to write, and the thread that writes it."""

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._thread: threading.Thread | None = None
        self._left: Callable[[], object] | None = None

    def has_room(self, size: int) -> bool:
        """Does this machine's memory have room for a waiting state of `size` bytes?"""
        return free_bytes() >= ROOM * size * self._workers

    def leave(self, write: Callable[[], object]) -> None:
        """Keep `write` for `begin`; nothing else may change what it writes."""
        self._left = write

    @property
    def has_left(self) -> bool:
        return self._left is not None

    def begin(self, last: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Write what was left, then call `last`; if either raises, `failed`. If nothing was left, call `last` now."""
        write, self._left = self._left, None
        if write is None:
            last()
            return

        def run() -> None:
            try:
                write()
                last()
            except Exception as error:
                failed(error)

        self._thread = threading.Thread(target=run, name="write", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Block until all is written; to be called before another state is taken into host memory."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
