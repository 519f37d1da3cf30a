"""`asha.rungs_of: strategy`: a trial is compared with those of its own strategy, from the records to the report."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import plots
from analysis.frames import results
from analysis.pages.report import render
from sweep.on_ray.scheduler import RungScheduler
from sweep.request.config import AshaConfig, SweepConfig, check_config
from sweep.request.open_run import HeldRun, open_run
from sweep.request.prepare import prepare
from sweep.session.rungs import catch_up, decisions, relearn
from sweep.session.sessions import open_session
from sweep.show.check import check_run
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from tests.support.manifests import ask_instead
from tests.sweep.session.test_extend import row
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

VALUES = {"head": [0.80, 0.79, 0.81], "block5": [0.60, 0.62, 0.61]}
"""After the first epoch: the slower strategy's best is behind the other one's worst."""
RATES = [1e-4, 1e-3, 1e-2]


def config_of(faces: Faces, storage: Path, asha: dict[str, object]) -> SweepConfig:
    trial = {"strategy": list(VALUES), "lr": RATES, "epochs": 3}
    facts = sweep_facts(faces, storage, trial)
    return check_config(facts | {"asha": {"reduction_factor": 2} | asha}, {}, "test")


@pytest.fixture
def config(faces: Faces, tmp_path: Path, own_store: Path) -> SweepConfig:
    return config_of(faces, tmp_path / "runs", {"rungs_of": "strategy"})


@pytest.fixture
def run(config: SweepConfig) -> RunFolder:
    """Six trials, by turns of each strategy; none has an epoch yet."""
    run = create_run(config, prepare(config), [])
    open_session(run, 1)
    for number in range(6):
        strategy = list(VALUES)[number % 2]
        settings = config.space.settings({"strategy": strategy, "lr": RATES[number // 2]})
        TrialRecord.create(run, settings, number, 1)
    return run


def first_epochs(run: RunFolder) -> list[tuple[TrialRecord, float]]:
    return [
        (record, VALUES[record.asked.settings.strategy][record.asked.number // 2])
        for record in run.trials()
    ]


def moment(number: int) -> str:
    return f"2026-11-30T00:00:{number:02d}+00:00"


def report_to(scheduler: RungScheduler, record: TrialRecord, value: float) -> str:
    """What Ray is told after the trial's first epoch."""
    record.append(row(1, value, moment(record.asked.number)))
    result = {"collapsed": False, "epoch": 1, "best_value": value}
    trial = SimpleNamespace(config={"trial_id": record.trial_id})
    return scheduler.on_trial_result(None, trial, result)


EXPECTED = ["go on", "go on", "stop", "go on", "go on", "go on"]
"""0.80 and 0.60 are first; 0.79 is below its median, 0.62 above; 0.81 above; 0.61 at the median of its two."""


def test_a_slow_strategy_s_best_goes_on_whatever_the_others_reached(
    run: RunFolder, config: SweepConfig
) -> None:
    scheduler = RungScheduler(relearn(config, run), HeldRun(run, config, 1))
    told = [report_to(scheduler, record, value) for record, value in first_epochs(run)]
    taken = decisions(run)
    assert [one.verdict for one in taken] == EXPECTED
    assert [answer == "STOP" for answer in told] == [said == "stop" for said in EXPECTED]
    assert [one.cutoff for one in taken] == [None, None, 0.80, 0.60, 0.795, 0.61]
    assert [one.sequence for one in taken] == [1, 2, 3, 4, 5, 6]
    third = run.trials()[2].status()
    assert third.status is Status.PRUNED
    assert third.reason.endswith("at epoch 1, where its strategy's rung asked for 0.8000")


@pytest.mark.parametrize("before", range(7))
def test_another_driver_takes_the_decisions_that_the_first_one_would_have_taken(
    run: RunFolder, config: SweepConfig, before: int
) -> None:
    """The first dies with so many decisions taken, and rows of all trials on record."""
    scheduler = RungScheduler(relearn(config, run), HeldRun(run, config, 1))
    for number, (record, value) in enumerate(first_epochs(run)):
        if number < before:
            report_to(scheduler, record, value)
        else:
            record.append(row(1, value, moment(number)))
    rungs = relearn(config, run)
    assert rungs is not None
    catch_up(rungs, HeldRun(run, config, 1))
    assert [one.verdict for one in decisions(run)] == EXPECTED
    assert rungs == relearn(config, run)


def test_a_decision_on_a_trial_whose_folder_is_gone_is_compared_with_none(
    run: RunFolder, config: SweepConfig
) -> None:
    """Its strategy is not known any more; the search makes it anew, and then it counts again."""
    scheduler = RungScheduler(relearn(config, run), HeldRun(run, config, 1))
    records = first_epochs(run)
    report_to(scheduler, *records[0])
    records[0][0].folder.rename(away := run.path / "away")
    rungs = relearn(config, run)
    assert rungs is not None
    trial_id = records[2][0].trial_id
    alone = rungs.decide(trial_id, 1, 0.1)
    away.rename(records[0][0].folder)
    beside = rungs.decide(trial_id, 1, 0.1)
    assert alone is not None and alone.cutoff is None
    assert beside is not None and beside.cutoff == 0.80


def test_frames_plot_and_report_say_whose_rung_it_was_and_check_finds_no_fault(
    run: RunFolder, config: SweepConfig
) -> None:
    scheduler = RungScheduler(relearn(config, run), HeldRun(run, config, 1))
    for record, value in first_epochs(run):
        report_to(scheduler, record, value)
    found = results.decisions(run.path)
    assert found["rung_of"].tolist() == ["head", "block5"] * 3
    figure = plots.rungs(found, results.trials(run.path), config.metric, ["strategy"], None)
    assert figure.layout.xaxis.ticktext == ("1<br>head", "1<br>block5")
    assert "ASHA after epochs 1, 2, reduction factor 2, separately for each strategy" in render(
        run.path
    )
    assert [fault for fault in check_run(run.path).faults if "rungs" in fault] == []


def test_a_configuration_on_record_without_the_key_means_all_trials(
    faces: Faces, tmp_path: Path, own_store: Path
) -> None:
    config = config_of(faces, tmp_path / "runs", {})
    run = create_run(config, prepare(config), [])
    line = "  rungs_of: all\n"
    text = run.config.read_text()
    assert line in text
    run.config.write_text(text.replace(line, ""))
    ask_instead(run, run.config.read_text())
    assert open_run(run.path).config.asha == AshaConfig(reduction_factor=2, rungs_of="all")


def test_with_one_strategy_a_warning_says_that_it_changes_nothing(
    config: SweepConfig, faces: Faces, tmp_path: Path
) -> None:
    assert not any("rungs_of" in said for said in prepare(config).warnings)
    trial = config.trial | {"strategy": "head"}
    one = check_config(config.model_dump(mode="json") | {"trial": trial}, {}, "test")
    assert (
        "asha.rungs_of: strategy changes nothing: every trial has the strategy head"
        in prepare(one).warnings
    )
