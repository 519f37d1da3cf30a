"""What a sweep cost: sums made by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.findings.cost import cost_of
from analysis.findings.runs import compare
from analysis.frames import results
from sweep.request.config import check_config
from sweep.request.prepare import prepare
from sweep.session.sessions import open_session
from sweep.show.status import read_status
from tests.support.bench import Bench
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from trainable.config import TrialConfig
from trainable.records.manifest import Granted, Session, read_manifest, write_manifest
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.show.wording import frozen_work_said

EPOCHS = 9


def row(epoch: int, value: float, seconds: float) -> Row:
    return Row(
        *(
            epoch,
            0.6,
            0.7,
            0.5,
            value,
            0.7,
            0.8,
            1e-4,
            seconds,
            16.0,
            0,
            "2026-01-01T00:00:00+00:00",
        ),
        frozen_seconds=1.0,
        frozen_multiply_adds=10,
        saved_multiply_adds=30,
    )


@pytest.fixture
def run(faces: Faces, tmp_path: Path, own_store: Path) -> RunFolder:
    """Six trials that finish at 0.80 to 0.85, in steps; no other."""
    trial = {"strategy": "full", "lr": {"loguniform": [1e-5, 1e-1]}, "epochs": EPOCHS}
    facts = sweep_facts(faces, tmp_path, trial, search={"method": "random", "trials": 20})
    config = check_config(facts, {}, "test")
    run = create_run(config, prepare(config), [])
    open_session(run, 1)
    for number in range(6):
        final = 0.80 + number / 100
        add(run, number, [final - 0.05] * 3 + [final] * 6, Status.FINISHED, 2.0)
    return run


def add(
    run: RunFolder, number: int, values: list[float], status: Status, seconds: float
) -> TrialRecord:
    record = TrialRecord.create(run, TrialConfig(lr=10 ** (-5 + number / 10)), number, 1)
    for epoch, value in enumerate(values, start=1):
        record.append(row(epoch, value, seconds))
    record.write_status(replace(record.status(), status=status))
    return record


def test_epochs_that_were_not_run_are_counted_at_the_trials_own_pace(run: RunFolder) -> None:
    add(run, 10, [0.5, 0.6, 0.6], Status.PRUNED, 4.0)
    add(run, 11, [0.4], Status.PRUNED, 3.0)
    found = cost_of(run.path)
    assert (found.trials, found.epochs) == (8, 6 * EPOCHS + 4)
    assert found.seconds == 6 * EPOCHS * 2.0 + 3 * 4.0 + 3.0
    assert (found.pruned_epochs, found.pruned_seconds) == (6 + 8, 6 * 4.0 + 8 * 3.0)
    assert found.saved_seconds == pytest.approx((6 * EPOCHS + 4) * 3.0)


def test_a_pruned_trial_that_an_audit_runs_to_its_end_saved_nothing(run: RunFolder) -> None:
    for number, epochs in ((10, 3), (11, 1)):
        stopped = add(run, number, [0.5] * epochs, Status.PRUNED, 3.0)
    TrialRecord.create(run, stopped.asked.settings, 12, 1, "audit")
    assert cost_of(run.path).pruned_epochs == EPOCHS - 3


def test_a_saving_is_the_same_figure_wherever_it_is_said(run: RunFolder) -> None:
    """Also of trials that found all frozen work done before, and so have no pace of their own."""
    for number in (10, 11):
        record = add(run, number, [], Status.FINISHED, 2.0)
        for epoch in range(1, EPOCHS + 1):
            warm = {"frozen_seconds": 0.0, "frozen_multiply_adds": 0, "saved_multiply_adds": 40}
            record.append(replace(row(epoch, 0.8, 2.0), **warm))  # type: ignore[arg-type]
    seconds = (6 * EPOCHS * 30 + 2 * EPOCHS * 40) / 10  # at 10 multiply-adds a second
    assert cost_of(run.path).saved_seconds == pytest.approx(seconds)
    assert results.work(run.path)["saved_seconds"] == pytest.approx(seconds)
    assert read_status(run.path)["frozen_work"]["saved_seconds"] == pytest.approx(seconds)
    frame = results.trials(run.path)
    assert frame["saved_seconds"].sum() == pytest.approx(seconds)
    assert frame["saved_seconds"].iloc[-1] == pytest.approx(EPOCHS * 4.0)
    assert compare([run.path])["saved_seconds"][0] == pytest.approx(seconds)


def test_the_command_warns_of_a_strategy_of_which_nobody_knows_the_end(run: RunFolder) -> None:
    add(run, 10, [0.5] * 3, Status.PRUNED, 3.0)
    for record in run.trials()[:6]:
        record.write_status(replace(record.status(), status=Status.FAILED))
    done = CliRunner().invoke(app, ["cost", str(run.path)])
    assert done.exit_code == 0
    assert done.output.endswith(
        "warning: no block5 trial that learned ran to the end, so it is not known how block5 would have ended: "
        "`sweep extend RUN --audit 1` runs pruned trials to the end to find out\n"
    )


def test_what_a_full_store_saved_is_a_sentence_without_a_figure(run: RunFolder) -> None:
    for record in run.trials():
        rows = [replace(each, frozen_multiply_adds=0, frozen_seconds=0.0) for each in record.rows()]
        lines = (json.dumps(each.to_json()) for each in rows)
        (record.folder / "epochs.jsonl").write_text("".join(f"{line}\n" for line in lines))
    found = cost_of(run.path)
    assert found.saved_seconds is None and found.to_json()["saved_seconds"] is None
    assert "were already in the store" in " ".join(found.said())
    assert results.trials(run.path)["saved_seconds"].isna().all()
    assert compare([run.path])["saved_seconds"].isna().all()
    assert "(all of it was in the store before)" in frozen_work_said(results.work(run.path))


def test_each_epoch_costs_what_its_session_gave_a_trial(run: RunFolder) -> None:
    """The second session gave four CPUs, and a third one, of an older version, did not say."""
    moments = (
        "2026-11-01T10:00:00+00:00",
        "2026-11-02T10:00:00+00:00",
        "2026-11-03T10:00:00+00:00",
    )
    shares = (2, 4, None)
    manifest = read_manifest(run)
    own = Granted(gpus_per_trial=0, cpus_per_trial=2, concurrent=1)
    manifest = manifest.model_copy(update={"sessions": (), "resources": own})
    for number, (moment, cpus) in enumerate(zip(moments, shares, strict=True), start=1):
        granted = cpus and own.model_copy(update={"cpus_per_trial": cpus})
        manifest = manifest.with_session(
            Session(number=number, started=moment, granted=granted, host="a", pid=1)
        )
    write_manifest(run, manifest)
    before = cost_of(run.path)
    assert before.device_seconds == 2 * before.seconds, "rows that don't say when are the first's"
    record = add(run, 10, [], Status.FINISHED, 0.0)
    for epoch, moment in enumerate(moments, start=1):
        late = moment.replace("10:00:00", "10:00:09")
        record.append(replace(row(epoch, 0.5, 100.0 * epoch), ended_at=late))
    found = cost_of(run.path)
    assert found.device_seconds - before.device_seconds == 100 * 2 + 200 * 4 + 300 * 2
    assert found.device_hours == found.device_seconds / 3600
    assert found.devices_per_trial == found.device_seconds / found.seconds


def test_what_a_fault_made_to_be_repeated_is_counted(bench: Bench) -> None:
    config = TrialConfig(strategy="head", head="linear", batch_size=8)
    record = bench.record(config.trial_id)
    rows, _ = bench.fit(config, record)
    record.last.unlink()
    bench.fit(config, record)
    (line,) = record.lost.read_text().splitlines()
    assert '"epochs": 3' in line
    assert str(sum(row.seconds for row in rows))[:6] in line
