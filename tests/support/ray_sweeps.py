"""The sweep command in a process of its own, and what its trials must come to."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sweep.request.open_run import open_run
from sweep.search.ranking import best_row
from tests.support.bench import exhaust, results
from tests.support.processes import start
from trainable.data import open_training_data
from trainable.fit import fit
from trainable.metric import Metric
from trainable.network.model import load_backbone
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

GOOD = 3e-3
"""A learning rate that learns."""


def sweep(*arguments: object, tmp: Path, address: str = "local") -> subprocess.Popen[str]:
    """The command, started in a process of its own."""
    return start(
        [sys.executable, "-m", "sweep", *map(str, arguments), "--address", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SWEEP_STORE": str(tmp / "store")},
    )


def end(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command did not end:\n{out}\n{err}") from None
    return process.returncode, out, err


def wait_for(
    condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 300
) -> Any:
    """What `condition` gives once it is true, while the command runs; on a busy machine, Ray's workers are nice."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        if process.poll() is not None:
            raise AssertionError(f"the command ended early: {process.communicate()}")
        time.sleep(0.02)
    raise AssertionError("what was waited for did not come")


def running(run: RunFolder, epochs: int) -> TrialRecord | None:
    """A trial that runs and has at least so many epochs on record."""
    for record in run.trials():
        if record.status().status is Status.RUNNING and len(record.rows()) >= epochs:
            return record
    return None


def calm(
    run: RunFolder, record: TrialRecord
) -> tuple[list[tuple[float, ...]], dict[str, torch.Tensor]]:
    """Result rows and best weights of the same trial, trained here in one go without Ray or records."""
    settings = open_run(run.path).settings
    assert settings is not None
    data = open_training_data(run.split, settings.images, settings.image_size)
    backbone = load_backbone(settings.weights, settings.width)
    own = TrialRecord(run.path.parent / "calm" / "trials" / record.trial_id)
    own.folder.mkdir(parents=True)
    rows, _ = exhaust(fit(record.asked.settings, settings, data, backbone, own))
    best = best_row(rows, Metric.VAL_ACCURACY)
    assert best is not None
    return results(rows), own.load_best(best).weights


def assert_as_calm(run: RunFolder, trials: int) -> None:
    """Every trial finished with the rows that a training in one go gives."""
    assert len(run.trials()) == trials
    for record in run.trials():
        assert record.status().status is Status.FINISHED, record.status()
        rows, _ = calm(run, record)
        assert results(record.rows()) == rows
