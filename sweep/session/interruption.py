"""How a session is ended before its time."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from trainable.records.manifest import SessionEnd
from trainable.show.exit_codes import Exit
from trainable.show.signals import heard


class Interruption:
    """SIGINT, SIGTERM, the time limit and faults of the run end Tune in its orderly way; a second signal at once.

    Python lets the main thread alone hear signals. A session in another leaves them to the program, and time limit and
    faults end it between two steps of Tune's.
    """

    def __init__(self) -> None:
        """In the thread that the session runs in."""
        self.hears_signals = threading.current_thread() is threading.main_thread()
        self.how: SessionEnd | None = None
        self.fault = ""
        """What must be mended before the sweep can go on."""
        self._ending = False
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def stop(self, how: SessionEnd, fault: str = "") -> None:
        """End Tune as Ctrl-C does, wherever this is called; the first reason counts."""
        if not self.how:
            self.how, self.fault = how, fault
            if self.hears_signals:
                os.kill(os.getpid(), signal.SIGUSR1)

    def end_here(self) -> None:
        """To be called between two steps of Tune's: raises KeyboardInterrupt where an end was asked for that no signal
        tells of."""
        if self.how and not self.hears_signals:
            raise KeyboardInterrupt

    def watch(self) -> None:
        """Turn SIGTERM into SIGUSR1, on which Tune ends as on Ctrl-C.

        To be called after Ray has started, since Ray then sets a handler of its own, which saves nothing.
        """
        if not self.hears_signals:
            return
        handlers = ((signal.SIGUSR1, self._early), (signal.SIGTERM, self._terminate))
        self._before = {number: signal.signal(number, handler) for number, handler in handlers}
        self._before[signal.SIGINT] = signal.getsignal(signal.SIGINT)

    def obey(self) -> None:
        """End what a signal asked to end, where a library has swallowed it.

        Raises:
            KeyboardInterrupt: one has come since the command began.
        """
        by = heard()
        if by is not None:
            terminated = by is signal.SIGTERM
            self.how = self.how or (SessionEnd.SIGTERM if terminated else SessionEnd.SIGINT)
            raise KeyboardInterrupt

    def limit(self, seconds: float | None) -> None:
        """End Tune so many seconds from now; called again, the first call counts. None: no limit."""
        if seconds is not None and self._timer is None and not self._ending:
            longest = min(seconds, threading.TIMEOUT_MAX)
            self._timer = threading.Timer(longest, self.stop, [SessionEnd.TIME_LIMIT])
            self._timer.daemon = True
            self._timer.start()

    def begin_to_end(self) -> None:
        """Tune has ended: there is no waiting any more, and a signal that still comes ends the process."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()

    def leave(self) -> None:
        """Give the signals back to whom they belonged. Where that was nobody they stay here, so that one which comes
        while the process ends changes its exit code no more."""
        self.begin_to_end()
        for number, handler in self._before.items():
            if handler is not signal.SIG_DFL:
                signal.signal(number, handler)

    def _early(self, number: int, frame: FrameType | None) -> None:
        """Before Tune has set its own handler."""
        if not self._ending:
            raise KeyboardInterrupt

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self._ending or self.how is SessionEnd.SIGTERM:
            os._exit(Exit.TERMINATED)
        self.stop(SessionEnd.SIGTERM)
        self.how = SessionEnd.SIGTERM  # who asked for it is told so, whatever was ending it already
