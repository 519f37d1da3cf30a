"""SIGINT (Ctrl-C) and SIGTERM of a command: acknowledged at once, and remembered even if a library swallows them.

Python raises KeyboardInterrupt between two steps of the main thread. While that waits within a library (an import, or
Ray's start), the signal waits too, and a library that catches every error loses it. So a thread reads the signals as
they come (`signal.set_wakeup_fd`) and reports them; code that starts a longer step checks `heard`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

GRACE_SECONDS: Final = 0.3  # a process that has ended by then reports nothing; assumed

_heard: list[int] = []
_told = threading.Event()


def listen(tell: Callable[[str], None]) -> None:
    """Start to listen; `tell` gets a line when a signal came and the process has not ended a moment later.

    Does nothing outside the main thread, which alone gets signals. A signal that is ignored, like SIGINT in a shell's
    background job, stays ignored.
    """
    _heard.clear()
    _told.clear()
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_read, args=(reader, tell), daemon=True, name="signals").start()


def heard() -> signal.Signals | None:
    """The first signal that came, if any."""
    return signal.Signals(_heard[0]) if _heard else None


def say_ended(tell: Callable[[str], None]) -> None:
    """Report the end if no line was printed yet: Python takes seconds to unload modules, in which no thread runs."""
    by = heard()
    if by is not None and not _told.is_set():
        _told.set()
        tell(f"{by.name}: ended")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _remember(number)
    raise KeyboardInterrupt


def _remember(number: int) -> None:
    if not _heard:
        _heard.append(number)


def _read(reader: int, tell: Callable[[str], None]) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number in (signal.SIGINT, signal.SIGTERM):
                _remember(number)
                time.sleep(GRACE_SECONDS)
                if not _told.is_set():
                    _told.set()
                    tell(
                        f"{signal.Signals(number).name}: stopping cleanly; send it again to stop at once"
                    )
