"""Runs and changes as commands make them, without a session that tries them on nodes."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sweep.request.config import SweepConfig
from sweep.request.open_run import Run
from sweep.request.prepare import Prepared
from sweep.session.beginning import Change, asked_for
from sweep.session.create import give_name, partial_run
from trainable.records.run_folder import RunFolder


def create_run(config: SweepConfig, prepared: Prepared, command: Sequence[str]) -> RunFolder:
    """A run folder of which no session has begun."""
    with partial_run(config, prepared, command) as run:
        return give_name(run, run.manifest)


def put_back(made: Path, run: RunFolder) -> RunFolder:
    """The run as it was made, at its own place: a copy of `made` instead of what another test made of it."""
    shutil.rmtree(run.path, ignore_errors=True)
    shutil.copytree(made, run.path)
    return run


def put_on_record(change: Change) -> list[str]:
    """What it means, in lines."""
    change.write(change.run.manifest)
    return list(change.lines)


def change_config(run: Run, config: SweepConfig, command: Sequence[str]) -> None:
    """Let `config` be what the run is asked for."""
    put_on_record(Change(asked_for(run, config, command)))
