"""How a session is ended early."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from trainable.records.manifest import SessionEnd
from trainable.show.exit_codes import Exit
from trainable.show.signals import heard


class Interruption:
    """SIGINT, SIGTERM, the time limit and faults of the run let Tune end cleanly; a second signal ends it at once.

    In Python only the main thread gets signals. A session in another thread leaves them to the program; time limit and
    faults then end it between two steps of Tune.
    """

    def __init__(self) -> None:
        """To be called in the thread that the session runs in."""
        self.hears_signals = threading.current_thread() is threading.main_thread()
        self.how: SessionEnd | None = None
        self.fault = ""
        """What must be fixed before the sweep can continue."""
        self._ending = False
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def stop(self, how: SessionEnd, fault: str = "") -> None:
        """End Tune as Ctrl-C does, from wherever this is called; the first reason counts."""
        if not self.how:
            self.how, self.fault = how, fault
            if self.hears_signals:
                os.kill(os.getpid(), signal.SIGUSR1)

    def end_here(self) -> None:
        """To be called between two steps of Tune: raise KeyboardInterrupt if an end was requested that no signal
        reports."""
        if self.how and not self.hears_signals:
            raise KeyboardInterrupt

    def watch(self) -> None:
        """Turn SIGTERM into SIGUSR1, on which Tune ends as on Ctrl-C.

        To be called after Ray has started, since Ray sets a handler of its own, which saves nothing.
        """
        if not self.hears_signals:
            return
        handlers = ((signal.SIGUSR1, self._early), (signal.SIGTERM, self._terminate))
        self._before = {number: signal.signal(number, handler) for number, handler in handlers}
        self._before[signal.SIGINT] = signal.getsignal(signal.SIGINT)

    def obey(self) -> None:
        """End as a signal asked, in case a library has swallowed it.

        Raises:
            KeyboardInterrupt: a signal has come since the command began.
        """
        by = heard()
        if by is not None:
            terminated = by is signal.SIGTERM
            self.how = self.how or (SessionEnd.SIGTERM if terminated else SessionEnd.SIGINT)
            raise KeyboardInterrupt

    def limit(self, seconds: float | None) -> None:
        """End Tune this many seconds from now; only the first call counts. None: no limit."""
        if seconds is not None and self._timer is None and not self._ending:
            longest = min(seconds, threading.TIMEOUT_MAX)
            self._timer = threading.Timer(longest, self.stop, [SessionEnd.TIME_LIMIT])
            self._timer.daemon = True
            self._timer.start()

    def begin_to_end(self) -> None:
        """Tune has ended: nothing is waited for any more, and a later signal ends the process."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()

    def leave(self) -> None:
        """Restore the previous signal handlers. Where there was none, ours stay, so that a signal that comes while the
        process ends no longer changes its exit code."""
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
        # report SIGTERM to its sender, whatever was already ending the session
        self.how = SessionEnd.SIGTERM
