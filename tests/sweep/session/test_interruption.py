"""The time limit of a session: it begins with the first trial, counts once, and ends the session as Ctrl-C does."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.session.interruption import Interruption
from trainable.records.manifest import SessionEnd


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Timers that were begun: none of them runs by itself."""
    begun: list[Any] = []

    def timer(seconds: float, call: Any, arguments: list[str]) -> Any:
        made = SimpleNamespace(seconds=seconds, daemon=False, cancelled=False)
        made.start = lambda: begun.append(made)
        made.cancel = lambda: setattr(made, "cancelled", True)
        made.fire = lambda: call(*arguments)
        return made

    monkeypatch.setattr(threading, "Timer", timer)
    return begun


def test_the_limit_counts_from_its_first_call_and_ends_the_session(timers: list[Any]) -> None:
    interruption = Interruption()
    interruption.watch()
    try:
        assert timers == [], "what comes before the first trial does not count"
        for _ in range(3):
            interruption.limit(600.0)
        (timer,) = timers
        assert timer.seconds == 600.0
        with pytest.raises(KeyboardInterrupt):
            timer.fire()
            signal.sigtimedwait([], 1)
        assert interruption.how is SessionEnd.TIME_LIMIT
    finally:
        interruption.begin_to_end()
        interruption.leave()
    assert timer.cancelled


def test_without_a_limit_or_at_the_end_none_begins(timers: list[Any]) -> None:
    interruption = Interruption()
    interruption.limit(None)
    interruption.begin_to_end()
    interruption.limit(5.0)
    assert timers == []


def test_a_limit_of_ages_is_as_long_as_a_timer_can_be(timers: list[Any]) -> None:
    interruption = Interruption()
    interruption.limit(1e12)
    assert timers[0].seconds == threading.TIMEOUT_MAX


def test_a_signal_that_comes_while_the_process_ends_changes_no_exit_code() -> None:
    """A second SIGTERM may come after the session is over: seen as -15 instead of 143."""
    program = """
import os, signal, time
from sweep.session.interruption import Interruption
interruption = Interruption()
interruption.watch()
interruption.begin_to_end()
interruption.leave()
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 143


def test_handlers_of_others_are_given_back() -> None:
    """A session may be a function's call within somebody's own program."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        interruption = Interruption()
        interruption.watch()
        interruption.leave()
        os.kill(os.getpid(), signal.SIGTERM)
        assert told == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_a_thread_signals_are_left_alone_and_an_end_comes_between_two_steps() -> None:
    """Python lets the main thread alone set handlers, and SIGUSR1 without one would end the program."""
    found: list[Any] = []

    def session() -> None:
        interruption = Interruption()
        interruption.watch()
        interruption.end_here()  # nobody has asked for an end
        interruption.stop(SessionEnd.TIME_LIMIT)
        with pytest.raises(KeyboardInterrupt):
            interruption.end_here()
        interruption.leave()
        found.append(interruption.how)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    thread = threading.Thread(target=session)
    thread.start()
    thread.join()
    assert found == [SessionEnd.TIME_LIMIT]
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_session_that_hears_signals_is_ended_by_them_alone(timers: list[Any]) -> None:
    interruption = Interruption()
    interruption.how = SessionEnd.SIGTERM
    interruption.end_here()


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGINT, SessionEnd.SIGINT), (signal.SIGTERM, SessionEnd.SIGTERM)],
)
def test_a_signal_that_a_library_swallowed_ends_the_session_all_the_same(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, how: SessionEnd
) -> None:
    monkeypatch.setattr("sweep.session.interruption.heard", lambda: None)
    interruption = Interruption()
    interruption.obey()
    assert interruption.how is None
    monkeypatch.setattr("sweep.session.interruption.heard", lambda: number)
    with pytest.raises(KeyboardInterrupt):
        interruption.obey()
    assert interruption.how is how
    limited = Interruption()
    limited.how = SessionEnd.TIME_LIMIT
    with pytest.raises(KeyboardInterrupt):
        limited.obey()
    assert limited.how is SessionEnd.TIME_LIMIT, "what ended it first stays the reason"
