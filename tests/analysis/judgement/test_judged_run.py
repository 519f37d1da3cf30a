"""The judgement of a run: from what is on record, of the images that may be opened, and shown as it is."""

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.final_test import final_test
from analysis.frames import results
from analysis.judgement import judge
from analysis.judgement.mistakes import most_confident
from analysis.pages.report import render
from tests.analysis.pages.test_report import page_of
from tests.support.analysis_runs import GOOD, copy_of, make_run
from tests.support.faces import write_faces
from tests.support.manifests import edit_manifest
from trainable.data import read_split
from trainable.errors import RequestError
from trainable.records.run_folder import RunFolder

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{name}}"


@pytest.fixture(scope="module")
def guessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on labels of which a third is wrong, so that it errs; file names of one who wishes us ill."""
    root = tmp_path_factory.mktemp("guessing")
    faces = write_faces(root, 120)
    names = {file: f"{HOSTILE}{file}" for file in faces.files}
    for file, name in names.items():
        (faces.images / file).rename(faces.images / name)
    table = pd.read_csv(faces.table)
    table["filename"] = table["filename"].map(names)
    table.loc[::3, "Smiling"] *= -1
    table.to_csv(faces.table, index=False)
    return make_run(root, [GOOD], images=faces.images)


@pytest.fixture
def wrong(guessing: Path, tmp_path: Path) -> Path:
    """A copy of it, with images and table of its own."""
    run = RunFolder(copy_of(guessing, tmp_path / "run"))
    images = copy_of(guessing.parent / "faces", tmp_path / "faces")
    (tmp_path / "faces.csv").write_bytes((guessing.parent / "faces.csv").read_bytes())

    def moved(facts: dict[str, Any]) -> None:
        facts["image_folder"], facts["table"] = str(images), str(tmp_path / "faces.csv")

    edit_manifest(run, moved)
    return run.path


def files_of(run: Path, part: str) -> set[str]:
    return set(read_split(RunFolder(run).split, (part,))["file"])  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is judged


def test_validation_alone_is_judged_until_the_test_set_is_opened(wrong: Path) -> None:
    found = judge(wrong)
    (validation,) = found.parts
    assert validation.label == "validation set (used for its selection)"
    assert validation.images == len(files_of(wrong, "validation")) and found.gap is None
    assert {mistake.file for mistake in validation.mistakes} <= files_of(wrong, "validation")
    result = final_test(wrong).opening.result
    after = judge(wrong)
    _, test = after.parts
    assert result is not None and test.label == "test set"
    assert test.mistaken == result.images - result.confusion.correct > 0
    assert test.calibration.accuracy == result.accuracy
    assert test.ranking is not None and test.ranking.auc.value == pytest.approx(result.auc)
    assert after.gap is not None
    difference = result.accuracy - validation.calibration.accuracy
    assert after.gap.versus.difference == pytest.approx(difference)


def test_predictions_that_the_opening_did_not_write_are_not_judged(wrong: Path) -> None:
    final_test(wrong)
    path = RunFolder(wrong).test_predictions
    pd.read_parquet(path).assign(logit=9.0).to_parquet(path, index=False)
    found = judge(wrong)
    assert [each.part for each in found.parts] == ["validation"] and found.gap is None
    assert "recorded, but it has" in found.remarks[0]
    path.unlink()
    assert "No such file" in judge(wrong).remarks[0]
    assert "No such file" in page_of(wrong).text


def test_damaged_validation_predictions_are_named_once_and_the_test_set_is_still_judged(
    wrong: Path,
) -> None:
    final_test(wrong)
    tested = judge(wrong).part("test")
    (path,) = wrong.glob("trials/*/best-*.parquet")
    path.write_bytes(b"damaged")
    found = judge(wrong)
    assert [each.part for each in found.parts] == ["test"] and found.gap is None
    assert tested is not None and found.parts[0].mistakes == tested.mistakes
    (remark,) = found.remarks
    assert (
        remark.startswith(f"{path} must hold validation predictions, but it") and "\n" not in remark
    )
    assert next(found.briefly()) == remark


def test_a_table_that_changed_or_is_gone_costs_the_groups_alone(wrong: Path) -> None:
    assert judge(wrong).remarks == () and judge(wrong).parts[0].groups is not None
    table = wrong.parent / "faces.csv"
    table.write_text(table.read_text() + "\n")
    (remark,) = judge(wrong).remarks
    assert "but it has changed" in remark
    table.unlink()
    found = judge(wrong)
    assert "No such file" in found.remarks[0] and "\n" not in found.remarks[0]
    assert found.parts[0].groups is None
    assert "Accuracy within groups needs the table" in page_of(wrong).text


def test_small_groups_are_left_out_and_counted(wrong: Path) -> None:
    groups = judge(wrong).parts[0].groups
    assert groups is not None
    assert (groups.each, groups.left_out) == ((), ("Male",)), "of 24 images"


def test_the_command_says_brier_score_area_and_gap(wrong: Path) -> None:
    done = CliRunner().invoke(app, ["test", str(wrong)])
    assert done.exit_code == 0
    for word in ("Brier score 0.", "ROC AUC 0.", "test minus validation accuracy"):
        assert word in done.stdout
    assert str(RunFolder(wrong).test_mistakes) in done.stdout


# ---------------------------------------------------------------- test images stay closed


def test_thumbnails_of_test_images_are_made_in_the_opening(wrong: Path) -> None:
    result = final_test(wrong).opening.result
    run = RunFolder(wrong)
    content = run.test_mistakes.read_bytes()
    assert result is not None and result.mistakes_sha256 == hashlib.sha256(content).hexdigest()
    frame = pd.read_parquet(run.test_mistakes)
    assert list(frame.columns) == ["file", "label", "logit", "jpeg"]
    surest = most_confident(pd.read_parquet(run.test_predictions))
    pd.testing.assert_frame_equal(frame.drop(columns="jpeg"), surest)
    for jpeg in frame["jpeg"]:
        with Image.open(BytesIO(jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (112, 112))
    assert len(content) < 100_000


def test_an_opening_without_its_thumbnails_is_not_completed(
    wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr("analysis.final_test.as_parquet", fail)
        with pytest.raises(RequestError, match="the disk is gone"):
            final_test(wrong)
    (entry,) = results.read(wrong).openings
    assert entry.result is None and not RunFolder(wrong).test_mistakes.exists()
    assert final_test(wrong).times_opened == 1


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that Python opens from now on; a hook stays for the life of the process, so it is told to stop."""
    paths: list[str] = []
    listening = True

    def hear(event: str, facts: tuple[object, ...]) -> None:
        if listening and event == "open":
            paths.append(str(facts[0]))

    sys.addaudithook(hear)
    yield paths
    listening = False


def test_the_report_opens_validation_images_alone_before_and_after_the_test(
    wrong: Path, opened: list[str]
) -> None:
    def images(act: Callable[[Path], object]) -> set[str]:
        opened.clear()
        act(wrong)
        return {Path(path).name for path in opened if Path(path).parent == wrong.parent / "faces"}

    validation, test = files_of(wrong, "validation"), files_of(wrong, "test")
    before = images(render)
    assert before and before <= validation
    assert images(final_test) == test
    assert images(render) == before
    assert images(final_test) == images(judge) == set()


# ---------------------------------------------------------------- the page


def test_hostile_names_are_shown_and_not_obeyed(wrong: Path) -> None:
    final_test(wrong)
    page = render(wrong)
    assert HOSTILE not in page and "<img src=x" not in page
    parsed = page_of(wrong)
    assert parsed.loads == []
    for each in judge(wrong).parts:
        assert each.mistakes
        for mistake in each.mistakes:
            assert mistake.file in parsed.text
    assert page.count('src="data:image/jpeg;base64,') == sum(
        len(each.mistakes) for each in judge(wrong).parts
    )


def test_without_the_images_validation_mistakes_are_named_and_test_ones_still_shown(
    wrong: Path,
) -> None:
    final_test(wrong)
    (wrong.parent / "faces").rename(wrong.parent / "elsewhere")
    validation, test = judge(wrong).parts
    page = render(wrong)
    assert page.count('src="data:image/jpeg;base64,') == len(test.mistakes)
    assert page.count("picture missing") == len(validation.mistakes)
    assert f"{len(validation.mistakes)} of these images can" in page


def test_thumbnails_that_the_opening_did_not_write_are_not_shown(wrong: Path) -> None:
    final_test(wrong)
    path = RunFolder(wrong).test_mistakes
    pd.read_parquet(path).assign(jpeg=b"x").to_parquet(path, index=False)
    validation, test = judge(wrong).parts
    text = page_of(wrong).text
    assert text.count("picture missing") == len(test.mistakes)
    assert "test_mistakes.parquet must have the SHA-256" in text
    assert "Validation set (used for its selection)" in text and validation.mistakes


PICTURE = re.compile(r'<img src="data:image/[^>]*>')


def test_without_faces_the_report_lacks_the_pictures_says_so_and_loses_nothing_else(
    wrong: Path, opened: list[str]
) -> None:
    final_test(wrong)
    full = render(wrong)
    opened.clear()
    page = render(wrong, faces=False)
    assert not [path for path in opened if path.endswith((".jpg", "test_mistakes.parquet"))]
    assert not PICTURE.search(page) and PICTURE.search(full)
    said = '<p class="soft">The pictures were left out because of <code>--no-faces</code>.</p>'
    assert page.count(said) == len(judge(wrong).parts)

    def rest(html: str) -> str:
        return re.sub(r"Written .*", "", PICTURE.sub("", html.replace(said, "")))

    assert rest(page) == rest(full)
    CliRunner().invoke(app, ["report", str(wrong), "--no-faces"], catch_exceptions=False)
    assert rest((wrong / "report.html").read_text()) == rest(page)
    assert not PICTURE.search((wrong / "report.html").read_text())
