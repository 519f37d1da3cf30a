"""What a sweep cost: sums made by hand, and a chance that simulation knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.cost import FEWEST_FINISHED, chance_to_beat, cost_of
from sweep.config import check_config
from sweep.prepare import prepare
from sweep.run_folder import open_session
from tests.conftest import Bench, Faces, sweep_facts
from tests.made_runs import create_run
from trainable.config import TrialConfig
from trainable.manifest import Granted, Session, read_manifest, write_manifest
from trainable.record import RunFolder, TrialRecord
from trainable.rows import Row, Status

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
    for number in range(FEWEST_FINISHED + 1):
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
    assert found.shared_seconds == pytest.approx((6 * EPOCHS + 4) * 3.0)
    assert [(rung.epoch, rung.stopped, rung.finished) for rung in found.rungs] == [
        (1, 1, 6),
        (3, 1, 6),
    ]
    assert found.rungs[1].rank_correlation == pytest.approx(1)
    assert found.chance == pytest.approx(0, abs=1e-6)
    assert not any("much" in sentence for sentence in found.said())


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


def test_a_pruned_trial_that_was_nearly_as_good_is_a_warning(run: RunFolder) -> None:
    draw = np.random.default_rng(0)
    for number in range(20, 26):
        add(run, number, [0.7] * 3 + [0.7 + draw.uniform(0, 0.15)] * 6, Status.FINISHED, 2.0)
    add(run, 40, [0.79] * 3, Status.PRUNED, 2.0)
    found = cost_of(run.path)
    assert found.chance is not None and found.chance > 0.1
    assert any("grace_period" in sentence for sentence in found.said())


def test_too_few_finished_trials_tell_nothing(run: RunFolder) -> None:
    for record in run.trials()[:2]:
        record.write_status(replace(record.status(), status=Status.INTERRUPTED))
    add(run, 40, [0.5], Status.PRUNED, 2.0)
    found = cost_of(run.path)
    assert found.chance is None
    assert any("can't be told" in sentence for sentence in found.said())


def test_the_chance_is_that_of_simulated_ends() -> None:
    """Ends are a line of the rung's value with noise: how often does a stopped trial really win?"""
    draw = np.random.default_rng(1)
    estimated, real = [], []
    for _ in range(3_000):
        then = draw.normal(0.7, 0.05, 30)
        finally_ = 0.1 + then + draw.normal(0, 0.03, 30)
        stopped = draw.normal(0.72, 0.02, 3)
        best = finally_.mean() + 0.06
        estimated.append(chance_to_beat(best, stopped, then, finally_))
        real.append((0.1 + stopped + draw.normal(0, 0.03, 3)).max() > best)
    assert np.mean(estimated) == pytest.approx(np.mean(real), rel=0.25)


def test_what_a_fault_made_to_be_repeated_is_counted(bench: Bench) -> None:
    config = TrialConfig(strategy="head", head="linear", batch_size=8)
    record = bench.record(config.trial_id)
    rows, _ = bench.fit(config, record)
    record.last.unlink()
    bench.fit(config, record)
    (line,) = record.lost.read_text().splitlines()
    assert '"epochs": 3' in line
    assert str(sum(row.seconds for row in rows))[:6] in line
