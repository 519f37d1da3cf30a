"""Workers that die or hang while they write what a trial left; the trials are tried again."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from sweep.on_ray.workers import Unwritten
from tests.support.ray_sweeps import assert_as_calm, end, sweep, wait_for
from trainable.config import TrialConfig
from trainable.records.files import write_json
from trainable.records.rows import Outcome, Status, StatusRecord
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray

    ray.shutdown()  # a test before may have begun to use one
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture
def record(tmp_path: Path) -> TrialRecord:
    """Of a trial whose weights are being written."""
    run = RunFolder(tmp_path)
    write_json(run.session, {"number": 1})
    record = TrialRecord.create(run, TrialConfig(), 0, 1)
    record.write_status(StatusRecord(Status.RUNNING, "its weights are being written"))
    return record


def a_worker(ray: Any) -> Any:
    class Worker:
        def train(self, seconds: float) -> int:
            time.sleep(seconds)
            return os.getpid()

    return ray.remote(num_cpus=0)(Worker).remote()


def settled(unwritten: Unwritten, seconds: float = 60) -> list[str]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := unwritten.look():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing was settled")


@pytest.mark.parametrize("is_training", [False, True])
def test_a_worker_that_dies_while_it_writes_is_seen_whether_or_not_it_trains_another_trial(
    ray: Any, record: TrialRecord, is_training: bool
) -> None:
    worker = a_worker(ray)
    pid = ray.get(worker.train.remote(0.0))
    unwritten = Unwritten(RunFolder(record.folder.parent.parent), 1, 2, None)
    unwritten.add(record.trial_id, worker, Outcome(Status.FINISHED))
    if is_training:
        worker.train.remote(600.0)
    assert [unwritten.look() for _ in range(3)] == [[], [], []]
    assert unwritten.outcome(record.trial_id) == Outcome(Status.FINISHED)
    os.kill(pid, signal.SIGKILL)
    assert settled(unwritten) == [record.trial_id]
    status = record.status()
    assert (status.status, status.failures) == (Status.INTERRUPTED, 1)
    assert not len(unwritten) and unwritten.outcome(record.trial_id) is None


def test_a_worker_that_ended_orderly_after_it_had_written_is_no_death(
    ray: Any, record: TrialRecord
) -> None:
    worker = a_worker(ray)
    unwritten = Unwritten(RunFolder(record.folder.parent.parent), 1, 2, None)
    unwritten.add(record.trial_id, worker, Outcome(Status.FINISHED))
    record.end(Status.FINISHED)
    ray.kill(worker)
    assert settled(unwritten) == [record.trial_id]
    assert (record.status().status, record.status().failures) == (Status.FINISHED, 0)


def test_a_worker_that_hangs_while_it_writes_is_ended(
    ray: Any, record: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.on_ray.workers.NOTE_SECONDS", 0.1)
    worker = a_worker(ray)
    pid = ray.get(worker.train.remote(0.0))
    unwritten = Unwritten(RunFolder(record.folder.parent.parent), 1, 2, hung_after=1.0)
    unwritten.add(record.trial_id, worker, Outcome(Status.FINISHED))
    os.kill(pid, signal.SIGSTOP)
    aside = record.folder / ".last.pt.1.tmp"
    until = time.monotonic() + 2.0
    while time.monotonic() < until:  # as long as the file grows, it lives
        aside.write_bytes(os.urandom(8))
        assert unwritten.look() == []
        time.sleep(0.1)
    assert settled(unwritten) == [record.trial_id]
    assert "no sign of life for 1.0 s" in record.status().reason
    assert "its worker is ended" in record.log.read_text()


def test_a_worker_that_can_not_be_reached_for_a_while_is_not_dead(
    ray: Any, record: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still write: given to another, the record would have two writers."""
    worker = a_worker(ray)
    ray.get(worker.train.remote(0.0))
    unwritten = Unwritten(RunFolder(record.folder.parent.parent), 1, 2, None)
    unwritten.add(record.trial_id, worker, Outcome(Status.FINISHED))

    def unavailable(answer: Any) -> None:
        raise ActorUnavailableError("the connection was reset", worker._ray_actor_id.binary())

    with monkeypatch.context() as patch:
        patch.setattr("sweep.on_ray.workers.ray.get", unavailable)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert unwritten.look() == []
    record.end(Status.FINISHED)
    assert unwritten.look() == [record.trial_id]


@pytest.mark.slow
def test_a_sweep_whose_workers_die_while_they_write_ends_as_a_calm_one(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    """A large head, so that there is something to write; each trial's worker is killed once in the middle of it."""
    config = configure(
        {"strategy": "head", "lr": [1e-4, 2e-4, 3e-4], "head": 8192, "epochs": 2},
        resources={"concurrent": 1, "cpus_per_trial": 1, "retries": 5},
        keep={"best": 3},
        sharing="off",
    )
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path)
    killed: set[str] = set()

    def writing() -> TrialRecord | None:
        """Beside the next trial, while there is one: by then Tune has heard that its training is over."""
        records = run.trials()
        for record in records:
            status = record.status()
            if status.reason == "its weights are being written" and record.trial_id not in killed:
                others = [other for other in records if other is not record]
                begun = any(other.status().status is Status.RUNNING for other in others)
                return record if begun or len(killed) == 2 else None
        return None

    for _ in range(3):
        record = wait_for(writing, process)
        os.kill(record.status().pid, signal.SIGKILL)
        killed.add(record.trial_id)
    code, out, err = end(process)
    assert code == 0, out + err
    assert "will be retried: its worker died while it wrote the weights" in out
    failures = [record.status().failures for record in run.trials()]
    assert len(killed) == 3 and sum(failures) >= 3, "the next trial's too, where it had begun"
    assert_as_calm(run, trials=3)
    for record in run.trials():
        assert record.load_last() is not None
