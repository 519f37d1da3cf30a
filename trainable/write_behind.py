"""What a trial leaves is written while the next one trains: by a thread of its own, one trial's at a time."""

import threading
from collections.abc import Callable
from typing import Final

from trainable.hardware.memory import free_bytes

ROOM: Final = 2
"""So many times its own size must be free for a state that waits, since the next trial takes as much again, and
gradients; and that for every worker of the machine, since all of them may come to an end at once.
Reckoned, not measured."""


class Behind:
    """Holds what one trial at most has left to write, and the thread that writes it."""

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._thread: threading.Thread | None = None
        self._left: Callable[[], object] | None = None

    def has_room(self, size: int) -> bool:
        """May a state of so many bytes wait in this machine's memory?"""
        return free_bytes() >= ROOM * size * self._workers

    def leave(self, write: Callable[[], object]) -> None:
        """Keep `write` for `begin`; nobody else may change what it writes."""
        self._left = write

    @property
    def has_left(self) -> bool:
        return self._left is not None

    def begin(self, last: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Write what was left, then do `last`; where either raises, `failed`. Without anything left, `last` at once."""
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
        """Hold this thread until all is written; before another state is taken into host memory."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
