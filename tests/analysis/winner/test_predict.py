"""The winner says of an image what is on record of it, whatever way it is given, and nothing of sealed test images."""

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import analysis
from analysis.__main__ import app
from analysis.final_test import final_test
from tests.support.analysis_runs import Made, make_run, set_status
from tests.support.faces import write_faces, write_zip
from tests.support.manifests import ask_instead
from trainable.data import read_split
from trainable.errors import RequestError
from trainable.records.files import read_json, write_json
from trainable.records.manifest import read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

RUN = CliRunner()
LEFT_OVER = 5  # validation images beyond a batch of 64


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 69 validation images and two layers in its head, whose last bits go with the size of a batch."""
    root = tmp_path_factory.mktemp("large")
    faces = write_faces(root, 5 * (64 + LEFT_OVER))
    made = Made({"strategy": "block5", "lr": 3e-3, "head": "64"})
    return make_run(root, [made], images=faces.images, epochs=1)


def images_of(run: Path) -> Path:
    return read_manifest(RunFolder(run)).image_folder


def part_of(run: Path, part: str) -> list[Path]:
    rows = read_split(RunFolder(run).split, (part,))  # type: ignore[arg-type]
    return [images_of(run) / file for file in rows["file"]]


def recorded(run: Path) -> np.ndarray:
    """Logits of the validation images in the winner's record, in the split's order."""
    (path,) = (run / "trials" / analysis.load_winner(run).winner.trial_id).glob("best-*.parquet")
    return pd.read_parquet(path)["logit"].to_numpy()


# ---------------------------------------------------------------- the same as on record


def test_logits_are_those_on_record_bit_by_bit_whatever_else_is_asked(large: Path) -> None:
    winner, files, logits = (
        analysis.load_winner(large),
        part_of(large, "validation"),
        recorded(large),
    )
    assert len(files) == 64 + LEFT_OVER
    for some in (slice(0, 64), slice(7, 10), slice(63, 64), slice(40, 20, -1)):
        found = winner.predict(files[some])
        assert found["file"].tolist() == [str(file) for file in files[some]]
        assert found["logit"].to_numpy().tolist() == logits[some].tolist()
    rest = winner.predict(files[64:], batch_size=LEFT_OVER)
    assert rest["logit"].to_numpy().tolist() == logits[64:].tolist()


def test_probability_and_class_follow_from_the_logit(run: Path) -> None:
    found = analysis.load_winner(run).predict(part_of(run, "validation"))
    logits = torch.tensor(found["logit"].to_numpy(), dtype=torch.float64)
    assert found["probability"].tolist() == pytest.approx(torch.sigmoid(logits).tolist(), abs=1e-15)
    assert found["class"].tolist() == ["1" if logit > 0 else "-1" for logit in logits]
    assert set(found["class"]) == {"-1", "1"}


def test_a_picture_is_the_same_as_path_folder_zip_pillow_image_or_tensor(
    run: Path, tmp_path: Path
) -> None:
    winner, files = analysis.load_winner(run), part_of(run, "validation")[:3]
    logits = recorded(run)[:3].tolist()
    folder = tmp_path / "new"
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, folder / f"{number}.jpg")
    (folder / "notes.txt").write_text("no image")
    archive = write_zip(folder, tmp_path / "new.zip", inside="deep")
    pictures = [Image.open(file) for file in files]
    tensors = [torch.tensor(np.asarray(each)).permute(2, 0, 1) for each in pictures]
    for given in (
        files,
        [str(file) for file in files],
        folder,
        archive,
        pictures,
        (picture.copy() for picture in pictures),
        tensors,
        torch.stack(tensors),
        [files[0], pictures[1], tensors[2]],
    ):
        assert winner.predict(given)["logit"].tolist() == logits
    assert winner.predict(archive)["file"].tolist() == [f"{archive}/deep/{n}.jpg" for n in range(3)]
    assert winner.predict(torch.stack(tensors))["file"].tolist() == [
        "image 1",
        "image 2",
        "image 3",
    ]
    assert sorted(path.name for path in tmp_path.iterdir() if path != run) == ["new", "new.zip"]


def test_its_caller_keeps_the_number_of_threads(run: Path) -> None:
    analysis.load_winner(run).predict(part_of(run, "validation")[0], threads=2)
    assert torch.get_num_threads() == 1


def test_progress_tells_of_every_image_once(large: Path) -> None:
    told: dict[str, list[int]] = {}

    def begin(text: str, total: int) -> Callable[[int], None]:
        told[text] = [-total]
        return told[text].append

    analysis.load_winner(large).predict(part_of(large, "validation"), begin=begin)
    assert told.keys() == {"checking every image", "images"}
    assert all(sum(each) == 0 for each in told.values())


# ---------------------------------------------------------------- the seal


def test_test_images_are_refused_under_any_name_until_the_test_set_was_opened(
    run: Path, tmp_path: Path, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    files = part_of(run, "test")
    hidden = tmp_path / "friend.jpg"
    shutil.copy(files[0], hidden)
    folder = tmp_path / "few"
    folder.mkdir()
    shutil.copy(files[1], folder / "a.png")
    archive = write_zip(folder, tmp_path / "few.zip")
    winner, other = analysis.load_winner(run), part_of(run, "train")[0]
    with Image.open(hidden) as picture:
        for given in (hidden, folder, archive, picture):
            with pytest.raises(RequestError) as caught:
                winner.predict([other, given])
            text = refused(caught)
            assert text.startswith("1 of the 2 images are test images of this run, the first ")
            assert "has not been opened" in text and f"analysis test {run}" in text
    final_test(run)
    found = analysis.load_winner(run).predict(files)
    tested = pd.read_parquet(run / "test_predictions.parquet")
    assert found["logit"].tolist() == tested["logit"].tolist()


def test_test_images_stay_refused_while_an_opening_was_interrupted_or_was_for_another_winner(
    run: Path,
) -> None:
    final_test(run)
    test, whole = part_of(run, "test")[0], read_json(run / "test.json")
    cut = json.loads(json.dumps(whole))
    cut["ledger"][0].update(result=None, completed=None)
    write_json(run / "test.json", cut)
    with pytest.raises(RequestError, match=r"was interrupted; `analysis test .*` completes it"):
        analysis.load_winner(run).predict(test)
    write_json(run / "test.json", whole)
    analysis.load_winner(run).predict(test)
    set_status(run, whole["winner"]["trial_id"], Status.FAILED)
    with pytest.raises(RequestError, match="the winner by validation accuracy has changed"):
        analysis.load_winner(run).predict(test)


# ---------------------------------------------------------------- what can't be


def test_what_is_no_image_is_refused_in_a_line(
    run: Path, tmp_path: Path, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(part_of(run, "train")[0].read_bytes()[:600])
    write_zip(tmp_path / "empty", tmp_path / "empty.zip")
    (tmp_path / "cut.zip").write_bytes(b"PK\x05\x06" + bytes(18) + b"more")
    winner = analysis.load_winner(run)
    for given, said in (
        ([], "there is none"),
        (tmp_path / "nowhere.jpg", "there is no"),
        (tmp_path / "empty", "has none"),
        (tmp_path / "empty.zip", "has none"),
        (tmp_path / "notes.txt", "its format is unknown"),
        (tmp_path / "cut.jpg", "can't be decoded"),
        (torch.zeros(3, 40, 40), "float32 of shape (3, 40, 40)"),
        (torch.zeros(40, 40, 3, dtype=torch.uint8), "uint8 of shape (40, 40, 3)"),
        ([part_of(run, "train")[0], 7], "one is int"),
        (np.zeros((40, 40, 3), np.uint8), "one is ndarray"),
    ):
        with pytest.raises(RequestError) as caught:
            winner.predict(given)
        assert said in refused(caught)


@pytest.mark.parametrize("given", [{"batch_size": 0}, {"threads": 0}, {"threads": -2}])
def test_less_than_one_image_a_batch_or_one_thread_is_refused(
    run: Path, given: dict[str, Any], refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    ((name, number),) = given.items()
    with pytest.raises(RequestError) as caught:
        analysis.load_winner(run).predict(part_of(run, "train")[0], **given)
    assert refused(caught) == f"{name} must be at least 1, but it is {number}"


def test_frozen_weights_that_are_gone_are_named_with_the_remedy(
    run: Path, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    config = RunFolder(run).config.read_text()
    assert "weights: none" in config
    ask_instead(RunFolder(run), config.replace("weights: none", "weights: /nowhere/vgg.pth"))
    with pytest.raises(RequestError) as caught:
        analysis.load_winner(run)
    assert f"`sweep resume {run} model.weights=PLACE`" in refused(caught)


def test_a_file_that_changes_after_the_seal_was_asked_is_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.jpg"
    shutil.copy(part_of(run, "train")[0], path)

    def begin(text: str, total: int) -> Callable[[int], None]:
        if text == "images":
            shutil.copy(part_of(run, "test")[0], path)
        return lambda count: None

    with pytest.raises(RequestError, match=r"new\.jpg has changed"):
        analysis.load_winner(run).predict(path, begin=begin)


# ---------------------------------------------------------------- the command


def test_the_command_gives_what_python_gives_as_csv_and_json(run: Path, tmp_path: Path) -> None:
    files = [str(file) for file in part_of(run, "validation")]
    expected = analysis.load_winner(run).predict(files)[["file", "probability", "class"]]
    for suffix, read in ((".csv", pd.read_csv), (".json", pd.read_json)):
        out = tmp_path / f"said{suffix}"
        done = RUN.invoke(app, ["predict", str(run), *files, "--out", str(out)])
        assert done.exit_code == 0 and done.stdout == f"8 images in {out}\n"
        shown = RUN.invoke(app, ["predict", str(run), *files, *(["--json"] * (suffix == ".json"))])
        assert shown.stdout == out.read_text()
        for text in (out, StringIO(shown.stdout)):
            found = read(text, dtype={"class": str})
            pd.testing.assert_frame_equal(found, expected, check_exact=suffix == ".csv")


def test_nothing_is_written_over_and_nothing_left_of_what_failed(run: Path, tmp_path: Path) -> None:
    there = tmp_path / "out"
    there.mkdir()
    (there / "mine.csv").write_text("mine")
    (there / "bad.jpg").write_bytes(b"no image")
    good = str(part_of(run, "train")[0])
    for images, out in (
        (good, "mine.csv"),
        (good, "a.txt"),
        (good, "no/a.csv"),
        (there / "bad.jpg", "a.csv"),
    ):
        with pytest.raises(RequestError):
            RUN.invoke(
                app,
                ["predict", str(run), str(images), "--out", str(there / out)],
                catch_exceptions=False,
            )
    assert sorted(path.name for path in there.iterdir()) == ["bad.jpg", "mine.csv"]
    assert (there / "mine.csv").read_text() == "mine"
