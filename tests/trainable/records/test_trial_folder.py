"""The files of a trial: whole or old after any death of the writer, and closed to an older session."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.project import ROOT
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.files import (
    now,
    read_json,
    read_json_lines,
    write_json,
)
from trainable.records.manifest import read_manifest
from trainable.records.paths import RunPaths, StaleSession, readable
from trainable.records.right import read_right
from trainable.records.rows import RESULT_COLUMNS, Best, Row, Status, StatusRecord, key_of
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import NOTE_SECONDS, TrialRecord

Text = Callable[[pytest.ExceptionInfo[Exception]], str]
FILES = ("a.jpg", "b.jpg", "c.jpg")
LABELS = torch.tensor([0.0, 1.0, 1.0])


def row(epoch: int, val_loss: float = 0.5) -> Row:
    return Row(epoch, 0.6, 0.7, val_loss, 0.75, 0.7, 0.8, 1e-4, 1.5, 16.0, 0, now())


def best(epoch: int) -> Best:
    """What an epoch that was the best would leave."""
    weights = {"classifier.0.weight": torch.full((2, 3), float(epoch))}
    return Best(row(epoch), weights, torch.tensor([-1.0, 0.5, float(epoch)]))


def state(epoch: int, best_epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "best_epoch": best_epoch, "trained": {"w": torch.randn(50, 40)}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder in its first session."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(folder.session, {"number": 1})
    return folder


@pytest.fixture
def record(run: RunFolder) -> TrialRecord:
    """A trial of the first session, with nothing but its settings on record."""
    return TrialRecord.create(run, TrialConfig(), number=0, session=1)


# ---------------------------------------------------------------- a trial


def test_a_new_trial_is_pending_and_keeps_what_was_asked(run: RunFolder) -> None:
    settings = TrialConfig(strategy="head", lr=3e-4)
    TrialRecord.create(run, settings, number=7, session=1, origin="replicate")
    (found,) = run.trials()
    assert found.trial_id == settings.trial_id
    assert found.asked.settings == settings
    assert (found.asked.number, found.asked.origin) == (7, "replicate")
    assert found.status() == StatusRecord(Status.PENDING)
    assert found.rows() == []
    assert found.load_last() is None


def test_trials_are_listed_in_the_order_of_suggestion(run: RunFolder) -> None:
    for number, lr in enumerate((0.3, 0.1, 0.2)):
        TrialRecord.create(run, TrialConfig(lr=lr), number=number, session=1)
    (run.path / "trials" / "begun-but-without-config").mkdir()
    assert [found.asked.settings.lr for found in run.trials()] == [0.3, 0.1, 0.2]


def test_a_status_is_read_as_it_was_written(record: TrialRecord) -> None:
    status = StatusRecord(Status.PRUNED, "at epoch 3", attempt=2, host="node-1", seconds=12.5)
    record.write_status(status)
    assert record.status() == status


@pytest.mark.parametrize("status", Status)
def test_only_trials_that_wait_or_run_have_not_ended(status: Status) -> None:
    assert status.has_ended == (status not in {"pending", "running", "interrupted"})


def test_rows_are_read_as_they_were_written_to_the_last_bit(record: TrialRecord) -> None:
    written = [row(epoch, val_loss=1 / (epoch + 2)) for epoch in (1, 2, 3)]
    for each in written:
        record.append(each)
    assert record.rows() == written


def test_a_row_on_disk_has_the_columns_of_the_contract(record: TrialRecord) -> None:
    record.append(replace(row(1), collapsed=True))
    (line,) = (record.folder / "epochs.jsonl").read_text().splitlines()
    measured = ["seconds", "images_per_second", "gpu_memory_bytes", "ended_at"]
    measured += ["frozen_images", "frozen_multiply_adds", "frozen_seconds"]
    measured += ["saved_multiply_adds", "shared_images", "waited_seconds", "skipped_steps"]
    assert list(json.loads(line)) == [*RESULT_COLUMNS, *measured]
    assert RESULT_COLUMNS[0] == "epoch"
    assert RESULT_COLUMNS[-1] == "lr"


@given(st.integers(0, 5), st.integers(0, 7))
def test_cutting_drops_the_rows_after_an_epoch_and_returns_them(
    tmp_path_factory: pytest.TempPathFactory, count: int, epoch: int
) -> None:
    record = TrialRecord(tmp_path_factory.mktemp("trial"))
    rows = [row(number) for number in range(1, count + 1)]
    for each in rows:
        record.append(each)
    assert record.cut(epoch) == rows[epoch:]
    assert record.rows() == rows[:epoch]


def test_the_best_epoch_is_read_as_it_was_written(record: TrialRecord) -> None:
    record.save_best(best(2), FILES, LABELS)
    found = record.load_best(best(2).row)
    assert torch.equal(found.weights["classifier.0.weight"], torch.full((2, 3), 2.0))
    assert found.logits.tolist() == [-1.0, 0.5, 2.0]
    assert found.logits.dtype == torch.float32
    predictions = record.predictions(2)
    assert predictions["file"].tolist() == list(FILES)
    assert predictions["label"].tolist() == [0, 1, 1]
    assert record.weights_digest(2) == read_json(record.folder / "best-2.json")["sha256"]


def test_state_is_loaded_without_running_code_and_older_best_epochs_go(
    record: TrialRecord,
) -> None:
    first, second = state(3, 2), state(5, 4)
    record.save_best(best(2), FILES, LABELS)
    record.save_last(first, 2)
    record.save_best(best(4), FILES, LABELS)
    assert record.load_best(best(2).row)  # until the state that refers to it is replaced
    record.save_last(second, 4)
    loaded = torch.load(record.last, weights_only=True)
    assert torch.equal(loaded["trained"]["w"], second["trained"]["w"])
    assert sorted(path.name for path in record.folder.glob("best-*")) == [
        "best-4.json",
        "best-4.parquet",
        "best-4.safetensors",
    ]


def flip_a_bit(whole: bytes) -> bytes:
    """In the middle, where the values are."""
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda whole: b"",
    "halved": lambda whole: whole[: len(whole) // 2],
    "replaced": lambda whole: b"<html>" * 100,
    "one bit": flip_a_bit,
}


def hurt(path: Path, damage: str) -> None:
    """Do to a file what `damage` names."""
    path.unlink() if damage == "gone" else path.write_bytes(DAMAGES[damage](path.read_bytes()))


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_a_damaged_state_is_no_state(
    record: TrialRecord, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    record.save_last(state(3, 2), 2)
    hurt(record.last, damage)
    assert record.load_last() is None
    assert ("starts again" in caplog.text) == (damage != "gone")


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (suffix, damage)
        for suffix in ("json", "safetensors", "parquet")
        for damage in (*DAMAGES, "gone")
        if suffix == "safetensors" or damage != "one bit"  # the others have no checksum
    ],
)
def test_a_damaged_best_epoch_is_refused_in_one_line(
    record: TrialRecord, refused: Text, suffix: str, damage: str
) -> None:
    record.save_best(best(2), FILES, LABELS)
    path = record.folder / f"best-2.{suffix}"
    hurt(path, damage)
    with pytest.raises(RequestError) as caught:
        record.load_best(best(2).row)
    assert str(path) in refused(caught)


def test_the_weights_of_another_epoch_are_not_taken_for_the_best(record: TrialRecord) -> None:
    record.save_best(best(2), FILES, LABELS)
    record.save_best(best(3), FILES, LABELS)
    (record.folder / "best-3.safetensors").rename(record.folder / "best-2.safetensors")
    with pytest.raises(RequestError, match="SHA-256"):
        record.load_best(row(2))


def test_predictions_stay_when_weights_and_state_go(record: TrialRecord) -> None:
    record.append(row(1))
    record.save_best(best(1), FILES, LABELS)
    record.save_last(state(1, 1), 1)
    assert record.has_predictions(1)
    record.forget_weights()
    record.forget_weights()
    assert record.load_last() is None
    assert record.has_predictions(1)
    assert len(record.rows()) == 1
    with pytest.raises(RequestError, match="are missing"):
        record.load_best(row(1))


# ---------------------------------------------------------------- sessions


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WRITES: dict[str, Callable[[TrialRecord], object]] = {
    "status": lambda record: record.write_status(StatusRecord(Status.FINISHED)),
    "row": lambda record: record.append(row(3)),
    "cut": lambda record: record.cut(1),
    "best": lambda record: record.save_best(best(2), FILES, LABELS),
    "state": lambda record: record.save_last(state(2, 2), 2),
    "forget": lambda record: record.forget_best_but(2),
    "weights": lambda record: record.forget_weights(),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_trial_of_an_older_session_does_not_write(
    run: RunFolder, record: TrialRecord, write: str
) -> None:
    record.append(row(1))
    record.append(row(2))
    record.save_best(best(1), FILES, LABELS)
    record.save_last(state(1, 1), 1)
    before = contents(record.folder)
    write_json(run.session, {"number": 2})
    with pytest.raises(StaleSession, match="session 2 has taken over from session 1"):
        WRITES[write](record)
    assert contents(record.folder) == before
    WRITES[write](run.trial(record.trial_id, session=2))
    assert contents(record.folder) != before


def test_without_a_session_a_record_can_be_written_by_itself(tmp_path: Path) -> None:
    alone = TrialRecord(tmp_path)
    alone.append(row(1))
    alone.save_best(best(1), FILES, LABELS)
    assert [each.epoch for each in alone.rows()] == [1]


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({"format_version": 99}, "99"),
        ({}, "None"),
        ({"format_version": "1"}, "format_version"),
        ({"format_version": True}, "True"),
    ],
)
def test_a_run_of_another_format_is_refused(
    run: RunFolder, refused: Text, manifest: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_manifest(run)
    assert "run folder" in refused(caught)
    write_json(run.manifest, manifest)
    with pytest.raises(RequestError) as caught:
        read_manifest(run)
    assert told in refused(caught)


def test_predictions_are_a_plain_parquet_file(record: TrialRecord) -> None:
    record.save_best(best(1), FILES, LABELS)
    frame = pd.read_parquet(record.folder / "best-1.parquet")
    assert list(frame.columns) == ["file", "label", "logit"]


# ---------------------------------------------------------------- what only whole sweeps ask for


def test_every_path_of_a_run_and_of_a_trial_is_one_that_the_documentation_names() -> None:
    page = (ROOT / "docs/reference/run-folder.md").read_text()
    tree = page.split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()}
    run = RunFolder(Path("runs/name"))
    paths = {getattr(run, name) for name, kind in vars(RunPaths).items() if type(kind) is property}
    assert {path.name for path in paths - {run.sessions}} <= named
    assert run.sessions == run.path / "sessions"
    assert [run.holder(3).relative_to(run.path), run.ended(3).relative_to(run.path)] == [
        Path("sessions/3.json"),
        Path("sessions/3.ended"),
    ]
    record = run.trial("0123456789ab")
    assert record.folder == run.path / "trials/0123456789ab"
    files = {record.log, record.last, record.lost, record.right}
    assert {path.name for path in files} <= named
    assert {path.parent for path in files} == {record.folder}


def test_the_newest_number_is_the_highest_and_zero_before_the_first(run: RunFolder) -> None:
    assert run.newest_drawn() == 0
    run.sessions.mkdir()
    assert run.newest_drawn() == 0
    for name in ("2.json", "10.json", "9.json", "11.ended", ".12.json.tmp", "x.json"):
        (run.sessions / name).touch()
    assert run.newest_drawn() == 10


def test_a_number_that_was_drawn_is_a_newer_session_before_it_is_opened(
    run: RunFolder, record: TrialRecord
) -> None:
    run.sessions.mkdir()
    run.holder(1).touch()
    record.append(row(1))
    run.holder(2).touch()
    with pytest.raises(StaleSession, match="session 2 has taken over"):
        record.append(row(2))


def test_a_trial_is_there_with_its_settings_and_not_before(run: RunFolder) -> None:
    settings = TrialConfig(lr=0.3)
    record = run.trial(settings.trial_id)
    assert not record.is_there() and not record.has_status
    with pytest.raises(RequestError, match=r"there is no file .*config\.json; put the old"):
        _ = record.asked
    TrialRecord.create(run, settings, 0, 1)
    assert record.is_there() and record.has_status
    assert record.asked is record.asked, "read once"
    (record.folder / "config.json").unlink()
    assert record.asked.settings == settings and not run.trial(settings.trial_id).is_there()


def test_settings_of_another_trial_and_settings_that_can_t_be_are_refused_in_one_line(
    run: RunFolder, refused: Text
) -> None:
    one = TrialRecord.create(run, TrialConfig(lr=0.3), 0, 1)
    other = TrialRecord.create(run, TrialConfig(lr=0.1), 1, 1)
    path = one.folder / "config.json"
    path.write_bytes((other.folder / "config.json").read_bytes())
    with pytest.raises(RequestError) as caught:
        _ = run.trial(one.trial_id).asked
    assert f"but its settings are those of {other.trial_id}; put the" in refused(caught)
    facts = read_json(path)
    write_json(path, facts | {"settings": {"lr": -1, "momentum": 2}})
    with pytest.raises(RequestError) as caught:
        _ = run.trial(one.trial_id).asked
    assert "but lr: Input should be greater than 0; put the" in refused(caught)


def test_of_an_error_in_many_lines_the_first_is_said(refused: Text) -> None:
    with pytest.raises(RequestError) as caught, readable("x.json", "delete it"):
        raise ValueError("the first line\nthe second")
    assert (
        refused(caught) == "x.json must be as this project wrote it, but the first line; delete it"
    )
    with pytest.raises(RequestError) as caught, readable("x.json", "delete it"):
        raise KeyError("number")
    assert "but 'number' is missing; delete it" in refused(caught)


def test_a_trial_ends_at_its_moment_or_now_with_the_seconds_of_its_epochs(
    record: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (1, 2, 3):
        record.append(row(epoch))
    record.write_status(StatusRecord(Status.RUNNING, attempt=2, host="node-1"))
    record.end(Status.PRUNED, "behind", "2026-01-01T00:00:00+00:00")
    assert record.status() == StatusRecord(
        Status.PRUNED,
        "behind",
        attempt=2,
        host="node-1",
        ended="2026-01-01T00:00:00+00:00",
        seconds=4.5,
    )
    monkeypatch.setattr("trainable.records.trial_folder.now", lambda: "2026-02-02T00:00:00+00:00")
    record.end(Status.FINISHED)
    assert record.status().ended == "2026-02-02T00:00:00+00:00" and record.status().reason == ""


def test_a_long_step_is_noted_at_most_every_few_seconds_and_taken_back_at_once(
    record: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("trainable.records.trial_folder.time.monotonic", lambda: clock[0])
    said = []
    for seconds, text in (
        (0.0, "filling 1 of 3"),
        (0.0, "filling 2 of 3"),
        (NOTE_SECONDS * 0.9, "filling 2 of 3"),
        (NOTE_SECONDS * 0.1, "filling 3 of 3"),
        (0.0, ""),
        (0.0, "packing"),
        (NOTE_SECONDS, "packing"),
    ):
        clock[0] += seconds
        record.note(text)
        said.append(record.status().reason)
    first, last = "filling 1 of 3", "filling 3 of 3"
    assert said == [first, first, first, last, "", "", "packing"]
    os.utime(record.folder / "status.json", ns=(0, 5_000))
    clock[0] += 10 * NOTE_SECONDS
    record.note("packing")
    assert (record.folder / "status.json").stat().st_mtime_ns == 5_000, "it is said already"


def test_who_trains_without_a_sweep_notes_nothing(tmp_path: Path) -> None:
    TrialRecord(tmp_path).note("filling")
    assert list(tmp_path.iterdir()) == []


def test_what_was_last_written_is_told_by_the_times_of_its_files(record: TrialRecord) -> None:
    record.append(row(1))
    os.utime(record.folder / "epochs.jsonl", ns=(0, 5_000))
    os.utime(record.folder / "status.json", ns=(0, 7_000))
    assert record.last_written() == (5_000, 7_000)
    (aside := record.folder / ".last.pt.x.tmp").touch()
    os.utime(aside, ns=(0, 9_000))
    assert record.last_written() == (5_000, 7_000, 9_000)
    assert TrialRecord(record.folder / "none").last_written() == (0, 0)
    record.forget_unfinished()
    assert not aside.exists() and record.last_written() == (5_000, 7_000)


def test_what_was_cut_is_counted_as_lost(record: TrialRecord) -> None:
    for epoch in (1, 2, 3):
        record.append(row(epoch))
    record.cut(3)
    assert not record.lost.exists()
    record.cut(1)
    (lost,) = read_json_lines(record.lost)
    assert (lost["epochs"], lost["seconds"]) == (2, 3.0)


def test_which_images_were_right_is_on_disk_before_the_row_where_it_is_known(
    record: TrialRecord,
) -> None:
    right = np.array([[True, False, True], [False, False, True]])
    for epoch in (1, 2):
        record.append(row(epoch), right[epoch - 1])
    found = read_right(record.right, 2, 3)
    assert found is not None and found.tolist() == right.tolist()


def test_an_end_without_weights_leaves_predictions_and_no_digest(record: TrialRecord) -> None:
    record.save_best(best(2), FILES, LABELS, weights=False)
    assert record.has_predictions(2) and not (record.folder / "best-2.safetensors").exists()
    assert read_json(record.folder / "best-2.json")["sha256"] is None
    record.save_best(best(2), FILES, LABELS)
    assert not (record.folder / "best-2.safetensors").exists(), "it is written once"


@pytest.mark.parametrize("origin", ["search", "replicate", "audit"])
def test_weights_are_wanted_of_who_may_be_among_the_best(run: RunFolder, origin: Any) -> None:
    """Of a replicate always, of an audit never; of a trial of the search unless it is behind the bar."""
    record = TrialRecord.create(run, TrialConfig(), 0, 1, origin)
    expected = {"search": True, "replicate": True, "audit": False}[origin]
    assert record.is_wanted(row(1), Metric.VAL_LOSS) is expected, "nobody has ended yet"
    bar = key_of(Metric.VAL_LOSS, row(2, 0.5), record.trial_id)
    write_json(run.bar, {"key": list(bar)})
    for best_row, within in ((row(2, 0.5), True), (row(1, 0.5), True), (row(3, 0.5), False)):
        wanted = within if origin == "search" else expected
        assert record.is_wanted(best_row, Metric.VAL_LOSS) is wanted
    assert record.is_wanted(row(1, 0.6), Metric.VAL_LOSS) is (origin == "replicate")
    assert record.is_wanted(row(9, 0.4), Metric.VAL_LOSS) is (origin != "audit")


def test_what_a_trial_says_is_in_its_log_with_the_time(record: TrialRecord) -> None:
    record.say("begun")
    record.say("over")
    lines = record.log.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["begun", "over"]
    TrialRecord(record.folder / "none").say("a disk that fails does not matter")
