"""The rungs as Tune's scheduler, told of one epoch after another without a cluster: what it answers and leaves."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from sweep.on_ray.scheduler import RungScheduler
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import HeldRun
from sweep.search.asha import Decision
from sweep.session.rungs import catch_up, decisions, relearn, settle, strategies, take
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.records.files import append_json, write_json
from trainable.records.paths import StaleSession
from trainable.records.rows import Origin, Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def config_of(asha: object = None, **sections: Any) -> SweepConfig:
    """Nine epochs, so rungs after 1 and 3 at a factor of 3; after 1, 2, 4 and 8 at one of 2."""
    facts: dict[str, Any] = {
        "name": "x",
        "data": {"images": Path("faces"), "target": "Smiling"},
        "trial": {"strategy": ["head", "block5"], "lr": [1e-4, 1e-3], "epochs": 9},
        "search": {"method": "grid"},
        "asha": asha or {"reduction_factor": 2},
    }
    return check_config(facts | sections, {}, "test")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    write_json(folder.session, {"number": 1})
    return folder


def new(
    run: RunFolder, number: int, strategy: str = "head", origin: Origin = "search"
) -> TrialRecord:
    """A trial that runs."""
    settings = TrialConfig(strategy=strategy, lr=10.0 ** -(number + 1))
    record = TrialRecord.create(run, settings, number, 1, origin)
    end(record, Status.RUNNING)
    return record


def end(record: TrialRecord, status: Status) -> None:
    record.write_status(replace(record.status(), status=status))


def row(epoch: int, value: float, second: int = 0) -> Row:
    """`value` is its accuracy and its loss."""
    at = f"2026-11-30T00:00:{second:02d}+00:00"
    return Row(epoch, 0.6, 0.7, value, value, 0.7, 0.8, 1e-4, 1.5, 16.0, 0, at)


class Told:
    """A scheduler, and what it answers."""

    def __init__(self, run: RunFolder, config: SweepConfig) -> None:
        self.run = run
        self.scheduler = RungScheduler(relearn(config, run), HeldRun(run, config, 1))

    def of(self, record: TrialRecord, value: float, **facts: object) -> str:
        """The answer to the end of a first epoch with this best value, or to these `facts`."""
        result = {"collapsed": False, "epoch": 1, "best_value": value} | facts
        return self.scheduler.on_trial_result(None, as_tune_has(record), result)

    def ended(self, record: TrialRecord, status: Status) -> None:
        self.scheduler.on_trial_complete(None, as_tune_has(record), {"status": status})


def as_tune_has(record: TrialRecord) -> SimpleNamespace:
    return SimpleNamespace(config={"trial_id": record.trial_id})


def taken(run: RunFolder) -> list[tuple[str, int, float | None, str]]:
    """Decisions on record: whose (by its letter: a for number 0), rung, cutoff, verdict."""
    letters = {record.trial_id: "abcdefghi"[record.asked.number] for record in run.trials()}
    return [(letters[d.trial_id], d.rung, d.cutoff, d.verdict) for d in decisions(run)]


# ---------------------------------------------------------------- one epoch after another


def test_a_trial_below_the_median_of_those_before_it_is_stopped_and_says_why(
    run: RunFolder,
) -> None:
    told = Told(run, config_of())
    a, b, c = (new(run, number) for number in range(3))
    assert [told.of(a, 0.8), told.of(b, 0.6), told.of(c, 0.7)] == [GO_ON, STOP, GO_ON]
    assert taken(run) == [
        ("a", 1, None, "go on"),
        ("b", 1, 0.8, "stop"),
        ("c", 1, pytest.approx(0.7), "go on"),
    ]
    assert [one.sequence for one in decisions(run)] == [1, 2, 3]
    assert [r.status().status for r in (a, b, c)] == ["running", "pruned", "running"]
    assert b.status().reason == (
        "best val_accuracy 0.6000 at epoch 1, where the rung asked for 0.8000"
    )


def test_a_loss_is_better_where_it_is_lower_and_is_said_as_it_is(run: RunFolder) -> None:
    told = Told(run, config_of(metric="val_loss"))
    a, b = new(run, 0), new(run, 1)
    assert [told.of(a, 0.5), told.of(b, 0.9)] == [GO_ON, STOP]
    assert b.status().reason == "best val_loss 0.9000 at epoch 1, where the rung asked for 0.5000"


def test_a_trial_is_compared_with_those_of_its_own_strategy_where_that_is_asked_for(
    run: RunFolder,
) -> None:
    told = Told(run, config_of({"reduction_factor": 2, "rungs_of": "strategy"}))
    a, b, c = new(run, 0), new(run, 1, "block5"), new(run, 2, "block5")
    assert [told.of(a, 0.8), told.of(b, 0.6), told.of(c, 0.5)] == [GO_ON, GO_ON, STOP]
    assert c.status().reason.endswith("where its strategy's rung asked for 0.6000")


@pytest.mark.parametrize(
    "facts",
    [
        {"collapsed": True},
        {"collapsed": True, "epoch": 2},
        {"epoch": 3},
        {"epoch": 9},
    ],
    ids=["collapsed", "collapsed later", "between rungs", "the last epoch"],
)
def test_epochs_of_which_nothing_is_decided(run: RunFolder, facts: dict[str, object]) -> None:
    told = Told(run, config_of())
    a, b = new(run, 0), new(run, 1)
    assert told.of(a, 0.9, **facts) == GO_ON
    assert decisions(run) == []
    assert told.of(b, 0.1) == GO_ON, "it is the first at the rung"


def test_what_is_no_epoch_is_not_compared(run: RunFolder) -> None:
    """A fault has neither value nor epoch."""
    told = Told(run, config_of())
    answer = told.scheduler.on_trial_result(None, as_tune_has(new(run, 0)), {"fault": "it died"})
    assert answer == GO_ON and decisions(run) == []


@pytest.mark.parametrize("origin", ["replicate", "audit"])
def test_a_trial_that_is_no_part_of_the_search_goes_on_and_is_compared_with_none(
    run: RunFolder, origin: Origin
) -> None:
    told = Told(run, config_of())
    a, b, c = new(run, 0), new(run, 1, origin=origin), new(run, 2)
    assert [told.of(a, 0.5), told.of(b, 0.1), told.of(b, 0.9, epoch=2), told.of(c, 0.5)] == [
        GO_ON
    ] * 4
    assert taken(run) == [("a", 1, None, "go on"), ("c", 1, 0.5, "go on")]


def test_with_asha_off_every_trial_goes_on(run: RunFolder) -> None:
    told = Told(run, config_of("off"))
    a, b = new(run, 0), new(run, 1)
    assert [told.of(a, 0.9), told.of(b, 0.1)] == [GO_ON, GO_ON]
    told.ended(a, Status.DIVERGED)
    assert decisions(run) == []


@pytest.mark.parametrize("status", Status)
def test_only_who_diverged_or_collapsed_leaves_the_rungs(run: RunFolder, status: Status) -> None:
    """So is it after a restart, from the statuses on record."""
    told = Told(run, config_of())
    a, b, c = (new(run, number) for number in range(3))
    told.of(a, 0.9)
    told.ended(a, status)
    end(a, status)
    expected = GO_ON if status in ("diverged", "collapsed") else STOP
    assert told.of(b, 0.5) == expected
    assert Told(run, config_of()).of(c, 0.4) == STOP
    assert taken(run)[-1][2] == pytest.approx(0.5 if expected == GO_ON else 0.7)


def test_a_decision_is_taken_once_whoever_is_told_of_the_epoch_again(run: RunFolder) -> None:
    told = Told(run, config_of())
    a, b = new(run, 0), new(run, 1)
    told.of(a, 0.9)
    told.of(b, 0.95)
    assert told.of(a, 0.1) == Told(run, config_of()).of(a, 0.1) == GO_ON
    assert len(decisions(run)) == 2


def test_the_first_that_waits_is_run_by_number_and_not_by_spelling() -> None:
    def trial(number: int, status: str = Trial.PENDING) -> Trial:
        made = Trial("trial", stub=True, experiment_tag=f"{number}_lr=0.5,seed=1")
        made.status = status
        return made

    waiting, scheduler = trial(9), RungScheduler(None, HeldRun(RunFolder(Path()), config_of(), 1))
    live = [trial(12), trial(8, Trial.RUNNING), trial(7, Trial.PAUSED), waiting, trial(10)]
    controller = SimpleNamespace(get_live_trials=lambda: live)
    assert scheduler.choose_trial_to_run(controller) is waiting
    live[:] = [trial(8, Trial.RUNNING)]
    assert scheduler.choose_trial_to_run(controller) is None


# ---------------------------------------------------------------- a driver that died


def curves(run: RunFolder, *curves: Sequence[tuple[int, float]]) -> list[TrialRecord]:
    """Trials with epochs on record: the second at which each ended, and its value."""
    records = []
    for number, curve in enumerate(curves):
        records.append(record := new(run, number))
        for epoch, (second, value) in enumerate(curve, start=1):
            record.append(row(epoch, value, second))
    return records


CURVES = (
    [(1, 0.5), (4, 0.6), (7, 0.7)],
    [(2, 0.8), (5, 0.9), (6, 0.2)],
    [(3, 0.4), (8, 0.9), (9, 0.95)],
    [(10, 0.65)],
)
"""Of a, b, c and d."""
EXPECTED = [
    ("a", 1, None, "go on"),
    ("b", 1, 0.5, "go on"),
    (
        "c",
        1,
        pytest.approx(0.7),
        "stop",
    ),  # 0.4, where two thirds of the way from 0.5 to 0.8 is asked
    ("b", 3, None, "go on"),  # best 0.9 after three epochs, which ended before a's
    ("a", 3, 0.9, "stop"),
    ("d", 1, pytest.approx(0.6), "go on"),  # of 0.4, 0.5, 0.8: a third of the way from 0.5 to 0.8
]


def test_decisions_that_nobody_has_taken_are_taken_in_the_order_in_which_epochs_ended(
    run: RunFolder,
) -> None:
    config = config_of({"reduction_factor": 3})
    a, b, c, d = curves(run, *CURVES)
    for left_out in (
        new(run, 4, origin="replicate"),
        new(run, 5, origin="audit"),
        pruned := new(run, 6),
        failed := new(run, 7),
    ):
        left_out.append(row(1, 0.99))
    end(pruned, Status.PRUNED)
    end(failed, Status.FAILED)
    rungs = relearn(config, run)
    assert rungs is not None
    catch_up(rungs, HeldRun(run, config, 1))
    assert taken(run) == EXPECTED
    assert [r.status().status for r in (a, b, c, d)] == ["pruned", "running", "pruned", "running"]
    assert rungs == relearn(config, run)
    catch_up(rungs, HeldRun(run, config, 1))
    assert taken(run) == EXPECTED, "once"


def test_losses_are_caught_up_with_as_losses(run: RunFolder) -> None:
    config = config_of(metric="val_loss")
    curves(run, [(1, 0.5)], [(2, 0.9)], [(3, 0.4)])
    rungs = relearn(config, run)
    assert rungs is not None
    catch_up(rungs, HeldRun(run, config, 1))
    assert [(who, verdict) for who, _, _, verdict in taken(run)] == [
        ("a", "go on"),
        ("b", "stop"),
        ("c", "go on"),
    ]


@pytest.mark.parametrize("before", range(len(EXPECTED)))
def test_what_a_driver_that_died_has_decided_stands(run: RunFolder, before: int) -> None:
    config = config_of({"reduction_factor": 3})
    curves(run, *CURVES)
    rungs = relearn(config, run)
    assert rungs is not None
    catch_up(rungs, HeldRun(run, config, 1))
    lines = run.rungs.read_text().splitlines(keepends=True)
    run.rungs.write_text("".join(lines[:before]))
    for record in run.trials():
        end(record, Status.RUNNING)
    settle(HeldRun(run, config, 1))
    again = relearn(config, run)
    assert again is not None
    catch_up(again, HeldRun(run, config, 1))
    assert taken(run) == EXPECTED and again == rungs


@pytest.mark.parametrize("status", Status)
def test_whom_a_decision_on_record_stopped_is_marked_as_pruned_unless_it_has_ended(
    run: RunFolder, status: Status
) -> None:
    a, b, c = (new(run, number) for number in range(3))
    for sequence, (record, score, verdict) in enumerate(
        ((a, 0.8, "go on"), (b, 0.6, "stop"), (c, 0.9, "go on")), start=1
    ):
        decision = Decision(sequence, record.trial_id, 1, score, 0.8, verdict)  # type: ignore[arg-type]
        append_json(run.rungs, decision.to_json())
        end(record, status)
    settle(HeldRun(run, config_of(), 1))
    waits = status in ("pending", "running", "interrupted")
    assert b.status().status == ("pruned" if waits else status)
    assert bool(b.status().reason) == waits
    assert a.status().status == c.status().status == status


def test_a_driver_that_was_succeeded_decides_nothing(run: RunFolder) -> None:
    told, config = Told(run, config_of()), config_of()
    a = new(run, 0)
    write_json(run.session, {"number": 2})
    with pytest.raises(StaleSession):
        told.of(a, 0.5)
    rungs = relearn(config, run)
    decision = Decision(1, a.trial_id, 1, 0.5, 0.6, "stop")
    assert rungs is not None
    with pytest.raises(StaleSession):
        take(decision, rungs, HeldRun(run, config, 1))
    assert decisions(run) == [] and rungs == relearn(config, run)
    assert a.status().status is Status.RUNNING


def test_a_line_that_is_no_decision_is_refused_with_the_remedy(run: RunFolder) -> None:
    run.rungs.write_text(json.dumps({"sequence": 1, "trial_id": "a"}) + "\n")
    with pytest.raises(RequestError, match=r"rungs\.jsonl must be .* 'rung' is missing; put the"):
        decisions(run)


def test_a_trials_strategy_is_known_once_it_is_on_record(run: RunFolder) -> None:
    strategy_of = strategies(run)
    settings = TrialConfig(strategy="block4")
    assert strategy_of(settings.trial_id) == ""
    record = TrialRecord.create(run, settings, 0, 1)
    assert strategy_of(settings.trial_id) == "block4"
    (record.folder / "config.json").unlink()
    assert strategy_of(settings.trial_id) == "block4", "it is read once"
