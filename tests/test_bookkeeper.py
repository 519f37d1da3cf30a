"""What the driver makes of failures that Tune reports: retries counted once, and none lost between two trials."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from sweep.bookkeeper import Bookkeeper
from sweep.config import SweepConfig, check_config
from sweep.interruption import Interruption
from sweep.manifest import create_run, open_session
from sweep.prepare import prepare
from sweep.progress import Board, Terminal
from sweep.searcher import RecordSearcher
from sweep.shares import Share
from tests.conftest import Faces, sweep_facts
from trainable.command import PlainConsole
from trainable.record import RunFolder
from trainable.rows import Status

pytestmark = pytest.mark.ray  # imports it


@pytest.fixture
def config(faces: Faces, tmp_path: Path, own_store: Path) -> SweepConfig:
    facts = sweep_facts(faces, tmp_path, {"strategy": "full"}, resources={"retries": 2})
    return check_config(facts, {}, "test")


@pytest.fixture
def driver(config: SweepConfig) -> tuple[RunFolder, RecordSearcher, Bookkeeper]:
    run = create_run(config, prepare(config), [])
    open_session(run, session := 1)
    searcher = RecordSearcher(config, run, session, 1)
    board = Board("run", config.metric, config.epochs, 1)
    terminal = Terminal(board, PlainConsole(file=io.StringIO()))
    keeper = Bookkeeper(run, config, session, terminal, Interruption(), searcher, Share(0.0, 1, 1))
    return run, searcher, keeper


def tunes_trial(own: str) -> Any:
    """What the driver reads of Tune's trial."""
    return SimpleNamespace(config={"trial_id": own}, num_failures=0, get_error=lambda: None)


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
