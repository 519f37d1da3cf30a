"""The time limit of a session: it begins with the first trial, counts once, and ends the session as Ctrl-C does."""

import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.interruption import Interruption


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
        assert interruption.how == "time limit"
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
