"""Ctrl-C and SIGTERM of a command: told within a moment, and remembered where a library swallows them."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import start
from tests.support.project import ROOT
from trainable.show import signals

COMMAND = """
import sys, time, zlib
from trainable.show.signals import heard
from trainable.show.terminal import run_command

def app(arguments, **options):
    try:
        print("begun", flush=True)
        time.sleep(30)
    except BaseException:  # as a library's
        pass
    if arguments[0] == "asks":
        sys.exit(1 if heard() else 0)
    if arguments[0] == "busy":
        while True:
            zlib.compress(bytes(10**8))  # a moment in which Python's own handler has to wait
    sys.stdin.read()

run_command("command", app)
"""


def begin(how: str) -> "subprocess.Popen[str]":
    process = start(
        [sys.executable, "-c", COMMAND, how],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_was_swallowed_is_remembered_and_told(number: int, code: int) -> None:
    asks, goes_on = begin("asks"), begin("waits")
    for process in (asks, goes_on):
        process.send_signal(number)
    assert asks.stderr is not None and goes_on.stderr is not None and goes_on.stdin is not None
    assert goes_on.stderr.readline().startswith(signal.Signals(number).name + ": stopping")
    goes_on.stdin.close()
    assert (asks.wait(), goes_on.wait()) == (code, 0)
    assert asks.stderr.read() == signal.Signals(number).name + ": ended\n"


def test_a_second_ctrl_c_ends_what_does_not_end_by_itself() -> None:
    process = begin("busy")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "again to stop at once" in process.stderr.readline(), "while a library computes"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait() == 130
    assert time.monotonic() - began < 20


def test_outside_the_main_thread_which_alone_gets_signals_nothing_is_changed() -> None:
    """As where a program calls a command of ours in a thread."""
    before, threads = signal.getsignal(signal.SIGINT), set(threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(signals.listen, print).result()
    assert signal.getsignal(signal.SIGINT) is before
    assert signals.heard() is None
    assert set(threading.enumerate()) <= threads
