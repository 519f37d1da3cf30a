"""More is asked of a run: what follows for its configuration, its trials and its rungs, from the records alone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweep.request.config import AshaConfig, SweepConfig, check_config, load_config
from sweep.request.open_run import HeldRun, open_held_run, open_run
from sweep.request.prepare import prepare
from sweep.search.asha import Rungs
from sweep.search.proposals import Proposals, nothing_left
from sweep.search.study import build_study, recorded
from sweep.session.extend import Request, extend, extended
from sweep.session.rungs import catch_up, decisions, relearn, take
from sweep.session.sessions import open_session
from tests.support.analysis_runs import copy_of
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import change_config, create_run, put_back, put_on_record
from tests.support.manifests import edit_manifest
from trainable.errors import RequestError
from trainable.records.files import write_json
from trainable.records.manifest import read_manifest
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

pytestmark = pytest.mark.usefixtures("own_store")
Text = Callable[[pytest.ExceptionInfo[Exception]], str]
EPOCHS = 3


def moment_of(seconds: int) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat()


def row(epoch: int, value: float, ended_at: str = "") -> Row:
    return Row(epoch, 0.6, 0.7, 0.5, value, 0.7, 0.8, 1e-4, 1.5, 16.0, 0, ended_at)


@pytest.fixture(scope="module")
def config(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """A grid of four."""
    storage = tmp_path_factory.mktemp("extend") / "runs"
    trial = {"strategy": ["head", "block5"], "lr": [1e-4, 1e-3], "epochs": EPOCHS}
    return check_config(sweep_facts(faces, storage, trial), {}, "test")


@pytest.fixture(scope="module")
def made(config: SweepConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished: every point of the grid has its epochs on record."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_STORE", str(folder / "store"))
        run = create_run(config, prepare(config), ["sweep", "run", "sweep.yaml"])
    open_session(run, session := 1)
    trials = Proposals(config)
    while (proposed := trials.next([recorded(r, config.metric) for r in run.trials()])) is not None:
        number, settings = proposed
        record = TrialRecord.create(run, settings, number, session)
        for epoch in range(1, EPOCHS + 1):
            record.append(row(epoch, 0.5 + 0.1 * number))
        finish(record)
    assert nothing_left(run, config)
    return copy_of(run.path, folder / "run")


@pytest.fixture
def run(config: SweepConfig, made: Path) -> RunFolder:
    """As `made`, the test's own."""
    return put_back(made, RunFolder(config.folder))


def finish(record: TrialRecord, status: Status = Status.FINISHED) -> None:
    record.write_status(replace(record.status(), status=status))


def ask(run: RunFolder, **asked: object) -> list[str]:
    return put_on_record(extend(run, Request(**asked), ["sweep", "extend"]))  # type: ignore[arg-type]


def space(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return path


# ---------------------------------------------------------------- what is asked


def test_more_epochs_let_finished_trials_go_on_and_no_others(
    run: RunFolder, config: SweepConfig
) -> None:
    first, second, *_ = run.trials()
    finish(first, Status.PRUNED)
    second.last.write_bytes(b"a state")
    (said,) = ask(run, epochs=5)
    assert "3 → 5 epochs" in said
    assert "of 3 finished trials 1 continue from their kept state, 2 start again" in said
    longer = open_run(run.path).config
    assert longer.epochs == 5
    assert not nothing_left(run, longer)
    over = [recorded(record, longer.metric).is_over(5) for record in run.trials()]
    assert over == [True, False, False, False]
    assert [r.trial_id for r in run.trials()] == [
        longer.space.settings(longer.space.place(r.asked.settings) or {}).trial_id
        for r in run.trials()
    ], "a trial's identity does not depend on the epochs"
    for record in run.trials()[1:]:
        for epoch in (4, 5):
            record.append(row(epoch, 0.5))
    assert nothing_left(run, longer)


def test_a_wider_grid_has_new_points_alone_to_try(run: RunFolder, tmp_path: Path) -> None:
    said = ask(run, space=space(tmp_path, "trial: {lr: [1e-5, 1e-4, 1e-3]}"))
    assert said == ["4 → 6 settings"]
    wider = open_run(run.path).config
    assert wider.trials == wider.asked_for(r.trial_id for r in run.trials()) == 6
    proposed = []
    trials = [recorded(r, wider.metric) for r in run.trials()]
    while (following := Proposals(wider).next(trials)) is not None:
        proposed.append(following)
        record = TrialRecord.create(run, following[1], following[0], 1)
        trials.append(recorded(record, wider.metric))
    assert [number for number, _ in proposed] == [4, 5]
    assert {(s.lr, s.strategy) for _, s in proposed} == {(1e-5, "head"), (1e-5, "block5")}


def test_trials_outside_a_new_space_stay_on_record_and_out_of_the_study(
    run: RunFolder, tmp_path: Path
) -> None:
    said = ask(run, space=space(tmp_path, "trial: {lr: [1e-2, 1e-3], strategy: head}"))
    assert any("3 of 4 trials are outside the new space" in line for line in said)
    other = open_run(run.path).config
    trials = [recorded(r, other.metric) for r in run.trials()]
    study, outside = build_study(other.space, other.metric, trials)
    assert (len(study.trials), outside) == (1, 3)
    assert len(run.trials()) == 4
    assert other.asked_for(t.trial_id for t in trials) == 5
    following = Proposals(other).next(trials)
    assert following is not None
    assert (following[0], following[1].strategy, following[1].lr) == (4, "head", 1e-2)


def test_what_a_space_file_leaves_out_stays_as_it_is(config: SweepConfig, tmp_path: Path) -> None:
    """Also the schedule, which was spread over the old number of epochs: finished trials keep their identity."""
    wider = extended(
        config, Request(epochs=6, space=space(tmp_path, "trial: {batch_size: [8, 16]}"))
    )
    assert wider.trial["schedule_epochs"] == EPOCHS
    assert wider.trial | {"batch_size": 32, "epochs": EPOCHS} == config.trial
    assert wider.trial["batch_size"] == [8, 16]


@pytest.mark.parametrize(("given", "total"), [("+2", 12), ("12", 12), (" +1", 11)])
def test_trials_are_counted_in_all_or_on_top(config: SweepConfig, given: str, total: int) -> None:
    search = config.search.model_copy(update={"method": "random", "trials": 10})
    sampled = config.model_copy(update={"search": search})
    assert extended(sampled, Request(trials=given)).trials == total


def test_failed_trials_are_tried_again_with_all_their_retries(run: RunFolder) -> None:
    record = run.trials()[2]
    record.write_status(replace(record.status(), status=Status.FAILED, reason="died", failures=2))
    assert ask(run, retry_failed=True) == ["1 failed trials will be retried"]
    status = record.status()
    assert (status.status, status.failures, status.reason) == (Status.PENDING, 0, "")
    assert not nothing_left(run, open_run(run.path).config)


def test_every_request_is_in_the_manifest_with_the_configuration_it_made(
    run: RunFolder, config: SweepConfig, tmp_path: Path
) -> None:
    ask(run, epochs=4)
    ask(run, epochs=5, space=space(tmp_path, "trial: {lr: [1e-5, 1e-4, 1e-3]}"))
    entries = read_manifest(run).configurations
    assert [entry.command for entry in entries] == [
        ("sweep", "run", "sweep.yaml"),
        ("sweep", "extend"),
        ("sweep", "extend"),
    ]
    (tmp_path / "first.yaml").write_text(entries[0].text)
    assert load_config(tmp_path / "first.yaml") == config
    assert run.config.read_text() == entries[-1].text


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "--trials +12"),
        ({"epochs": 2}, "--epochs must be at least the 3"),
        (
            {"trials": "many"},
            "--trials must be +12 for twelve more or 36 for 36 in total, but it is 'many'",
        ),
        ({"trials": "-1"}, "--trials must be more than the 4"),
        ({"trials": "+0"}, "--trials must be more than the 4"),
        ({"trials": "3"}, "--trials must be more than the 4"),
        ({"trials": "+2"}, "widen the space with --space"),
        ({"retry_failed": True}, "--retry-failed needs a failed trial"),
    ],
    ids=str,
)
def test_what_can_not_be_had_is_refused_in_one_line_and_changes_nothing(
    run: RunFolder, refused: Text, asked: dict[str, object], said: str
) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RequestError) as caught:
        ask(run, **asked)
    assert said in refused(caught)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trial: {lr: [1e-5], epochs: 7}", "changed by --epochs"),
        ("trial: {lrr: [1e-5]}", "lrr"),
        ("trial: {lr: {loguniform: [1e-5, 1e-3]}}", "grid needs lists"),
        ("trial: {head: pretrained}", "head: pretrained needs VGG's own classifier"),
        ("data: {target: Male}", "a single section `trial`"),
        ("trial: 3", "a single section `trial`"),
        ("", "must hold keys"),
        ("trial: [", "must be YAML"),
    ],
)
def test_a_space_that_can_not_be_is_refused_by_name(
    run: RunFolder, refused: Text, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(RequestError) as caught:
        ask(run, space=space(tmp_path, text))
    assert said in refused(caught)
    assert len(read_manifest(run).configurations) == 1


def test_a_configuration_changed_by_hand_is_refused(
    run: RunFolder, config: SweepConfig, refused: Text
) -> None:
    run.config.write_text(run.config.read_text().replace("epochs: 3", "epochs: 30"))
    with pytest.raises(RequestError) as caught:
        open_run(run.path)
    assert "sweep extend" in refused(caught)
    run.config.unlink()
    assert open_run(run.path).config == config, "the manifest has its text"
    assert not run.config.exists(), "who only reads writes nothing"
    assert open_held_run(run).config == config
    assert load_config(run.config) == config


def test_an_extension_that_was_killed_between_its_two_files_is_completed(
    run: RunFolder, config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = extended(config, Request(epochs=5))

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sweep.session.beginning.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            change_config(open_run(run.path), longer, ["sweep", "extend"])
    assert load_config(run.config).epochs == EPOCHS
    assert open_run(run.path).config == longer
    assert load_config(run.config).epochs == EPOCHS
    assert open_held_run(run).config == longer
    assert load_config(run.config) == longer


# ---------------------------------------------------------------- damaged records


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "{", "must hold JSON"),
        ("config.json", "{}", "is missing"),
        ("config.json", '{"settings": {"lr": -1}, "number": 0, "origin": "search"}', "lr"),
        ("config.json", '{"settings": {}, "number": "a", "origin": "search"}', "number"),
        ("config.json", '{"settings": {"lr": 0.5}, "number": 1, "origin": "search"}', "those of"),
        ("status.json", "", "must hold JSON"),
        ("status.json", '{"status": "resting"}', "resting"),
        ("status.json", '{"status": "finished", "mood": 1}', "mood"),
        ("status.json", '{"status": "finished", "attempt": "much"}', "attempt is 'much'"),
        ("status.json", '{"status": "finished", "ended": "yesterday"}', "ended is 'yesterday'"),
        ("epochs.jsonl", '{"epoch": 1}\n', "is missing"),
        ("epochs.jsonl", "[]\n", "JSON object"),
        ("epochs.jsonl", "half a l\n{}\n", "line 1"),
    ],
)
def test_a_damaged_record_is_refused_with_its_name_and_a_remedy(
    run: RunFolder, config: SweepConfig, refused: Text, file: str, content: str, said: str
) -> None:
    path = run.trials()[1].folder / file
    path.write_text(content)
    with pytest.raises(RequestError) as caught:
        nothing_left(run, config)
    text = refused(caught)
    assert str(path) in text and said in text and "; " in text


def test_rows_that_are_no_whole_sequence_are_refused(run: RunFolder, refused: Text) -> None:
    record = run.trials()[0]
    path = record.folder / "epochs.jsonl"
    first, second, third = path.read_text().splitlines(keepends=True)
    for wrong in (first + third, second, first + first + second):
        path.write_text(wrong)
        with pytest.raises(RequestError) as caught:
            record.rows()
        assert "is from epoch" in refused(caught)
    broken = json.loads(second) | {"val_loss": None}
    path.write_text(first + json.dumps(broken) + "\n")
    with pytest.raises(RequestError, match="val_loss is None"):
        record.rows()


def test_a_trial_without_a_status_counts_as_interrupted(
    run: RunFolder, config: SweepConfig
) -> None:
    record = run.trials()[0]
    (record.folder / "status.json").unlink()
    assert record.status().status is Status.INTERRUPTED
    assert not nothing_left(run, config)


@pytest.mark.parametrize("key", ["configurations", "digests", "image_folder"])
def test_a_manifest_without_what_it_must_hold_is_refused(
    run: RunFolder, refused: Text, key: str
) -> None:
    edit_manifest(run, lambda facts: facts.pop(key))
    with pytest.raises(RequestError) as caught:
        open_run(run.path)
    said = refused(caught)
    assert f"{key}: Field required" in said and said.endswith("put the old one back")


# ---------------------------------------------------------------- decisions that nobody has taken yet


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[float]], list[int], int]:
    """Curves of up to six trials, whose turn it is at each moment, and when the driver dies."""
    curves = draw(
        st.lists(
            st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), min_size=9, max_size=9),
            min_size=2,
            max_size=6,
        )
    )
    turns = draw(st.permutations([who for who in range(len(curves)) for _ in range(9)]))
    return curves, list(turns), draw(st.integers(1, len(turns)))


def drive(
    run: RunFolder,
    config: SweepConfig,
    rungs: Rungs,
    curves: Sequence[Sequence[float]],
    turns: Sequence[int],
) -> None:
    """Let trials report in turn, as their driver hears of them; one that has ended is passed over."""
    records = run.trials()
    for moment, who in enumerate(turns):
        record = records[who]
        if record.status().status.has_ended:
            continue
        epoch = len(record.rows()) + 1
        record.append(row(epoch, curves[who][epoch - 1], moment_of(moment)))
        judge(run, config, rungs, record)
        if epoch == config.epochs:
            finish(record)


def judge(run: RunFolder, config: SweepConfig, rungs: Rungs, record: TrialRecord) -> None:
    trial = recorded(record, config.metric)
    epoch = len(trial.values)
    if epoch < config.epochs:
        decision = rungs.decide(trial.trial_id, epoch, config.metric.score(trial.values[-1]))
        if decision is not None:
            take(decision, rungs, HeldRun(run, config, 1))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.sampled_from(["all", "strategy"]))
def test_a_driver_that_dies_before_it_decides_leaves_the_same_rungs(
    config: SweepConfig,
    tmp_path_factory: pytest.TempPathFactory,
    history: tuple[list[list[float]], list[int], int],
    rungs_of: Literal["all", "strategy"],
) -> None:
    """It dies after a row and before its decision; the next one takes it before anything else happens."""
    curves, turns, death = history
    short = config.model_copy(
        update={"trial": config.trial | {"epochs": 9}, "asha": AshaConfig(rungs_of=rungs_of)}
    )
    outcomes = []
    for dies in (False, True):
        run = RunFolder(tmp_path_factory.mktemp("run"))
        write_json(run.session, {"number": 1})
        for number in range(len(curves)):
            lr = 10.0 ** -(number + 1)
            strategy = ("head", "block5")[number % 2]
            settings_ = short.space.settings({"strategy": strategy, "lr": 1e-3}).model_copy(
                update={"lr": lr}
            )
            TrialRecord.create(run, settings_, number, 1)
        rungs = relearn(short, run)
        assert rungs is not None
        drive(run, short, rungs, curves, turns[: death - 1])
        if dies:
            record = run.trials()[turns[death - 1]]
            if not record.status().status.has_ended:
                epoch = len(record.rows()) + 1
                value = curves[turns[death - 1]][epoch - 1]
                record.append(row(epoch, value, moment_of(death - 1)))
                if epoch == short.epochs:
                    finish(record)
            rungs = relearn(short, run)
            assert rungs is not None
            catch_up(rungs, HeldRun(run, short, 1))
        else:
            drive(run, short, rungs, curves, turns[death - 1 : death])
        drive(run, short, rungs, curves, turns[death:])
        outcomes.append(
            (
                [(d.trial_id, d.rung, d.score, d.cutoff, d.verdict) for d in decisions(run)],
                [(r.trial_id, r.status().status, len(r.rows())) for r in run.trials()],
            )
        )
    assert outcomes[0] == outcomes[1]


def test_more_epochs_bring_a_rung_at_the_old_end_which_judges_those_that_finished_there(
    config: SweepConfig, run: RunFolder
) -> None:
    """Three epochs had a rung at 1; nine have one at 3 too, where the finished trials stand already."""
    short = relearn(config, run)
    assert short is not None and list(short.recorded) == [1]
    longer = extended(config, Request(epochs=9))
    rungs = relearn(longer, run)
    assert rungs is not None and list(rungs.recorded) == [1, 3]
    catch_up(rungs, HeldRun(run, longer, 1))
    judged = [(d.trial_id, d.rung) for d in decisions(run)]
    numbers = {record.trial_id: record.asked.number for record in run.trials()}
    assert [(numbers[trial], rung) for trial, rung in judged] == [
        (number, rung) for number in range(4) for rung in (1, 3)
    ]
    best = max(run.trials(), key=lambda record: record.rows()[-1].val_accuracy)
    assert best.status().status is Status.FINISHED
    again = len(decisions(run))
    catch_up(rungs, HeldRun(run, longer, 1))
    assert len(decisions(run)) == again
