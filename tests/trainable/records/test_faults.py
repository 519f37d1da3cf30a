"""Which faults end a whole sweep, and which only a trial: read off real files, and off errors as they really come."""

import errno
import os
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import trainable.trial as trial_module
from tests.support.actors import make_actor, own_record
from tests.support.bench import Bench, results
from tests.support.full_disk import files_of_at_most
from tests.support.manifests import put_manifest
from trainable.config import RunSettings, Sharing, TrialConfig
from trainable.errors import ChangedInput, RequestError
from trainable.fit import fit
from trainable.hardware.device import CaptureFailed
from trainable.installation import code_digest
from trainable.records.faults import fault_of_run
from trainable.records.files import write_atomically
from trainable.records.rows import Outcome, Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.trial import FaceTrial


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    put_manifest(run)
    return run


def test_an_error_of_one_trial_is_no_fault_of_the_run(folder: RunFolder) -> None:
    for error in (
        ValueError("a shape"),
        OSError(errno.EIO, "Input/output error"),
        RequestError("x"),
    ):
        assert fault_of_run(folder, error) == ""
    assert list(folder.path.iterdir()) == [folder.manifest]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_a_fault_of_the_run_however_it_is_wrapped(folder: RunFolder, code: int) -> None:
    try:
        try:
            raise OSError(code, os.strerror(code))
        except OSError as error:
            raise RuntimeError("writing failed") from error
    except RuntimeError as error:
        said = fault_of_run(folder, error)
    assert os.strerror(code) in said and "make room" in said


def test_a_folder_that_is_gone_and_a_changed_image_are_faults_of_the_run(folder: RunFolder) -> None:
    assert fault_of_run(folder, ChangedInput("1.jpg has changed")) == "1.jpg has changed"
    folder.path.rename(folder.path.with_name("elsewhere"))
    assert "it is gone" in fault_of_run(folder, RequestError("there is no file status.json"))


def test_a_folder_that_can_not_be_written_is_a_fault_of_the_run(folder: RunFolder) -> None:
    """Seen where nobody may write a megabyte: root passes by the rights of a folder."""
    with files_of_at_most(1_000):
        said = fault_of_run(folder, EOFError())
    assert said == (
        f"the run folder {folder.path} must be writable, but its disk says: File too large"
    )
    assert fault_of_run(folder, EOFError()) == ""
    assert list(folder.path.iterdir()) == [folder.manifest]


@pytest.fixture
def actor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> FaceTrial:
    settings = TrialConfig(strategy="head", head="linear", batch_size=8)
    return make_actor(bench, monkeypatch, settings)


def test_full_gpu_memory_is_tried_once_more_after_emptying_and_then_is_the_trials_error(
    actor: FaceTrial, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised here, where a GPU would raise it; what follows is the real loop."""
    real, left = fit, [1]

    def full(*arguments: Any) -> Generator[Row, None, Outcome]:
        training = real(*arguments)
        yield next(training)
        if left and left.pop():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (yield from training)

    monkeypatch.setattr(trial_module, "fit", full)
    epochs = []
    while "done" not in (result := actor.step()):
        epochs.append(result["epoch"])
    actor.cleanup()
    record = own_record(actor)
    assert epochs in ([1, 2, 3], [1, 1, 2, 3]), (
        "again from its state, if that covered the first epoch"
    )
    assert record.status().status is Status.FINISHED
    calm, _ = bench.fit(record.asked.settings)
    assert results(record.rows()) == results(calm)
    assert "the GPU ran out of memory" in record.log.read_text()

    left[:] = [1, 1, 1]
    actor.reset_config(actor.config)
    record.write_status(record.status())
    record.last.unlink()
    actor.step()
    with pytest.raises(torch.OutOfMemoryError):
        for _ in range(3):
            actor.step()


def test_before_it_is_tried_once_more_what_lies_in_the_gpus_memory_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error is raised here, where a GPU would raise it; what was held is held no more."""
    facts = {"sharing": Sharing(resident=True), "store": tmp_path / "store"}
    sharing = replace(bench, run=bench.run.model_copy(update=facts))
    settings = TrialConfig(strategy="head", head="linear", batch_size=8)
    actor = make_actor(sharing, monkeypatch, settings)
    real, held = fit, []

    def full(*arguments: Any) -> Generator[Row, None, Outcome]:
        training = real(*arguments)
        first = next(training)
        held.append(arguments[-1].holds)
        if held == [True]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield first
        return (yield from training)

    monkeypatch.setattr(trial_module, "fit", full)
    while "done" not in actor.step():
        pass
    record = own_record(actor)
    actor.cleanup()
    assert held == [True, False]
    calm, _ = bench.fit(record.asked.settings)
    assert results(record.rows()) == results(calm)


def test_after_a_failed_capture_the_actor_fails_and_the_next_one_trains_eagerly_on_record(
    actor: FaceTrial, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised here, where a GPU would raise it; what follows is the real loop."""
    real, asked = fit, []

    def captured(config: TrialConfig, run: RunSettings, *others: Any) -> Any:
        asked.append(run.graphs)
        if run.graphs:
            raise CaptureFailed("no CUDA graph of the training step: out of memory")
        return real(config, run, *others)

    monkeypatch.setattr(trial_module, "fit", captured)
    actor._run = actor._run.model_copy(update={"graphs": True})
    with pytest.raises(CaptureFailed):
        actor.step()
    actor.cleanup()
    again = FaceTrial({**actor.config, "run": actor._run.model_dump(mode="json")})
    while "done" not in again.step():
        pass
    again.cleanup()
    status = own_record(again).status()
    assert asked == [True, False]
    assert status.status is Status.FINISHED and "out of memory" in status.eager
    calm, _ = bench.fit(own_record(again).asked.settings)
    assert results(own_record(again).rows()) == results(calm)


def test_a_fault_of_the_run_is_told_to_the_driver_and_no_failure_of_the_trial(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte of weights may find no room where the next small file would."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert actor.step()["epoch"] == 1

    def no_room(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TrialRecord, "append", no_room)
    told = actor.step()
    assert told.keys() == {"fault"} and "No space left on device" in told["fault"]
    assert actor.step() == told, "and it waits to be ended"
    assert own_record(actor).status().status is Status.RUNNING


def test_an_image_that_changed_under_a_trial_is_a_fault_of_the_run(
    actor: FaceTrial, bench: Bench, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for file in (*bench.data.training.files, *bench.data.validation.files):
        write_atomically(copies / file, (bench.run.images / file).read_bytes())
    run = bench.run.model_copy(update={"images": copies})
    actor = FaceTrial({**actor.config, "run": run.model_dump(mode="json")})
    changed = copies / bench.data.training.files[0]
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert f"{changed} has changed" in actor.step()["fault"]


def test_an_actor_whose_code_is_not_the_drivers_trains_nothing(
    actor: FaceTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node that joined while the sweep ran. The same code may lie elsewhere."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    same = {"place": "/elsewhere", "digest": code_digest()}
    for code, fault in ((same, False), (same | {"digest": "0"}, True)):
        other = FaceTrial({**actor.config, "code": code})
        result = other.step()
        assert ("fault" in result) == fault
        if fault:
            assert "which is in /elsewhere" in result["fault"]
        other.cleanup()
