"""sweep check: a run as it was written has no fault; what is damaged is named with its remedy; nothing is changed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.final_test import final_test
from sweep.__main__ import app
from sweep.show.check import check_run
from tests.support.analysis_runs import copy_of, template
from tests.support.manifests import edit_manifest
from trainable.records.files import append_json, read_json, write_json
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copy_of(
        template(tmp_path_factory.getbasetemp()), tmp_path_factory.mktemp("check") / "run"
    )
    final_test(run)
    return run


@pytest.fixture
def run(tested: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(copy_of(tested, tmp_path / "run"))


def everything(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_run_as_it_was_written_has_no_fault_and_stays_as_it_is(run: RunFolder) -> None:
    before = everything(run.path)
    found = check_run(run.path)
    assert (found.faults, found.remarks) == ([], [])
    assert everything(run.path) == before
    looked = found.looked_at
    assert looked["trials"] == len(list(run.path.glob("trials/*/config.json")))
    lines = [path.read_text().count("\n") for path in run.path.glob("trials/*/epochs.jsonl")]
    assert looked["epochs"] == sum(lines)
    assert looked["epochs with their images"] == sum(lines)
    assert looked["weights"] == len(list(run.path.glob("trials/*/*.safetensors")))
    assert looked["states"] == len(list(run.path.glob("trials/*/last.pt")))
    assert looked["images"] == len(pd.read_parquet(run.split))


def kept(run: RunFolder) -> Path:
    """The folder of a trial whose weights are kept."""
    return next(iter(sorted(run.path.glob("trials/*/last.pt")))).parent


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def appended(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def shuffled(path: Path) -> None:
    pd.read_parquet(path).iloc[::-1].to_parquet(path)


def retimed(path: Path, key: str) -> None:
    path.write_text(re.sub(f'"{key}": "[^"]*"', f'"{key}": "late"', path.read_text()))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes().split(b"\n", 1)[0] + b"\n")


def swapped_rightness(run: RunFolder) -> None:
    """Another image is right in the best epoch, and as many as before."""
    record = run.trial(kept(run).name)
    epoch = int(only(record.folder, "best-*.json").stem.removeprefix("best-"))
    right = np.unpackbits(np.fromfile(record.right, np.uint8)).reshape(len(record.rows()), -1)
    right[epoch - 1] = np.roll(right[epoch - 1], 1)
    record.right.write_bytes(np.packbits(right).tobytes())


def one_epoch_more(run: RunFolder) -> None:
    path = kept(run) / "epochs.jsonl"
    last = path.read_bytes().splitlines(keepends=True)[-1]
    appended(path, last.replace(b'"epoch": 3', b'"epoch": 4'))


def decided_twice(run: RunFolder) -> None:
    facts = {"trial_id": kept(run).name, "rung": 1, "score": 0.5, "cutoff": None}
    for sequence in (1, 1):
        append_json(run.rungs, facts | {"sequence": sequence, "verdict": "go on"})


def decided_for_nobody(run: RunFolder) -> None:
    facts = {"sequence": 1, "trial_id": "0" * 12, "rung": 1, "score": 0.5, "cutoff": None}
    append_json(run.rungs, facts | {"verdict": "go on"})


DAMAGES: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "manifest": (lambda run: run.manifest.write_text("{"), "manifest.json"),
    "manifest by hand": (
        lambda run: write_json(run.manifest, read_json(run.manifest) | {"host": "x"}),
        "it was changed since",
    ),
    "configuration": (lambda run: run.config.write_text("name: x\n"), "sweep.yaml"),
    "split": (lambda run: shuffled(run.split), "split.parquet"),
    "no split": (lambda run: run.split.unlink(), "split.parquet"),
    "settings": (lambda run: (kept(run) / "config.json").write_text("{}"), "config.json"),
    "status": (lambda run: (kept(run) / "status.json").write_text("[]"), "status.json"),
    "finished without an epoch": (
        lambda run: (kept(run) / "epochs.jsonl").write_text(""),
        "is finished and must have epochs, but epochs.jsonl has none",
    ),
    "more epochs than configured": (
        one_epoch_more,
        "must have at most 3 epochs, as configured, but it has 4",
    ),
    "row": (lambda run: (kept(run) / "epochs.jsonl").write_text("{}\n"), "epochs.jsonl"),
    "rows lost": (lambda run: cut(kept(run) / "epochs.jsonl"), "must be from an epoch on record"),
    "weights": (lambda run: flipped(only(kept(run), "*.safetensors")), ".safetensors"),
    "weights gone": (lambda run: only(kept(run), "*.safetensors").unlink(), "among the best"),
    "best gone": (lambda run: only(kept(run), "best-*.json").unlink(), "best epoch"),
    "predictions": (lambda run: shuffled(only(kept(run), "best-*.parquet")), "validation images"),
    "predictions gone": (lambda run: only(kept(run), "best-*.parquet").unlink(), "are missing"),
    "state": (lambda run: flipped(kept(run) / "last.pt"), "last.pt can't be read"),
    "decisions": (decided_twice, "must be decision 2"),
    "a decision on nobody": (decided_for_nobody, "a decision on trial 000000000000"),
    "session": (lambda run: write_json(run.session, {"number": 0}), "must name session 1"),
    "session damaged": (lambda run: run.session.write_text("{"), "session.json must hold JSON"),
    "sessions": (
        lambda run: edit_manifest(run, lambda facts: facts.update(sessions=2 * facts["sessions"])),
        "in the order of their numbers",
    ),
    "bar": (lambda run: write_json(run.bar, {"key": [0, 0, 1, "nobody"]}), "delete it"),
    "images right": (
        lambda run: flipped(kept(run) / "right.bits"),
        "as many right images in each epoch as epochs.jsonl",
    ),
    "other images right": (swapped_rightness, "the same right images in epoch"),
    "images right cut": (
        lambda run: (kept(run) / "right.bits").write_bytes(b"\xff"),
        "must have 1 bytes for each of 3 epochs of 8 validation images, but it has 1 in total",
    ),
    "too many images right": (
        lambda run: appended(kept(run) / "right.bits", b"\xff"),
        "but it has 4 in total",
    ),
    "repeated epochs": (
        lambda run: (kept(run) / "lost.jsonl").write_text("nothing\n{}\n"),
        "lost.jsonl",
    ),
    "test": (lambda run: run.test.write_text("{"), "test.json"),
    "test openings": (
        lambda run: retimed(run.test, "opened"),
        "each with its time, but it has 0",
    ),
    "session's time": (
        lambda run: edit_manifest(run, lambda facts: facts["sessions"][0].update(ended="late")),
        "'late' is not a time",
    ),
    "status's time": (
        lambda run: retimed(kept(run) / "status.json", "ended"),
        "ended is 'late'",
    ),
    "test predictions": (lambda run: shuffled(run.test_predictions), "test_predictions.parquet"),
    "test mistakes": (lambda run: run.test_mistakes.unlink(), "test_mistakes.parquet"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named_with_its_remedy(run: RunFolder, damage: str) -> None:
    change, said = DAMAGES[damage]
    change(run)
    before = everything(run.path)
    faults = check_run(run.path).faults
    assert any(said in fault for fault in faults), faults
    for fault in faults:
        assert "\n" not in fault and ("; " in fault or ": " in fault)
    assert everything(run.path) == before


def test_all_faults_are_named_at_once_and_the_exit_code_is_2(run: RunFolder) -> None:
    assert CliRunner().invoke(app, ["check", str(run.path)]).exit_code == 0
    flipped(only(kept(run), "*.safetensors"))
    run.config.write_text("name: x\n")
    run.test_mistakes.unlink()
    done = CliRunner().invoke(app, ["check", str(run.path), "--json"])
    assert done.exit_code == 2
    facts = json.loads(done.stdout)
    assert len(facts["faults"]) == 3 and facts["run"] == str(run.path)
    done = CliRunner().invoke(app, ["check", str(run.path)])
    assert done.exit_code == 2 and done.stdout.count("fault: ") == 3
    assert "3 faults; checked" in done.stdout


def test_a_trial_without_its_images_right_is_no_fault(run: RunFolder) -> None:
    """As of an older version, or where a fault was mended so."""
    (kept(run) / "right.bits").unlink()
    found = check_run(run.path)
    assert (found.faults, found.remarks) == ([], [])


def test_an_image_that_changed_is_a_fault(run: RunFolder, tmp_path: Path) -> None:
    images = Path(read_json(run.manifest)["image_folder"])
    own = copy_of(images, tmp_path / "images")
    edit_manifest(run, lambda facts: facts.update(image_folder=str(own)))
    first = sorted(own.glob("*.jpg"))[0]
    flipped(first)
    (fault,) = check_run(run.path).faults
    assert f"{first} has changed or is missing" in fault


def test_what_a_kill_leaves_is_no_fault_and_said(run: RunFolder) -> None:
    (run.path / "trials" / "half").mkdir()
    (kept(run) / ".last.pt.7.tmp").write_bytes(b"half")
    pruned = next(record for record in run.trials() if record.status().status is Status.PRUNED)
    appended(pruned.right, b"\xff")
    run.config.unlink()
    found = check_run(run.path)
    assert found.faults == []
    assert len(found.remarks) == 3


def test_a_trial_without_a_status_counts_as_interrupted_which_is_said_and_no_fault(
    run: RunFolder,
) -> None:
    pruned = next(record for record in run.trials() if record.status().status is Status.PRUNED)
    (pruned.folder / "status.json").unlink()
    done = CliRunner().invoke(app, ["check", str(run.path)])
    assert done.exit_code == 0
    assert f"{pruned.folder} has no status.json: the trial counts as interrupted" in done.stdout
