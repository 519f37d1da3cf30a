"""What the driver makes of failures that Tune reports: retries counted once, and none lost between two trials."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from sweep.on_ray.bookkeeper import Bookkeeper
from sweep.on_ray.searcher import RecordSearcher
from sweep.on_ray.workers import Unwritten, Writer
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import HeldRun
from sweep.request.prepare import prepare
from sweep.resources.allocation import Allocation
from sweep.session.interruption import Interruption
from sweep.session.sessions import open_session
from sweep.show.progress import Board, Terminal
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from tests.sweep.session.test_audit import row
from trainable.records.files import write_json
from trainable.records.manifest import SessionEnd
from trainable.records.paths import StaleSession
from trainable.records.rows import Status, StatusRecord
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.show.terminal import PlainConsole

pytestmark = pytest.mark.ray  # imports it


@pytest.fixture
def config(faces: Faces, tmp_path: Path, own_store: Path) -> SweepConfig:
    trial = {"strategy": "full", "epochs": 2}
    facts = sweep_facts(faces, tmp_path, trial, resources={"retries": 2})
    return check_config(facts, {}, "test")


@pytest.fixture
def two(faces: Faces, tmp_path: Path, own_store: Path) -> SweepConfig:
    """Two trials, of which one keeps its weights."""
    trial = {"strategy": "full", "epochs": 2, "lr": [1e-3, 1e-4]}
    return check_config(sweep_facts(faces, tmp_path, trial, keep={"best": 1}), {}, "test")


def drive(config: SweepConfig) -> tuple[RunFolder, RecordSearcher, Bookkeeper]:
    """The driver's parts around a new run."""
    run = create_run(config, prepare(config), [])
    open_session(run, session := 1)
    unwritten = Unwritten(run, session, config.resources.retries, config.guards.hung_after)
    interruption = Interruption()
    held = HeldRun(run, config, session)
    searcher = RecordSearcher(held, 1, unwritten, interruption)
    board = Board("run", config.metric, config.epochs, 1)
    terminal = Terminal(board, PlainConsole(file=io.StringIO()))
    keeper = Bookkeeper(held, terminal, interruption, searcher, Allocation(0.0, 1, 1), unwritten)
    return run, searcher, keeper


@pytest.fixture
def driver(config: SweepConfig) -> tuple[RunFolder, RecordSearcher, Bookkeeper]:
    return drive(config)


def tunes_trial(own: str) -> Any:
    """What the driver reads of Tune's trial."""
    return SimpleNamespace(
        config={"trial_id": own},
        num_failures=0,
        get_error=lambda: None,
        temporary_state=SimpleNamespace(ray_actor=None),
    )


def test_a_worker_that_died_between_two_trials_costs_one_retry_and_no_trial(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper],
) -> None:
    """Tune recovers the trial, takes the same death for another failure, and gives the trial up."""
    run, searcher, keeper = driver
    own = searcher.suggest("a")["trial_id"]
    trial = tunes_trial(own)
    for number, name in enumerate("abc"):
        keeper.on_trial_recover(iteration=10 + number, trials=[], trial=trial)
        searcher.on_trial_complete(name, error=True)
        keeper.on_trial_error(iteration=10 + number, trials=[], trial=trial)
        status = run.trial(own).status()
        if number < 2:
            assert (status.status, status.failures) == (Status.INTERRUPTED, number + 1)
            assert searcher.suggest("abcd"[number + 1]) == {"trial_id": own}
        else:
            assert (status.status, status.failures) == (Status.FAILED, 3)
            assert searcher.suggest("d") == Searcher.FINISHED
    assert searcher.is_complete


def test_retries_that_are_used_up_end_the_trial_with_its_log(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper],
) -> None:
    run, searcher, keeper = driver
    own = searcher.suggest("a")["trial_id"]
    trial = tunes_trial(own)
    for iteration in (1, 2):
        keeper.on_trial_recover(iteration=iteration, trials=[], trial=trial)
    assert searcher.suggest("b") is None, "it may have to be suggested again"
    searcher.on_trial_complete("a", error=True)
    keeper.on_trial_error(iteration=3, trials=[], trial=trial)
    status = run.trial(own).status()
    assert status.status is Status.FAILED and "its log" in status.reason
    assert searcher.suggest("b") == Searcher.FINISHED


def test_the_time_limit_counts_from_the_first_trial_that_tune_starts(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, searcher, keeper = driver
    begun: list[float | None] = []
    monkeypatch.setattr(keeper, "_interruption", SimpleNamespace(limit=begun.append))
    limited = keeper._config.search.model_copy(update={"time_limit": 600.0})
    monkeypatch.setattr(keeper, "_config", keeper._config.model_copy(update={"search": limited}))
    trial = tunes_trial(searcher.suggest("a")["trial_id"])
    assert begun == []
    keeper.on_trial_start(iteration=1, trials=[], trial=trial)
    assert begun == [600.0]


DONE = {"done": True, "status": "finished", "reason": ""}
BEING_WRITTEN = StatusRecord(Status.RUNNING, "its weights are being written", attempt=1)


def train(run: RunFolder, own: str, accuracy: float) -> TrialRecord:
    """What a worker has on record of a trial whose weights it still writes."""
    record = run.trial(own, 1)
    for epoch in (1, 2):
        record.append(row(epoch, accuracy))
    record.write_status(BEING_WRITTEN)
    return record


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the workers that write live; what Ray says of a real one is seen in test_workers."""
    said = [True]
    monkeypatch.setattr(Writer, "has_died", lambda self: not said[0])
    return said


def tune_ends(searcher: RecordSearcher, keeper: Bookkeeper, name: str, own: str) -> None:
    """In the order in which Tune calls them."""
    trial = tunes_trial(own)
    keeper.on_trial_result(iteration=1, trials=[], trial=trial, result=dict(DONE))
    searcher.on_trial_complete(name, dict(DONE))
    keeper.on_trial_complete(iteration=1, trials=[], trial=trial)


def begin_to_write(config: SweepConfig) -> tuple[RecordSearcher, Bookkeeper, TrialRecord]:
    """The driver's parts, and the record of their first trial, which Tune says is done and its worker still writes."""
    run, searcher, keeper = drive(config)
    record = train(run, searcher.suggest("a")["trial_id"], 0.9)
    tune_ends(searcher, keeper, "a", record.trial_id)
    return searcher, keeper, record


def test_the_next_trial_is_suggested_while_the_last_is_written_and_the_search_ends_after_it(
    two: SweepConfig, alive: list[bool]
) -> None:
    run, searcher, keeper = drive(two)
    first = searcher.suggest("a")["trial_id"]
    record = train(run, first, 0.9)
    tune_ends(searcher, keeper, "a", first)
    assert keeper._terminal.board.lines[first].status is Status.FINISHED, "shown at once"
    assert searcher._trials[first].status is Status.FINISHED, "and told to the search"
    second = searcher.suggest("b")["trial_id"]
    train(run, second, 0.8).end(Status.FINISHED)
    tune_ends(searcher, keeper, "b", second)
    assert searcher.suggest("c") is None and not searcher.is_complete
    record.end(Status.FINISHED)
    assert searcher.suggest("c") == Searcher.FINISHED
    assert searcher.is_complete


def test_weights_are_deleted_only_once_they_are_written(
    two: SweepConfig, alive: list[bool]
) -> None:
    """Those of a trial that is not among the best any more: what it writes later would stay for ever."""
    run, searcher, keeper = drive(two)
    weak = searcher.suggest("a")["trial_id"]
    record = train(run, weak, 0.6)
    tune_ends(searcher, keeper, "a", weak)
    strong = searcher.suggest("b")["trial_id"]
    train(run, strong, 0.9).end(Status.FINISHED)
    tune_ends(searcher, keeper, "b", strong)
    record.last.write_bytes(b"state")
    record.end(Status.FINISHED)
    searcher.suggest("c")
    keeper.on_experiment_end(trials=[])
    assert not record.last.exists()


def test_a_trial_whose_worker_died_while_it_wrote_is_tried_again_and_at_last_given_up(
    config: SweepConfig, alive: list[bool]
) -> None:
    run, searcher, keeper = drive(config)
    own = searcher.suggest("a")["trial_id"]
    record = train(run, own, 0.9)
    for failures, name in enumerate("abc", start=1):
        alive[0] = True
        record.write_status(replace(record.status(), status=Status.RUNNING))
        tune_ends(searcher, keeper, name, own)
        assert searcher.suggest("z") is None
        alive[0] = False
        suggested = searcher.suggest("bcd"[failures - 1])
        keeper.on_experiment_end(trials=[])
        status = record.status()
        assert status.failures == failures
        if failures <= config.resources.retries:
            assert suggested == {"trial_id": own}
            assert (status.status, status.reason) == (
                Status.INTERRUPTED,
                "its worker died while it wrote the weights",
            )
        else:
            assert suggested == Searcher.FINISHED
            assert status.status is Status.FAILED and "its log" in status.reason
    assert keeper._terminal.board.lines[own].status is Status.FAILED


def test_a_trial_that_its_worker_could_not_write_is_tried_again(
    config: SweepConfig, alive: list[bool]
) -> None:
    searcher, keeper, record = begin_to_write(config)
    own = record.trial_id
    record.write_status(StatusRecord(Status.INTERRUPTED, "could not be written", failures=1))
    assert searcher.suggest("b") == {"trial_id": own}
    keeper.on_experiment_end(trials=[])
    assert keeper._terminal.board.lines[own].status is Status.INTERRUPTED


def test_one_death_of_an_idle_worker_that_writes_is_one_failure(
    config: SweepConfig, alive: list[bool]
) -> None:
    """Tune keeps the worker for the next trial, does not know that it died, and gives it the same trial again."""
    searcher, keeper, record = begin_to_write(config)
    own = record.trial_id
    alive[0] = False
    assert searcher.suggest("b") == {"trial_id": own}
    trial = tunes_trial(own)
    keeper.on_trial_start(iteration=5, trials=[], trial=trial)
    keeper.on_trial_recover(iteration=6, trials=[], trial=trial)
    searcher.on_trial_complete("b", error=True)
    keeper.on_trial_error(iteration=6, trials=[], trial=trial)
    assert (record.status().status, record.status().failures) == (Status.INTERRUPTED, 1)
    assert searcher.suggest("c") == {"trial_id": own}
    record.write_status(replace(record.status(), status=Status.RUNNING, attempt=2))
    keeper.on_trial_recover(iteration=9, trials=[], trial=trial)
    assert record.status().failures == 2, "this one began"


def test_an_unwritten_trial_takes_no_other_trials_place_among_those_that_keep_weights(
    two: SweepConfig, alive: list[bool]
) -> None:
    """Its worker may die before there is anything to keep."""
    run, searcher, keeper = drive(two)
    fair = searcher.suggest("a")["trial_id"]
    kept = train(run, fair, 0.6)
    kept.last.write_bytes(b"state")
    kept.end(Status.FINISHED)
    tune_ends(searcher, keeper, "a", fair)
    good = searcher.suggest("b")["trial_id"]
    record = train(run, good, 0.9)
    tune_ends(searcher, keeper, "b", good)
    assert kept.last.exists()
    record.end(Status.FINISHED)
    searcher.suggest("c")
    keeper.on_experiment_end(trials=[])
    assert not kept.last.exists()


@pytest.mark.parametrize("was_written", [True, False])
def test_a_session_that_is_ended_while_a_trial_is_written_goes_by_the_record(
    config: SweepConfig, alive: list[bool], was_written: bool
) -> None:
    searcher, keeper, record = begin_to_write(config)
    own = record.trial_id
    assert searcher.suggest("b") is None
    keeper._interruption.how = SessionEnd.TIME_LIMIT
    assert searcher.suggest("b") == Searcher.FINISHED, "Tune listens to nothing else here"
    if was_written:  # Tune stops the worker, which waits for its writing
        record.end(Status.FINISHED)
    keeper.on_experiment_end(trials=[])
    shown = keeper._terminal.board.lines[own].status
    assert shown is (Status.FINISHED if was_written else Status.RUNNING)
    assert searcher.is_complete is was_written
    assert (own in keeper._holding) is was_written
    assert record.status().failures == 0


def test_a_driver_whose_run_was_taken_over_writes_nothing_at_its_end(
    two: SweepConfig, alive: list[bool]
) -> None:
    _, keeper, record = begin_to_write(two)
    record.end(Status.FINISHED)
    run = keeper._run.folder
    write_json(run.session, {"number": 2})
    keeper.on_experiment_end(trials=[])
    assert not run.bar.exists()
    write_json(run.session, {"number": 1})
    keeper.on_experiment_end(trials=[])
    assert run.bar.exists()


def test_a_record_whose_status_is_gone_is_not_given_away_while_its_worker_lives(
    config: SweepConfig, alive: list[bool]
) -> None:
    """As where the folder was renamed: two would write it."""
    searcher, _, record = begin_to_write(config)
    (record.folder / "status.json").unlink()
    assert searcher.suggest("b") is None


def test_a_trial_that_waits_for_its_workers_writing_is_not_taken_for_hung(
    two: SweepConfig, alive: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is watched by itself."""
    run, searcher, keeper = drive(two)
    asked: list[list[str]] = []
    monkeypatch.setattr(keeper._silence, "end", lambda busy: asked.append([own for own, _ in busy]))
    monkeypatch.setattr("sweep.on_ray.bookkeeper.cluster.nodes", list)
    monkeypatch.setattr("sweep.on_ray.bookkeeper.NOTE_SECONDS", 0.0)
    first = searcher.suggest("a")["trial_id"]
    record = train(run, first, 0.9)
    worker, trial = object(), tunes_trial(first)
    trial.temporary_state.ray_actor = worker
    keeper.on_trial_result(iteration=1, trials=[], trial=trial, result=dict(DONE))
    searcher.on_trial_complete("a", dict(DONE))
    keeper.on_trial_complete(iteration=1, trials=[], trial=trial)
    second = tunes_trial(searcher.suggest("b")["trial_id"])
    second.status, second.temporary_state.ray_actor = "RUNNING", worker
    keeper.on_step_end(iteration=2, trials=[second])
    record.end(Status.FINISHED)
    searcher.suggest("c")
    keeper.on_step_end(iteration=3, trials=[second])
    assert asked == [[], [second.config["trial_id"]]]


@pytest.mark.parametrize("lost", ["taken over", "gone"])
def test_a_driver_that_hears_no_signals_sees_by_itself_that_its_run_is_lost(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper],
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """In a thread that is not the main one."""
    run, _, keeper = driver
    monkeypatch.setattr("sweep.on_ray.bookkeeper.cluster.nodes", list)
    monkeypatch.setattr(keeper._interruption, "hears_signals", False)
    keeper.on_step_end(iteration=1, trials=[])
    monkeypatch.setattr(keeper, "_look_again", 0.0)
    if lost == "gone":
        run.path.rename(run.path.with_name("elsewhere"))
    else:
        write_json(run.session, {"number": 2})
    with pytest.raises(KeyboardInterrupt if lost == "gone" else StaleSession):
        keeper.on_step_end(iteration=2, trials=[])
    assert ("it is gone; put it back" in keeper._interruption.fault) == (lost == "gone")


def said(keeper: Bookkeeper) -> str:
    text: str = keeper._terminal.console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_trial_whose_graph_could_not_be_captured_goes_on_without_one_and_no_retry_is_counted(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper],
) -> None:
    run, searcher, keeper = driver
    own = searcher.suggest("a")["trial_id"]
    record, trial = run.trial(own), tunes_trial(own)
    record.write_status(replace(record.status(), eager="no memory for a capture"))
    keeper.on_trial_recover(iteration=1, trials=[], trial=trial)
    assert record.status().failures == 0
    assert f"trial {own} continues without a CUDA graph: no memory for a capture" in said(keeper)
    keeper.on_trial_recover(iteration=2, trials=[], trial=trial)
    assert record.status().failures == 1, "the second failure is another"


def test_that_features_are_no_longer_shared_is_said_once(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper],
) -> None:
    _, searcher, keeper = driver
    trial = tunes_trial(searcher.suggest("a")["trial_id"])
    for _ in range(2):
        keeper.on_trial_result(1, [], trial, {"remark": "the disk is full"})
    assert said(keeper).count("frozen features are no longer shared: the disk is full") == 1


def test_a_fault_of_the_run_folder_that_a_trial_meets_ends_the_session(
    driver: tuple[RunFolder, RecordSearcher, Bookkeeper],
) -> None:
    _, searcher, keeper = driver
    trial = tunes_trial(searcher.suggest("a")["trial_id"])
    fault = "the run folder must be writable, but its disk says: No space left on device"
    keeper._interruption.hears_signals = False
    keeper.on_trial_result(1, [], trial, {"fault": fault})
    assert (keeper._interruption.how, keeper._interruption.fault) == (SessionEnd.FAULT, fault)


def test_a_space_with_fewer_settings_than_were_asked_for_is_said_and_ends_the_search(
    faces: Faces, tmp_path: Path, own_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = {"strategy": "full", "epochs": 2, "lr": [1e-3, 1e-4]}
    search = {"method": "random", "trials": 5}
    facts = sweep_facts(faces, tmp_path, trial, search=search)
    run, searcher, _ = drive(check_config(facts, {}, "test"))
    for name in "ab":
        record = run.trial(searcher.suggest(name)["trial_id"])
        record.append(row(1, 0.7))
        record.write_status(replace(record.status(), status=Status.FINISHED))
        searcher.on_trial_complete(name)
    assert searcher.suggest("c") == Searcher.FINISHED
    assert len(run.trials()) == 2
    assert "has 2 distinct settings, but 5 were asked for" in caplog.text
