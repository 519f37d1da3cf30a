"""sweep status: how a run stands, from its files alone."""

import json
import os

import pytest
from typer.testing import CliRunner

from sweep.__main__ import app
from sweep.request.config import SweepConfig
from sweep.request.prepare import prepare
from sweep.search.proposals import nothing_left
from sweep.session.hold import only_driver
from sweep.session.sessions import close_session, open_session
from sweep.show.status import read_status
from tests.support.made_runs import create_run
from trainable.records.files import now
from trainable.records.manifest import SessionEnd
from trainable.records.rows import Row, Status, StatusRecord
from trainable.records.trial_folder import TrialRecord

GPU = {
    "device": "NVIDIA H200",
    "capability": [9, 0],
    "memory_bytes": 143 * 10**9,
    "torch": "2.11",
    "cuda": "13.0",
    "cudnn": 91000,
    "driver": "580.1",
}
pytestmark = pytest.mark.usefixtures("own_store")


def test_status_tells_how_a_run_stands_from_its_files_alone(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    assert "not begun" in read_status(run.path)["state"]
    assert read_status(run.path)["in_a_word"] == "not begun"
    with only_driver(run) as session:
        open_session(run, session)
        assert f"in process {os.getpid()} on" in read_status(run.path)["state"]
        assert read_status(run.path)["in_a_word"] == "running"
    assert "exited without recording why" in read_status(run.path)["state"]
    for number, point in enumerate(config.space.points()):
        settings = config.space.settings(point)
        record = TrialRecord.create(run, settings, number, session)
        for epoch in range(1, config.epochs + 1):
            record.append(Row(epoch, 0.6, 0.7, 0.5, 0.75, 0.7, 0.8, 1e-4, 1.5, 16.0, 0, now()))
        record.write_status(StatusRecord(Status.FINISHED))
    close_session(run, session, SessionEnd.SIGTERM)
    facts = read_status(run.path)
    assert "ended by SIGTERM" in facts["state"] and "sweep resume" in facts["state"]
    assert facts["counts"] == {"finished": 2}
    assert nothing_left(run, config)
    printed = CliRunner().invoke(app, ["status", str(run.path), "--json"])
    assert json.loads(printed.stdout)["counts"] == {"finished": 2}
    readable = CliRunner().invoke(app, ["status", str(run.path)])
    assert readable.exit_code == 0 and "finished" in readable.stdout


def test_status_names_each_kind_of_device_once_with_its_hosts(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    for number, host in enumerate(("a", "b", "a"), start=1):
        open_session(run, number, [GPU | {"hosts": [host]}])
    printed = CliRunner().invoke(app, ["status", str(run.path)]).stdout
    assert (
        "a, b: NVIDIA H200, compute capability 9.0, 143 GB, driver 580.1, CUDA 13.0, cuDNN 91000, torch 2.11"
        in printed
    )


def test_status_goes_by_the_hold_and_not_by_a_process_number(config: SweepConfig) -> None:
    """Of a driver that died; of one whose process can't be seen from here, by its last sign of life."""
    run = create_run(config, prepare(config), [])
    with only_driver(run) as session:
        open_session(run, session)
        named = json.loads(run.holder(session).read_text())
    run.ended(session).unlink()
    run.holder(session).write_text(json.dumps(named | {"start_ticks": 1}))
    assert "exited without recording why; `sweep resume" in read_status(run.path)["state"]
    run.holder(session).write_text(json.dumps(named | {"namespaces": "another container's"}))
    state = read_status(run.path)["state"]
    assert "held since" in state and "last sign of life 0" in state
    os.utime(run.holder(session), (1e9, 1e9))
    assert "if there is none for 60 s more" in read_status(run.path)["state"]
