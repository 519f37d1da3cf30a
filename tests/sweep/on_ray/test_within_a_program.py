"""`sweep.run` within somebody's program, in a thread that is not the main one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainable.records.manifest import SessionEnd, read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

HOST = """
import json, os, signal, sys, threading, time
from pathlib import Path

import sweep
from sweep.request.config import load_config

told, codes = [], []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
before = {number: signal.getsignal(number) for number in signal.valid_signals()}


def run(config):
    codes.append(sweep.run(config))


def in_a_thread(overrides, until):
    config = load_config(Path(sys.argv[1]), overrides)
    thread = threading.Thread(target=run, args=(config,))
    thread.start()
    while thread.is_alive() and not any(config.folder.glob(until)):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)  # heard by this program, and by nothing of the sweep
    thread.join()


in_a_thread([], until="trials/*/epochs.jsonl")
in_a_thread(["name=limited", "trial.epochs=100000", "search.time_limit=2s"], until="sessions/1.json")
same = before == {number: signal.getsignal(number) for number in signal.valid_signals()}
print(json.dumps({"told": told, "codes": codes, "same": same}))
"""


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_sweep_in_a_thread_leaves_signals_and_arguments_to_its_program(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    """It ends when it is complete, and at its time limit; the manifest has the call, not the program's arguments."""
    config = configure({"lr": 1e-3, "epochs": 3}, sharing="off")
    ended = subprocess.run(
        [sys.executable, "-c", HOST, str(config), "--password=an-unmistakable-word"],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "SWEEP_STORE": str(tmp_path / "store")},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts == {"told": [15, 15], "codes": [0, 130], "same": True}, ended.stderr
    assert "***" not in ended.stderr, "Ray's own handler did not answer"
    for name, how, status in (
        ("run", SessionEnd.FINISHED, Status.FINISHED),
        ("limited", SessionEnd.TIME_LIMIT, Status.INTERRUPTED),
    ):
        run = RunFolder(tmp_path / name)
        manifest = read_manifest(run)
        assert [session.how for session in manifest.sessions] == [how]
        assert [record.status().status for record in run.trials()] == [status]
        (asked,) = manifest.configurations
        assert asked.command == ("sweep.run(config)",) and asked.said == "sweep.run(config)"
        assert b"unmistakable" not in run.manifest.read_bytes()
