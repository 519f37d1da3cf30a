"""Runs beside each other: what differs is named, and winners are compared only on the same images."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scipy.stats import binom
from typer.testing import CliRunner

from analysis import plots
from analysis.__main__ import app
from analysis.findings.runs import compare
from analysis.frames import results
from analysis.frames.select import select
from analysis.pages.compare import compare_runs, differences, write_comparison
from tests.support.analysis_runs import PENDING, make_run
from tests.support.manifests import ask_instead
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.run_folder import RunFolder


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    """The same run with another name and seed, whose winner never finished: so another trial won."""
    folder = Path(shutil.copytree(run, tmp_path / "other"))
    asked = yaml.safe_load((folder / "sweep.yaml").read_text())
    asked["name"], asked["search"]["seed"] = "other", 7
    ask_instead(RunFolder(folder), yaml.safe_dump(asked))
    winner = select(folder).winner
    assert winner is not None
    status = folder / "trials" / winner.trial_id / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "failed"}))
    return folder


def test_winners_are_compared_image_by_image_on_the_same_images(run: Path, other: Path) -> None:
    found = compare_runs([run, other])
    first, second = found.runs["winner"]
    assert first != second
    right = {}
    for folder, winner in ((run, first), (other, second)):
        (path,) = (folder / "trials" / winner).glob("best-*.parquet")
        table = pd.read_parquet(path)
        right[winner] = ((table["logit"] > 0) == (table["label"] == 1)).tolist()
    pairs = list(zip(right[first], right[second], strict=True))
    counts = pairs.count((True, False)), pairs.count((False, True))
    p = min(1.0, 2 * binom.cdf(min(counts), sum(counts), 0.5))
    assert f"{counts[0]} images that only " in found.said[0]
    assert f"gets right, {counts[1]} that only " in found.said[0]
    assert f"does; p = {p:.2g} after Holm's correction" in found.said[0]
    assert "it says nothing about settings" in found.said[-1]


def test_what_was_asked_differently_is_named_and_nothing_else(run: Path, other: Path) -> None:
    assert compare_runs([run, other]).differences == (("search.seed", ("0", "7")),)
    assert list(differences([{"a": {"b": 1}}, {"a": {"b": 1, "c": "x"}}])) == [("a.c", ("–", "x"))]


def test_other_images_are_not_compared_one_by_one(run: Path, other: Path) -> None:
    winner = compare([other])["winner"][0]
    (path,) = (other / "trials" / winner).glob("best-*.parquet")
    pd.read_parquet(path).iloc[::-1].to_parquet(path)
    said = compare_runs([run, other]).said
    assert len(said) == 1 and "validated on different images" in said[0]


def test_of_a_run_without_a_winner_the_page_shows_what_there_is(run: Path, tmp_path: Path) -> None:
    waiting = make_run(tmp_path, [PENDING], name="waiting", how=None)
    found = compare_runs([run, waiting])
    assert found.settings[0] and found.settings[1] == ""
    assert found.said[-1] == "fewer than two of the runs have a winner"
    page = write_comparison([run, waiting], tmp_path / "page.html").read_text()
    assert "Fewer than two of the runs have a winner." in page


def test_predictions_that_are_damaged_are_named_and_cost_that_comparison_alone(
    run: Path, other: Path
) -> None:
    winner = compare([other])["winner"][0]
    (path,) = (other / "trials" / winner).glob("best-*.parquet")
    path.write_bytes(b"damaged")
    (said,) = compare_runs([run, other]).said
    assert said.startswith(
        f"other is not compared image by image: {path} must hold validation predictions"
    )


def test_runs_that_were_asked_for_other_things_have_no_common_axis(
    run: Path, other: Path, tmp_path: Path
) -> None:
    asked = (other / "sweep.yaml").read_text()
    asked = asked.replace("target: Smiling", "target: Male")
    ask_instead(RunFolder(other), asked.replace("metric: val_accuracy", "metric: val_auc"))
    first, second, *_ = compare_runs([run, other]).said
    assert (
        first
        == "the runs have different attributes (Smiling, Male): their values can't be compared"
    )
    assert second == (
        "the runs have different metrics (val_accuracy, val_auc): their values can't be compared"
    )
    page = write_comparison([run, other], tmp_path / "page.html").read_text()
    assert page.count('type="application/json"') == 1, "intervals alone"


def test_a_winner_that_is_right_where_the_other_is_wrong_beats_it(run: Path, other: Path) -> None:
    """On seven of eight images: one in 64 by chance."""
    for folder, right in ((run, [True] * 8), (other, [True] + [False] * 7)):
        winner = compare([folder])["winner"][0]
        (path,) = (folder / "trials" / winner).glob("best-*.parquet")
        table = pd.read_parquet(path)
        table["logit"] = [
            1.0 if each == (y == 1) else -1.0 for each, y in zip(right, table["label"], strict=True)
        ]
        table.to_parquet(path, index=False)
    beats, about = compare_runs([run, other]).said
    assert beats.replace("\u202f", " ") == (
        "the winner of smiling beats the winner of other on these images by +87.50 points (7 images that only smiling "
        f"gets right, 0 that only other does; p = {2 * 0.5**7:.2g} after Holm's correction)"
    )
    assert "(the best reaches 100.00" in about


def test_a_page_that_is_no_html_is_refused_and_nothing_is_written(
    run: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "page.pdf"
    with pytest.raises(
        RequestError, match=f"--out must be a file that ends in .html, but it is {out}"
    ):
        write_comparison([run, other], out)
    assert not out.parent.exists()


def test_a_page_of_one_run_is_given_no_place(run: Path, tmp_path: Path) -> None:
    command = ["report", str(run), "--out", str(tmp_path / "page.html")]
    with pytest.raises(RequestError) as caught:
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert str(caught.value) == (
        "--out is for the page of several runs, but one run was given; leave it out: the report of one run is written "
        "into its folder"
    )
    assert not (tmp_path / "page.html").exists()


def test_the_command_writes_one_page_for_several_runs(
    run: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", str(run), str(other)])
    assert done.exit_code == 0
    assert done.stdout.strip() == "compare-smiling-other.html"
    text = (tmp_path / "compare-smiling-other.html").read_text()
    for winner in compare([run, other])["winner"]:
        assert winner in text


@pytest.mark.parametrize(
    ("given", "said"),
    [(lambda run: [run, run], "a different one"), (lambda run: [run, run.parent], "no manifest")],
)
def test_what_can_not_be_compared_is_refused(run: Path, given: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        compare_runs(given(run))  # type: ignore[operator]


def test_intervals_and_best_values_are_drawn_as_they_are(run: Path, other: Path) -> None:
    runs = compare([run, other])
    validation, test = plots.accuracies(runs).data
    corrected = runs["val_accuracy"] - runs["val_excess"]
    assert list(validation.x) == pytest.approx((corrected * 100).tolist())
    ends = (
        validation.x[0] - validation.error_x.arrayminus[0],
        validation.x[0] + validation.error_x.array[0],
    )
    assert ends == pytest.approx((runs["val_low"][0] * 100, runs["val_high"][0] * 100))
    assert len(test.x) == 0
    frame = results.trials(run)
    (line,) = plots.best_by_time({"it": frame}, Metric.VAL_ACCURACY).data
    known = frame[frame["val_accuracy"].notna()].sort_values(["ended", "number"])
    assert list(line.y) == pytest.approx((known["val_accuracy"].cummax() * 100).tolist())
    assert line.x[-1] == pytest.approx(known["seconds"].sum() / 3600)
