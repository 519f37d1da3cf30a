"""The test set: opened once, for the winner by validation, and written down before it is read."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest
from sklearn import metrics
from torchvision.transforms import v2
from typer.testing import CliRunner

from analysis.__main__ import app, main
from analysis.final_test import evaluate, final_test
from analysis.frames import ledger as ledger_module
from analysis.frames import results
from analysis.frames.ledger import NextStep, leak_alarm
from analysis.statistics import confusion, wilson
from tests.support.analysis_runs import (
    FAILED,
    GOOD,
    POOR,
    copy_of,
    make_run,
    set_how,
    set_status,
    template,
)
from tests.support.manifests import edit_manifest
from tests.support.project import ROOT
from trainable.config import RunSettings
from trainable.data import images as data
from trainable.data import read_split
from trainable.errors import RequestError
from trainable.network.model import build_model, load_backbone
from trainable.records.files import read_json
from trainable.records.manifest import read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

RUN = CliRunner()


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return copy_of(template(tmp_path_factory.getbasetemp()), tmp_path / "run")


@pytest.fixture
def hidden_images(run: Path, tmp_path: Path) -> Path:
    """The run's images without one test image, which is now `hidden.jpg`; where that one belongs is given."""
    folder = copy_of(images_of(run), tmp_path / "images")
    edit_manifest(RunFolder(run), lambda facts: facts.update(image_folder=str(folder)))
    path: Path = folder / read_split(RunFolder(run).split, ("test",))["file"].iloc[3]
    path.rename(tmp_path / "hidden.jpg")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every image that is opened from now on."""
    opened: list[str] = []
    load = data.load_pixels

    def noted(path: Path, size: int, sha256: str) -> torch.Tensor:
        opened.append(path.name)
        return load(path, size, sha256)

    monkeypatch.setattr(data, "load_pixels", noted)
    return opened


def images_of(run: Path) -> Path:
    return Path(read_json(RunFolder(run).manifest)["image_folder"])


def winner_of(run: Path) -> str:
    return str(results.trials(run)["trial_id"][1])


def second_of(run: Path) -> str:
    return str(results.trials(run)["trial_id"][0])


def ledger(run: Path) -> list[dict[str, object]]:
    """As json reads it."""
    entries: list[dict[str, object]] = json.loads((run / "test.json").read_text())["ledger"]
    return entries


# ---------------------------------------------------------------- opening


def test_the_winner_is_evaluated_on_exactly_the_test_images(run: Path, reads: list[str]) -> None:
    tested = final_test(run)
    files = read_split(RunFolder(run).split, ("test",))["file"].tolist()
    assert set(reads) == set(files)
    assert tested.step is NextStep.OPEN and tested.times_opened == 1
    assert tested.opening.winner.trial_id == winner_of(run)
    predictions = pd.read_parquet(run / "test_predictions.parquet")
    assert list(predictions.columns) == ["file", "label", "logit"]
    assert predictions["file"].tolist() == files


def test_the_predictions_are_those_of_the_winners_weights_on_disk(run: Path) -> None:
    opening = final_test(run).opening
    folder = RunFolder(run)
    record = folder.trial(opening.winner.trial_id)
    weights = record.folder / f"best-{opening.winner.epoch}.safetensors"
    assert opening.winner.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    settings = read_manifest(folder).settings
    assert settings is not None
    model = build_model(record.asked.settings, load_backbone("none", settings.width)).eval()
    model.set_trained(record.load_best(record.rows()[opening.winner.epoch - 1]).weights)
    test = read_split(folder.split, ("test",))
    logits = []
    for file in test["file"]:  # one at a time, by torchvision's own recipe for ImageNet models
        side = settings.image_size
        pixels = np.asarray(Image.open(settings.images / file).resize((side, side), 2))
        scaled = v2.functional.to_dtype(torch.tensor(pixels).permute(2, 0, 1), scale=True)
        image = v2.functional.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        with torch.no_grad():
            logits.append(model(image[None]).item())
    found = pd.read_parquet(folder.test_predictions)
    np.testing.assert_allclose(found["logit"], logits, rtol=1e-3, atol=1e-5)
    assert found["label"].tolist() == test["label"].tolist()


def test_the_numbers_are_those_that_scikit_learn_gives(run: Path) -> None:
    result = final_test(run).opening.result
    assert result is not None
    found = pd.read_parquet(run / "test_predictions.parquet")
    label, score = found["label"], 1 / (1 + np.exp(-found["logit"].astype(float)))
    predicted = (score > 0.5).astype(int)
    assert result.accuracy == metrics.accuracy_score(label, predicted)
    assert result.balanced_accuracy == metrics.balanced_accuracy_score(label, predicted)
    assert result.loss == pytest.approx(metrics.log_loss(label, score))
    assert result.auc == pytest.approx(metrics.roc_auc_score(label, score))
    counts = result.confusion
    assert [
        [counts.true_negative, counts.false_positive],
        [counts.false_negative, counts.true_positive],
    ] == metrics.confusion_matrix(label, predicted).tolist()
    assert result.images == len(label) == 8
    assert (result.predictions_sha256, result.mistakes_sha256) == tuple(
        hashlib.sha256((run / name).read_bytes()).hexdigest()
        for name in ("test_predictions.parquet", "test_mistakes.parquet")
    )


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-9, 9, width=32)), min_size=1, max_size=30))
def test_counts_and_rates_are_those_that_scikit_learn_gives(
    images: Sequence[tuple[int, float]],
) -> None:
    label, logit = [label for label, _ in images], [logit for _, logit in images]
    predicted = [int(each > 0) for each in logit]
    counts = confusion(np.array(logit), np.array(label))
    matrix = metrics.confusion_matrix(label, predicted, labels=[0, 1])
    assert matrix.ravel().tolist() == list(counts.__dict__.values())
    for own, theirs in (
        (counts.precision, metrics.precision_score),
        (counts.recall, metrics.recall_score),
        (counts.f1, metrics.f1_score),
    ):
        expected = theirs(label, predicted, zero_division=np.nan)
        assert own == pytest.approx(expected) if own is not None else np.isnan(expected)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(confidence_level=0.95, method="wilson")
    found = wilson(*counts)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_the_reference_report_is_the_one_that_it_states() -> None:
    found = wilson(2729, 3000)  # 90.97 %
    assert (round(found.low * 100, 1), round(found.high * 100, 1)) == (89.9, 91.9)


# ---------------------------------------------------------------- once


def test_a_second_call_shows_the_stored_result_and_reads_no_test_image(
    run: Path, reads: list[str]
) -> None:
    first = final_test(run)
    written = (run / "test.json").read_bytes()
    reads.clear()
    second = final_test(run)
    assert reads == []
    assert second.step is NextStep.SHOW and second.opening == first.opening
    assert (run / "test.json").read_bytes() == written


def test_the_ledger_is_on_disk_before_the_first_test_image_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, fsync = data.load_pixels, os.fsync
    synced: list[int] = []  # inodes
    seen: list[tuple[int, list[int]]] = []

    def sync(handle: int) -> None:
        fsync(handle)
        synced.append(os.fstat(handle).st_ino)

    def look(path: Path, size: int, sha256: str) -> torch.Tensor:
        seen.append((len(ledger(run)), [*synced, (run / "test.json").stat().st_ino]))
        return load(path, size, sha256)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(data, "load_pixels", look)
    final_test(run)
    entries, (file, folder, named) = seen[0]
    assert entries == 1
    assert file == named, "what is now called test.json was synced before it got its name"
    assert folder == run.stat().st_ino, "and then its folder, which holds the name"


def test_an_interrupted_opening_is_completed_and_not_counted_again(
    run: Path,
    tmp_path: Path,
    hidden_images: Path,
    refused: Callable[[pytest.ExceptionInfo[Exception]], str],
) -> None:
    with pytest.raises(RequestError) as caught:
        final_test(run)
    assert hidden_images.name in refused(caught)
    (entry,) = ledger(run)
    assert entry["result"] is None and entry["completed"] is None
    hidden_images.write_bytes((images_of(run) / "000001.jpg").read_bytes())
    with pytest.raises(RequestError, match=f"{hidden_images.name} has changed"):
        final_test(run)
    (tmp_path / "hidden.jpg").rename(hidden_images)
    tested = final_test(run)
    assert tested.step is NextStep.COMPLETE and tested.times_opened == 1
    (entry,) = ledger(run)
    assert entry["result"] is not None and entry["number"] == 1


def test_an_interrupted_opening_is_not_completed_for_another_winner(
    run: Path, hidden_images: Path
) -> None:
    with pytest.raises(RequestError):
        final_test(run)
    set_status(run, winner_of(run), Status.FAILED)
    with pytest.raises(RequestError, match="the winner by validation accuracy has changed"):
        final_test(run)


def test_a_changed_winner_is_refused_until_a_reason_is_given_and_then_counts_twice(
    run: Path, reads: list[str], refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    first = final_test(run)
    set_status(run, winner_of(run), Status.FAILED)
    reads.clear()
    with pytest.raises(RequestError) as caught:
        final_test(run)
    text = refused(caught)
    assert first.opening.winner.trial_id in text and second_of(run) in text and "--reopen" in text
    assert reads == [] and len(ledger(run)) == 1
    again = final_test(run, reopen="the first winner's code was wrong")
    assert again.times_opened == 2
    assert again.opening.winner.trial_id == second_of(run)
    assert [entry["reason"] for entry in ledger(run)] == ["", "the first winner's code was wrong"]
    assert ledger(run)[0]["result"] == first.opening.model_dump(mode="json")["result"]
    assert final_test(run).step is NextStep.SHOW


def test_reopening_what_was_never_opened_or_without_a_reason_is_refused(run: Path) -> None:
    with pytest.raises(RequestError, match="this one has not"):
        final_test(run, reopen="to be sure")
    final_test(run)
    with pytest.raises(RequestError, match="must give the reason"):
        final_test(run, reopen=" ")
    assert len(ledger(run)) == 1


def test_a_second_call_at_the_same_time_is_refused(run: Path, reads: list[str]) -> None:
    with FileLock(run / ".test.lock"), pytest.raises(RequestError, match="one `analysis test`"):
        final_test(run)
    assert reads == []


# ---------------------------------------------------------------- for whom


def test_the_winner_ignores_the_test_set(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every test label turned round: another number, the same winner."""
    before = final_test(run).opening
    folder = RunFolder(copy_of(run, tmp_path / "turned"))
    folder.test.unlink()
    split = pd.read_parquet(folder.split)
    turned = split["part"] == "test"
    split.loc[turned, "label"] = 1 - split.loc[turned, "label"]
    split.to_parquet(folder.split, index=False)
    digest = hashlib.sha256(folder.split.read_bytes()).hexdigest()
    edit_manifest(folder, lambda facts: facts["digests"].update(split=digest))
    after = final_test(folder.path).opening
    assert after.winner == before.winner
    assert before.result is not None and after.result is not None
    assert after.result.accuracy == pytest.approx(1 - before.result.accuracy)


def test_weights_that_were_changed_are_refused_before_anything_is_opened(
    run: Path, reads: list[str]
) -> None:
    (path,) = (run / "trials" / winner_of(run)).glob("best-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RequestError, match="changed or damaged"):
        final_test(run)
    assert reads == [] and not (run / "test.json").exists()


def test_a_split_that_was_changed_is_refused(run: Path, reads: list[str]) -> None:
    split = pd.read_parquet(run / "split.parquet")
    split.loc[split["part"] == "train", "part"] = "test"
    split.to_parquet(run / "split.parquet", index=False)
    with pytest.raises(RequestError, match=r"split\.parquet must have the SHA-256"):
        final_test(run)
    assert reads == [] and not (run / "test.json").exists()


def test_another_backbone_than_that_of_the_training_is_refused(run: Path) -> None:
    edit_manifest(RunFolder(run), lambda facts: facts["digests"].update(weights="0" * 64))
    with pytest.raises(RequestError, match=r"model\.weights none must have the digest"):
        final_test(run)
    assert not (run / "test.json").exists()


def test_images_that_are_gone_do_not_cost_an_opening(run: Path) -> None:
    edit_manifest(RunFolder(run), lambda facts: facts.update(image_folder="/nowhere"))
    with pytest.raises(RequestError, match="no such folder"):
        final_test(run)
    assert not (run / "test.json").exists()


def test_a_sweep_that_is_not_finished_is_refused_unless_it_is_asked_for(run: Path) -> None:
    set_how(run, "SIGINT")
    with pytest.raises(RequestError, match="must be finished before its test set is opened"):
        final_test(run)
    assert not (run / "test.json").exists()
    final_test(run, unfinished=True)
    assert ledger(run)[0]["sweep_finished"] is False
    assert any("not finished" in remark for remark in final_test(run).remarks)


def test_without_a_winner_the_test_set_stays_closed(tmp_path: Path) -> None:
    run = make_run(tmp_path, [FAILED])
    with pytest.raises(RequestError, match="no trial of the search has finished"):
        final_test(run)
    assert not (run / "test.json").exists()


def test_a_loss_as_the_metric_picks_the_lowest(tmp_path: Path) -> None:
    run = make_run(tmp_path, [POOR, GOOD], metric="val_loss")
    lowest = results.epochs(run).sort_values("val_loss").iloc[0]
    winner = final_test(run).opening.winner
    assert (winner.trial_id, winner.epoch) == (lowest["trial_id"], lowest["epoch"])
    assert winner.value == lowest["val_loss"]


# ---------------------------------------------------------------- what is said


def test_a_damaged_ledger_is_refused(run: Path) -> None:
    final_test(run)
    (run / "test.json").write_text('{"format_version": 1, "ledger": [{"number": 1}]}')
    with pytest.raises(RequestError, match="must be as this project wrote it"):
        _ = results.read(run).openings


def test_an_opening_without_a_time_is_refused(run: Path) -> None:
    final_test(run)
    path = run / "test.json"
    path.write_text(re.sub('"opened": "[^"]*"', '"opened": "once"', path.read_text()))
    with pytest.raises(RequestError, match="must be as this project wrote it"):
        _ = results.read(run).openings


@pytest.mark.parametrize(
    ("target", "images", "accuracy", "alarm"),
    [
        ("Smiling", 30_000, 0.9351, True),
        ("Smiling", 30_000, 0.935, False),
        ("Male", 30_000, 0.9351, False),
        ("Male", 30_000, 0.9895, True),
        ("Smiling", 2_000, 1.0, False),
        ("Young", 30_000, 1.0, False),
    ],
)
def test_the_leak_alarm_sounds_on_celeba_above_what_models_reach(
    target: str, images: int, accuracy: float, alarm: bool
) -> None:
    assert (leak_alarm(target, images, accuracy) is not None) == alarm


def test_the_command_shows_the_alarm(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "CELEBA_IMAGES", 1)
    monkeypatch.setattr(ledger_module, "CEILINGS", {"Smiling": -1.0})
    done = RUN.invoke(app, ["test", str(run)])
    assert done.exit_code == 0
    assert "LEAK ALARM" in done.stdout


def test_the_command_says_the_number_its_interval_and_how_often(run: Path) -> None:
    first = RUN.invoke(app, ["test", str(run)])
    again = RUN.invoke(app, ["test", str(run), "--reopen", "for the record"])
    result = final_test(run).opening.result
    assert first.exit_code == again.exit_code == 0 and result is not None
    assert f"{result.accuracy * 100:.2f}" in first.stdout
    assert f"{result.accuracy_interval.low * 100:.2f}" in first.stdout
    assert "The test set has been opened once." in first.stdout
    assert "The test set has been opened twice." in again.stdout
    assert "for the record" in again.stdout
    assert str(run / "test.json") in first.stdout


@pytest.mark.parametrize("command", ["results", "test", "report"])
def test_a_wrong_request_ends_in_one_line_and_exit_code_2(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["analysis", command, str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == ""
    assert said.err.startswith("analysis: ") and said.err.count("\n") == 1


def test_the_program_ends_with_the_codes_of_its_commands(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis", "results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("analysis: RUN must be a run folder")
    assert "Traceback" not in done.stderr


def test_a_wrong_option_ends_in_exit_code_2(run: Path) -> None:
    assert RUN.invoke(app, ["test", str(run), "--again"]).exit_code == 2
    assert RUN.invoke(app, ["test"]).exit_code == 2


def test_undefined_numbers_are_written_as_null() -> None:
    settings = RunSettings(
        folder=Path(), images=Path(), image_size=32, weights="none", width=1, epochs=1
    )
    result = evaluate(
        torch.tensor([-1.0, float("-inf")]), torch.tensor([0.0, 1.0]), ("", ""), settings
    )
    assert (result.loss, result.auc, result.precision) == (None, None, None)
    assert json.dumps(result.model_dump(mode="json"), allow_nan=False)
    assert replace(result.confusion, true_negative=0).images == 1


def test_progress_tells_of_every_test_image_once(run: Path) -> None:
    told: dict[str, list[int]] = {}

    def begin(text: str, total: int) -> Callable[[int], None]:
        told[text] = [-total]
        return told[text].append

    final_test(run, begin=begin)
    assert told["test images"][0] < 0 and sum(told["test images"]) == 0
