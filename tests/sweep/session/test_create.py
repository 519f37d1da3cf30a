"""Before the first trial: what is refused, what is written at once, and that one driver holds a run."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from analysis.frames.select import why_unfinished
from sweep.__main__ import app, main
from sweep.request.config import SweepConfig, check_config, load_config
from sweep.request.open_run import HeldRun, open_run
from sweep.request.prepare import check_unchanged, prepare
from sweep.search.proposals import nothing_left
from sweep.session.extend import Request, extended
from sweep.session.hold import only_driver
from sweep.session.sessions import close_session, finish, open_session
from sweep.show.status import read_status
from tests.conftest import Faces, sweep_facts, write_faces
from tests.support.made_runs import change_config, create_run
from tests.sweep.session.test_audit import row
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.records.files import now
from trainable.records.manifest import SessionEnd, read_manifest
from trainable.records.paths import StaleSession
from trainable.records.rows import Row, Status, StatusRecord
from trainable.records.trial_folder import TrialRecord

GPU = {
    "device": "NVIDIA H200",
    "capability": [9, 0],
    "memory_bytes": 143 * 10**9,
    "torch": "2.11",
    "cuda": "13.0",
    "cudnn": 91000,
    "driver": "580.1",
}
pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def config(faces: Faces, tmp_path: Path) -> SweepConfig:
    trial = {"strategy": ["head", "block5"], "epochs": 3}
    return check_config(sweep_facts(faces, tmp_path / "runs", trial), {}, "test")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweep", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_is_born_whole_with_its_split_before_any_trial(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), ["sweep", "run"])
    split = pd.read_parquet(run.split)
    assert split["part"].value_counts().to_dict() == {"train": 32, "validation": 4, "test": 4}
    assert load_config(run.config) == config
    opened = open_run(run.path)
    assert opened.config == config
    assert opened.manifest.target == "Smiling"
    facts = json.loads(run.manifest.read_text())
    assert set(facts["digests"]) == {"table", "images", "split", "weights"}
    assert facts["format_version"] == 2
    assert run.trials() == []
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_a_folder_that_exists_is_refused_and_left_alone(config: SweepConfig) -> None:
    config.folder.mkdir(parents=True)
    (config.folder / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match=r"sweep resume .* goes on .*name=run-2"):
        create_run(config, prepare(config), [])
    assert [path.name for path in config.folder.iterdir()] == ["mine.txt"]


def test_a_birth_that_fails_leaves_nothing(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    prepared = prepare(config)
    monkeypatch.setattr("sweep.session.create.write_manifest", fail)
    with pytest.raises(RequestError, match="No space left"):
        create_run(config, prepared, [])
    assert not config.storage.exists()


@pytest.mark.parametrize("how", [None, SessionEnd.SIGINT])
def test_a_run_whose_driver_ended_just_after_its_last_trial_is_finished_by_the_next_command(
    config: SweepConfig, how: SessionEnd | None
) -> None:
    """The test set was not opened for it else: its last session had not ended, and none came after it."""
    run = create_run(config, prepare(config), [])
    with only_driver(run) as session:
        open_session(run, session)
    accuracies = {"head": 0.7, "block5": 0.8}
    for number, (strategy, accuracy) in enumerate(accuracies.items()):
        settings = config.space.settings({"strategy": strategy})
        record = TrialRecord.create(run, settings, number, None)
        for epoch in range(1, config.epochs + 1):
            record.append(row(epoch, accuracy))
        record.last.write_bytes(b"state")
        record.end(Status.FINISHED)
    if how:
        close_session(run, session, how)
    assert why_unfinished(run.path) is not None
    kept = config.model_copy(update={"keep": config.keep.model_copy(update={"best": 1})})
    assert nothing_left(run, config)
    for _ in range(2):
        with only_driver(run) as session:
            finish(HeldRun(run, kept, session))
    assert why_unfinished(run.path) is None
    assert [each.how for each in read_manifest(run).sessions] == [how, SessionEnd.FINISHED]
    assert [record.last.exists() for record in run.trials()] == [False, True]


def test_the_command_refuses_to_be_a_second_driver(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    with only_driver(run) as session:
        open_session(run, session)
        second = command("resume", run.path)
    assert second.returncode == 2
    assert f"process {os.getpid()}" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_session_that_was_taken_over_does_not_write_its_end(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    with only_driver(run) as first:
        open_session(run, first)
    with only_driver(run) as second:
        with pytest.raises(StaleSession):
            open_session(run, first)
        open_session(run, second)
    close_session(run, first, SessionEnd.SIGTERM)
    assert [session.how for session in read_manifest(run).sessions] == [None, None]


def test_each_session_closes_its_own_entry_also_where_a_number_opened_none(
    config: SweepConfig,
) -> None:
    """As of a command that held the run and found nothing to do."""
    run = create_run(config, prepare(config), [])
    ends = {1: SessionEnd.SIGTERM, 3: SessionEnd.FAULT}
    for opens in (True, False, True):
        with only_driver(run) as number:
            if opens:
                open_session(run, number)
                close_session(run, number, ends[number])
    assert {each.number: each.how for each in read_manifest(run).sessions} == ends


def test_a_trial_of_an_older_session_stops_before_it_writes(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    with only_driver(run) as first:
        open_session(run, first)
    record = TrialRecord.create(run, TrialConfig(strategy="head"), 0, first)
    with only_driver(run) as second, pytest.raises(StaleSession):
        record.write_status(StatusRecord(Status.FINISHED))
    assert (first, second) == (1, 2)
    assert run.trial(record.trial_id).status().status is Status.PENDING


def test_status_tells_how_a_run_stands_from_its_files_alone(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    assert "not begun" in read_status(run.path)["state"]
    with only_driver(run) as session:
        open_session(run, session)
        assert f"in process {os.getpid()} on" in read_status(run.path)["state"]
    assert "gone without a word" in read_status(run.path)["state"]
    for number, point in enumerate(config.space.points()):
        settings = config.space.settings(point)
        record = TrialRecord.create(run, settings, number, session)
        for epoch in range(1, config.epochs + 1):
            record.append(Row(epoch, 0.6, 0.7, 0.5, 0.75, 0.7, 0.8, 1e-4, 1.5, 16.0, 0, now()))
        record.write_status(StatusRecord(Status.FINISHED))
    close_session(run, session, SessionEnd.SIGTERM)
    facts = read_status(run.path)
    assert "ended by SIGTERM" in facts["state"] and "sweep resume" in facts["state"]
    assert facts["counts"] == {"finished": 2}
    assert nothing_left(run, config)
    printed = CliRunner().invoke(app, ["status", str(run.path), "--json"])
    assert json.loads(printed.stdout)["counts"] == {"finished": 2}
    readable = CliRunner().invoke(app, ["status", str(run.path)])
    assert readable.exit_code == 0 and "finished" in readable.stdout


def test_status_names_each_kind_of_device_once_with_its_hosts(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    for number, host in enumerate(("a", "b", "a"), start=1):
        open_session(run, number, [GPU | {"hosts": [host]}])
    printed = CliRunner().invoke(app, ["status", str(run.path)]).stdout
    assert (
        "a, b: NVIDIA H200, compute capability 9.0, 143 GB, driver 580.1, CUDA 13.0, cuDNN 91000, torch 2.11"
        in printed
    )


def test_status_goes_by_the_hold_and_not_by_a_process_number(config: SweepConfig) -> None:
    """Of a driver that died; of one whose process can't be seen from here, by its last sign of life."""
    run = create_run(config, prepare(config), [])
    with only_driver(run) as session:
        open_session(run, session)
        named = json.loads(run.holder(session).read_text())
    run.ended(session).unlink()
    run.holder(session).write_text(json.dumps(named | {"start_ticks": 1}))
    assert "gone without a word; `sweep resume" in read_status(run.path)["state"]
    run.holder(session).write_text(json.dumps(named | {"namespaces": "another container's"}))
    state = read_status(run.path)["state"]
    assert "held since" in state and "last sign of life 0" in state
    os.utime(run.holder(session), (1e9, 1e9))
    assert "if there is none for 60 s more" in read_status(run.path)["state"]


def test_plan_shows_trials_split_and_sizes_without_starting_ray(
    config: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it now raises ImportError
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    done = CliRunner().invoke(
        app, ["plan", str(path), "asha.grace_period=2", "asha.rungs_of=strategy"]
    )
    assert done.exit_code == 0, done.output
    for words in (
        "2 trials of at most 3 epochs by grid",
        "ASHA compares those of each strategy after epochs 2",
        "train",
        "32",
        "block5",
        "GB",
    ):
        assert words in done.stdout
    assert not config.folder.exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.target=Smilling", ["'Smilling'", "did you mean Smiling"]),
        ("data.images=/nowhere", ["data.images", "/nowhere"]),
        ("data.table=/nowhere.csv", ["data.table", "/nowhere.csv"]),
        ("model.weights=/nowhere.pth", ["model.weights", "/nowhere.pth"]),
        ("model.weights=imagenet", ["width"]),
        ("trial.head=pretrained", ["head: pretrained", "classifier.0"]),
        ("resources.gpus_per_trial=2", ["gpus_per_trial", "one GPU", "it is 2", "take 1"]),
        ("data.split=official", ["list_eval_partition"]),
    ],
)
def test_what_is_wrong_is_refused_before_ray_in_one_line(
    config: SweepConfig, tmp_path: Path, override: str, words: list[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    with pytest.raises(RequestError) as refused:
        prepare(load_config(path, [override]))
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_on_record_with_two_gpus_a_trial_still_goes_on(config: SweepConfig) -> None:
    """A trial used one of them then, and does now."""
    run = create_run(config, prepare(config), [])
    facts = config.model_dump(mode="json") | {"resources": {"gpus_per_trial": 2}}
    change_config(open_run(run.path), check_config(facts, {}, "test"), ["sweep", "run"])
    opened = open_run(run.path)
    assert opened.config.resources.gpus_per_trial == 2
    assert check_unchanged(opened) == []
    assert extended(opened.config, Request(epochs=5)).epochs == 5


@pytest.mark.parametrize(
    ("name", "place"), [("run", "none.yaml"), ("status", "."), ("resume", "none")]
)
def test_the_command_ends_with_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    place: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", name, str(tmp_path / place)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("sweep: ") and err.count("\n") == 1


def test_unreadable_images_are_refused_or_left_out_by_name(
    config: SweepConfig, tmp_path: Path
) -> None:
    own = write_faces(tmp_path, 44)
    data = config.data.model_copy(update={"images": own.images, "table": own.table})
    config = config.model_copy(update={"data": data})
    for file in (own.files[3], own.files[10]):
        (own.images / file).write_bytes(b"<html>")
    with pytest.raises(RequestError, match=r"000004.jpg .* \(and 1 more\); .*data.unreadable=drop"):
        prepare(config)
    config = config.model_copy(update={"data": data.model_copy(update={"unreadable": "drop"})})
    prepared = prepare(config)
    assert set(prepared.data.split["file"]) == set(own.files) - {own.files[3], own.files[10]}
    assert (
        "2 images that can't be decoded are left out: 000004.jpg, 000011.jpg" in prepared.warnings
    )
    whole = [
        hashlib.sha256((own.images / f).read_bytes()).hexdigest()
        for f in prepared.data.split["file"]
    ]
    assert list(prepared.data.split["sha256"]) == whole
    assert len(prepared.data.table.attributes) == 42
    run = create_run(config, prepared, [])
    assert read_manifest(run).images.unreadable == ("000004.jpg", "000011.jpg")


# ---------------------------------------------------------------- what a run was begun with


@pytest.fixture
def own_config(config: SweepConfig, tmp_path: Path) -> SweepConfig:
    """On images that may be changed."""
    faces = write_faces(tmp_path / "own", 40)
    data = config.data.model_copy(update={"images": faces.images, "table": faces.table})
    return config.model_copy(update={"data": data})


def test_a_run_goes_on_only_with_the_split_images_and_weights_that_it_began_with(
    own_config: SweepConfig,
) -> None:
    run = create_run(own_config, prepare(own_config), [])
    assert check_unchanged(open_run(run.path)) == []
    images = own_config.data.images

    aside = images / "aside"
    first = images / "000003.jpg"
    before = first.read_bytes()
    first.write_bytes((images / "000004.jpg").read_bytes())
    with pytest.raises(RequestError, match=f"{first} has changed or is gone; put the old one back"):
        check_unchanged(open_run(run.path))
    first.rename(aside)
    (images / "000004.jpg").rename(images / "b")
    with pytest.raises(RequestError, match=r"has changed or is gone \(and 1 more\)"):
        check_unchanged(open_run(run.path))
    (images / "b").rename(images / "000004.jpg")
    first.write_bytes(before)
    assert check_unchanged(open_run(run.path)) == []

    opened = open_run(run.path)
    narrower = own_config.model.model_copy(update={"width": 0.04})
    changed = replace(opened, config=own_config.model_copy(update={"model": narrower}))
    with pytest.raises(RequestError, match="weights none must stay as they were"):
        check_unchanged(changed)

    split = pd.read_parquet(run.split)
    split["label"] = 1 - split["label"]
    split.to_parquet(run.split, index=False)
    with pytest.raises(RequestError, match=r"split\.parquet must have the SHA-256"):
        check_unchanged(open_run(run.path))


def test_a_table_that_changes_changes_no_label_and_is_said(own_config: SweepConfig) -> None:
    run = create_run(own_config, prepare(own_config), [])
    table = own_config.data.table
    assert table is not None
    table.write_text(table.read_text() + "\n")
    (said,) = check_unchanged(open_run(run.path))
    assert "has changed or is gone: the run keeps the labels that it began with" in said
    table.unlink()
    assert len(check_unchanged(open_run(run.path))) == 1
