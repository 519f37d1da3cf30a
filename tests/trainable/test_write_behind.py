"""What a trial leaves is written while the next one trains, is the same as if it had not been, and is never lost."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainable.trial as trial_module
import trainable.write_behind as behind_module
from tests.support.actors import make_actor, own_record
from tests.support.bench import Bench, results
from trainable.config import TrialConfig
from trainable.hardware.memory import free_bytes
from trainable.records.files import write_json
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.trial import FaceTrial
from trainable.write_behind import Behind

pytestmark = pytest.mark.ray  # imports it
SETTINGS = [TrialConfig(strategy="head", head="linear", batch_size=8, lr=lr) for lr in (1e-4, 1e-3)]


@pytest.fixture
def actor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> FaceTrial:
    """With two trials on record."""
    return make_actor(bench, monkeypatch, *SETTINGS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """States are written once it is set."""
    opened, real = threading.Event(), TrialRecord.save_last

    def held(record: TrialRecord, *arguments: Any) -> None:
        assert opened.wait(60)
        real(record, *arguments)

    monkeypatch.setattr(TrialRecord, "save_last", held)
    monkeypatch.setattr("trainable.fit.WRITING_SHARE", 1e9)  # none before the end
    yield opened
    opened.set()


def to_the_end(actor: FaceTrial) -> dict[str, Any]:
    """Step as Tune does; the last result."""
    while "epoch" in (result := actor.step()):
        pass
    return result


def go_on(actor: FaceTrial, settings: TrialConfig) -> None:
    """Give the actor another trial, as Tune does."""
    actor.reset_config({**actor.config, "trial_id": settings.trial_id})


def test_the_next_trial_trains_while_the_last_one_is_written_and_both_are_as_calm_ones(
    actor: FaceTrial, bench: Bench, gate: threading.Event
) -> None:
    first = own_record(actor)
    assert to_the_end(actor) == {"done": True, "status": "finished", "reason": ""}
    status = first.status()
    assert (status.status, status.reason) == (Status.RUNNING, "its weights are being written")
    go_on(actor, SETTINGS[1])
    second = own_record(actor)
    assert actor.step()["epoch"] == 1
    assert (len(second.rows()), first.status().status) == (1, Status.RUNNING)
    gate.set()
    to_the_end(actor)
    actor.cleanup()
    for record, settings in zip((first, second), SETTINGS, strict=True):
        assert (record.status().status, record.status().reason) == (Status.FINISHED, "")
        calm = bench.record(f"calm-{record.trial_id}")
        rows, _ = bench.fit(settings, calm)
        assert results(record.rows()) == results(rows)
        epoch = calm.load_last()["best_epoch"]  # type: ignore[index]
        assert record.weights_digest(epoch) == calm.weights_digest(epoch)
        own, theirs = record.load_last(), calm.load_last()
        assert own is not None and theirs is not None
        for name, values in theirs["trained"].items():
            assert own["trained"][name].equal(values)
        assert record.log.read_text().count("weights and state written in") == 1


def test_a_trial_ended_when_its_training_did(
    actor: FaceTrial, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, moment = own_record(actor), "2026-01-01T00:00:00+00:00"
    monkeypatch.setattr(trial_module, "now", lambda: moment)
    to_the_end(actor)
    monkeypatch.undo()
    gate.set()
    actor.cleanup()
    assert first.status().ended == moment


def test_one_state_at_most_waits_to_be_written(actor: FaceTrial, gate: threading.Event) -> None:
    """The end of the next trial, which has a state of its own to write, waits for it."""
    first = own_record(actor)
    to_the_end(actor)
    go_on(actor, SETTINGS[1])
    for _ in range(3):
        actor.step()
    ending = threading.Thread(target=actor.step)
    ending.start()
    ending.join(0.5)
    assert ending.is_alive() and first.status().status is Status.RUNNING
    gate.set()
    ending.join(60)
    assert first.status().status is Status.FINISHED
    actor.cleanup()
    assert own_record(actor).status().status is Status.FINISHED


def test_where_memory_is_short_all_is_written_before_tune_hears_of_the_end(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind_module, "free_bytes", lambda: 0)
    to_the_end(actor)
    assert own_record(actor).status().status is Status.FINISHED
    assert own_record(actor).last.exists()


def test_room_is_asked_for_all_workers_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come to an end at once."""
    monkeypatch.setattr(behind_module, "free_bytes", lambda: 1000)
    assert [Behind(workers).has_room(100) for workers in (1, 5, 6)] == [True, True, False]


def test_a_collapsed_trial_is_on_record_before_tune_hears_of_it(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the rungs with its end, and a retry would be compared there anew."""
    monkeypatch.setattr("trainable.fit.is_collapsed", lambda *arguments: True)
    actor._run = actor._run.model_copy(update={"collapse_epochs": 1})
    assert to_the_end(actor)["status"] == "collapsed"
    assert own_record(actor).status().status is Status.COLLAPSED
    assert own_record(actor).last.exists()


def failing(error: BaseException) -> Callable[..., None]:
    def raising(*arguments: Any) -> None:
        raise error

    return raising


def test_a_full_disk_behind_a_trial_ends_the_session_with_the_next_step_and_is_no_failure(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(TrialRecord, "save_last", failing(full))
    monkeypatch.setattr("trainable.fit.WRITING_SHARE", 1e9)
    first = own_record(actor)
    to_the_end(actor)
    actor._behind.wait()
    go_on(actor, SETTINGS[1])
    assert "No space left on device" in actor.step()["fault"]
    status = first.status()
    assert (status.status, status.failures) == (Status.INTERRUPTED, 0)
    assert "No space left on device" in status.reason


def test_another_error_is_a_failure_of_the_trial_that_is_written_and_not_of_the_next(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TrialRecord.save_last
    monkeypatch.setattr(TrialRecord, "save_last", failing(ValueError("a shape")))
    monkeypatch.setattr("trainable.fit.WRITING_SHARE", 1e9)
    first = own_record(actor)
    to_the_end(actor)
    actor._behind.wait()
    monkeypatch.setattr(TrialRecord, "save_last", real)
    go_on(actor, SETTINGS[1])
    to_the_end(actor)
    actor.cleanup()
    assert own_record(actor).status().status is Status.FINISHED
    status = first.status()
    assert (status.status, status.failures) == (Status.INTERRUPTED, 1)
    assert status.reason == "its weights could not be written: ValueError('a shape')"
    assert "a shape" in first.log.read_text()


def test_where_not_even_the_status_can_be_written_the_worker_ends(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the driver would wait for ever for a record that nobody writes."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(TrialRecord, "save_last", failing(OSError(errno.ESTALE, "Stale")))
    monkeypatch.setattr(trial_module, "fault_of_run", failing(OSError(errno.ESTALE, "Stale")))
    monkeypatch.setattr("trainable.fit.WRITING_SHARE", 1e9)
    to_the_end(actor)
    actor._behind.wait()
    assert ended == [1]


def test_a_run_that_was_taken_over_meanwhile_is_left_alone(
    actor: FaceTrial, gate: threading.Event
) -> None:
    first = own_record(actor)
    to_the_end(actor)
    before = first.status()
    write_json(RunFolder(actor._run.folder).session, {"number": 2})
    gate.set()
    actor.cleanup()
    assert first.status() == before and not first.last.exists()


@pytest.mark.parametrize(
    ("files", "own"),
    [
        (
            {
                "job/memory.max": "6000\n",
                "job/memory.current": "5000\n",
                "job/memory.stat": "anon 100\ninactive_file 30\n",
                "memory.max": "max\n",
                "memory.current": "9000\n",
            },
            "0::/job\n",
        ),
        (
            {
                "memory/memory.limit_in_bytes": "6000\n",
                "memory/memory.usage_in_bytes": "5000\n",
                "memory/memory.stat": "cache 7\ntotal_inactive_file 30\n",
            },
            "5:cpu,cpuacct:/x\n4:memory:/docker/0f\n0::/\n",
        ),
    ],
)
def test_what_is_free_is_what_the_control_group_leaves(
    tmp_path: Path, files: dict[str, str], own: str
) -> None:
    """The group above has no limit (v2); the container's own path does not exist within it (v1)."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert free_bytes(tmp_path, tmp_path / "own") == 1030


def test_without_a_control_group_the_machine_tells_what_is_free(tmp_path: Path) -> None:
    assert free_bytes(tmp_path, tmp_path / "own") > 2**20
