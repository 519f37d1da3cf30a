"""The report: one file that loads nothing, and says what was asked, what came out and how to repeat it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.style import Style

from analysis import plots
from analysis.final_test import final_test
from analysis.frames import results
from analysis.frames.snapshot import Snapshot
from analysis.pages.pictures import figures_of
from analysis.pages.report import render, write_report
from analysis.pages.report.provenance import provenance
from tests.support.analysis_runs import GOOD, PENDING, make_run, set_status
from tests.support.manifests import edit_manifest
from trainable.metric import Metric
from trainable.records.files import read_json
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.show.colours import COLOURS


@pytest.fixture(scope="module")
def page(unchanged: Path) -> "Page":
    """The report of the unchanged run. Drawing it takes a second."""
    return page_of(unchanged)


class Page(HTMLParser):
    """Text, identities, and everything that a browser would fetch: not what stands in the page itself (data:)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.text = ""
        self.ids: set[str | None] = set()
        self.loads: list[str | None] = []
        self.figures: list[Any] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids.add(known.get("id"))
        for name in ("src", "href", "data", "poster", "srcset", "action"):
            if name in known and not str(known[name]).startswith(("#", "data:")):
                self.loads.append(known[name])
        if tag == "link":
            self.loads.append("link")
        self._inside = [tag, str(known.get("type"))]

    def handle_endtag(self, tag: str) -> None:
        self._inside = []

    def handle_data(self, data: str) -> None:
        if self._inside == ["script", "application/json"]:
            self.figures.append(json.loads(data))
        elif self._inside[:1] not in (["script"], ["style"]):
            self.text += data
        elif self._inside[0] == "style" and ("url(" in data or "@import" in data):
            self.loads.append("style")


def page_of(run: Path) -> Page:
    page = Page(render(run))
    page.text = " ".join(page.text.replace("\u202f", " ").split())
    return page


def test_the_report_is_one_file_below_10_mb_that_loads_nothing(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    assert path.stat().st_size < 10_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert page.loads == []
    assert "default-src 'none'" in path.read_text(encoding="utf-8")


def test_the_report_names_every_trial_its_status_and_the_winner(
    unchanged: Path, page: Page
) -> None:
    frame = results.trials(unchanged)
    for trial, status in zip(frame["trial_id"], frame["status"], strict=True):
        assert f"t-{trial}" in page.ids
        assert status in page.text
    winner = frame["trial_id"][1]
    ground = "chosen by single runs, as the best of 3 finished trials"
    assert (
        f"Only validation accuracy decided: the winner is trial {winner} with 100.00 %" in page.text
    )
    assert f", {ground}." in page.text
    assert "OSError: disk full" in page.text


def test_the_report_says_that_the_test_set_has_not_been_opened_and_what_to_run(
    unchanged: Path, page: Page
) -> None:
    text = page.text
    assert "The test set has not been opened" in text
    assert f"analysis test {unchanged}" in text


def test_the_report_says_the_test_number_its_interval_and_how_often_it_was_opened(
    run: Path,
) -> None:
    result = final_test(run).opening.result
    assert result is not None
    text = page_of(run).text
    low, high = result.accuracy_interval.low, result.accuracy_interval.high
    assert f"{result.accuracy * 100:.2f} %" in text
    assert f"{low * 100:.2f} % to {high * 100:.2f} %" in text
    assert "The test set has been opened once." in text
    assert (
        "Overlap: no picture was found in two parts of the split; identities are not known" in text
    )
    final_test(run, reopen="a reason <b>with</b> marks")
    text = page_of(run).text
    assert "The test set has been opened twice." in text
    assert "a reason <b>with</b> marks" in text


def test_the_report_says_when_the_winner_is_no_longer_the_one_that_was_tested(run: Path) -> None:
    final_test(run)
    frame = results.trials(run)
    set_status(run, frame["trial_id"][1], Status.FAILED)
    text = page_of(run).text
    assert f"The test set was opened for trial {frame['trial_id'][1]}" in text
    assert f"the winner by validation is now {frame['trial_id'][0]}" in text


def test_the_report_shows_the_leak_alarm(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final_test(run)
    assert "LEAK ALARM" not in page_of(run).text
    monkeypatch.setattr("analysis.frames.ledger.CELEBA_IMAGES", 1)
    monkeypatch.setattr("analysis.frames.ledger.CEILINGS", {"Smiling": -1.0})
    assert "LEAK ALARM" in page_of(run).text


def test_every_trial_has_the_curves_that_are_on_record(unchanged: Path, page: Page) -> None:
    figures = page.figures
    for trial, rows in results.epochs(unchanged).groupby("trial_id"):
        for column, shown in (
            ("val_loss", rows["val_loss"].tolist()),
            ("train_loss", rows["train_loss"].tolist()),
            ("val_accuracy", [100 * value for value in rows["val_accuracy"]]),
        ):
            found = [trace["y"] for figure in figures for trace in figure["data"]]
            assert shown in found, f"{column} of {trial}"


def test_the_validation_matrix_is_shown_where_the_predictions_were_kept(
    run: Path, page: Page
) -> None:
    frame = results.trials(run)
    kept = [RunFolder(run).trial(t).has_predictions(3) for t in frame["trial_id"]]
    assert any(kept)
    trial = RunFolder(run).trial(frame["trial_id"][0])
    mark = 'aria-label="Confusion matrix of the validation'
    before = page.html
    (trial.folder / f"best-{frame['best_epoch'][0]}.parquet").unlink()
    after = render(run)
    assert after.count(mark) == before.count(mark) - 1
    told = "the validation predictions of its best epoch were not kept"
    assert after.count(told) == before.count(told) + 1


def test_damaged_predictions_are_named_where_their_matrix_would_be(run: Path) -> None:
    trial_id = results.trials(run).query("status == 'pruned'")["trial_id"].item()
    (path,) = RunFolder(run).trial(trial_id).folder.glob("best-*.parquet")
    path.write_bytes(b"damaged")
    assert f"No confusion matrix: {path} must hold validation predictions" in page_of(run).text


@pytest.mark.parametrize(
    ("overlap", "said"),
    [
        (
            {"persons_across_parts": 1, "test_images_of_known_persons": 1},
            "no picture was found in two parts of the split; 1 person is in several parts, with 1 test image.",
        ),
        (
            {
                "pairs_across_parts": [
                    ["train/1.jpg", "test/2.jpg"],
                    ["train/3.jpg", "test/4.jpg"],
                ],
                "persons_across_parts": 1_234,
                "test_images_of_known_persons": 20,
            },
            "2 pairs of identical or nearly identical pictures across two parts of the split; 1,234 people are in "
            "several parts, with 20 test images.",
        ),
        (
            {"persons_across_parts": 0, "test_images_of_known_persons": 0},
            "no picture was found in two parts of the split; no person is in more than one part.",
        ),
    ],
)
def test_the_report_says_what_the_parts_of_the_split_have_in_common(
    run: Path, overlap: dict[str, Any], said: str
) -> None:
    edit_manifest(RunFolder(run), lambda facts: facts["images"]["overlap"].update(overlap))
    assert provenance(Snapshot.of(run))["overlap"] == f"Overlap: {said}"


def test_the_report_says_what_was_asked_and_how_to_repeat_it(unchanged: Path, page: Page) -> None:
    text = page.text
    assert "0.0001 to 0.1, logarithmic" in text and "where optimizer is sgd" in text
    assert f"sweep run {unchanged}/sweep.yaml name=smiling-again" in text
    manifest = read_json(RunFolder(unchanged).manifest)
    for digest in manifest["digests"].values():
        assert digest in text
    assert manifest["git_commit"] in text
    for count in ("24", "8"):
        assert count in text


def test_the_report_says_what_computed_and_how(run: Path, page: Page) -> None:
    assert "CUDA" not in page.text, "a run on CPUs does not say it"
    gpu = {"hosts": ["n1", "n2"], "device": "NVIDIA T4", "capability": [7, 5], "cudnn": 91000}

    def on_gpus(facts: dict[str, Any]) -> None:
        facts["settings"] |= {"device": "cuda", "precision": "bfloat16", "tf32": False}
        facts["graphs"] = {"used": False, "why": "n1: no memory"}
        facts["sessions"][0]["devices"] = [gpu]

    def before_it_was_recorded(facts: dict[str, Any]) -> None:
        facts["format_version"] = 1
        del facts["settings"]["tf32"], facts["graphs"], facts["sessions"][0]["devices"]

    edit_manifest(RunFolder(run), on_gpus)
    text = page_of(run).text
    assert "n1, n2: NVIDIA T4, compute capability 7.5, cuDNN 91000" in text
    assert "float32 convolutions round to TF32no" in text
    assert "training steps as CUDA graphsno: n1: no memory" in text
    edit_manifest(RunFolder(run), before_it_was_recorded)
    assert "float32 convolutions round to TF32yes" in page_of(run).text


def test_the_report_of_a_run_that_no_session_has_begun_is_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path, [], how=None)

    def not_begun(facts: dict[str, Any]) -> None:
        facts["sessions"], facts["images"] = [], {"count": 44}
        facts |= dict.fromkeys(("settings", "resources", "sharing"))

    edit_manifest(RunFolder(run), not_begun)
    page = page_of(run)
    assert "No trials have been recorded" in page.text
    assert "it has not been started" in page.text
    assert page.figures == []


def test_the_report_of_a_run_under_way_is_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path, [GOOD, PENDING], how=None)
    page = page_of(run)
    assert "1 of its trials has not ended" in page.text
    assert "No epoch has finished" in page.text


def test_the_same_role_has_the_same_colour_in_every_figure(page: Page) -> None:
    seen: dict[str, set[str]] = {}
    for figure in page.figures:
        for trace in figure["data"]:
            if "meta" in trace:
                drawn = trace.get("marker") or trace["line"]
                seen.setdefault(trace["meta"]["role"], set()).add(drawn["color"])
    assert {"winner", "finished", "pruned", "failed", "train", "validation"} <= set(seen)
    for role, colours in seen.items():
        assert colours == {plots.COLOURS[role]}


def test_every_role_has_a_colour_on_the_page_in_light_and_in_dark(page: Page) -> None:
    light, dark = page.html.split("@media (prefers-color-scheme: dark)")[:2]
    for role in plots.COLOURS:
        assert [len(re.findall(rf"--{role}: #", part)) for part in (light, dark)] == [1, 1]
    assert {status.value for status in Status} <= set(plots.COLOURS)


def test_every_status_has_a_style_that_the_terminal_knows() -> None:
    for status in Status:
        assert Style.parse(COLOURS[status].terminal).color is not None


def test_every_plot_that_is_written_as_a_picture_is_in_the_report(
    unchanged: Path, page: Page
) -> None:
    shown = [figure["data"] for figure in page.figures]
    for name, figure in figures_of(unchanged):
        assert json.loads(figure.to_json())["data"] in shown, name


def test_what_has_no_value_makes_no_heat_map(tmp_path: Path) -> None:
    """Two strategies and rates were suggested, and one of each has ended an epoch."""
    waiting = replace(PENDING, settings={"strategy": "head", "lr": 5e-4})
    run = make_run(tmp_path, [GOOD, waiting], how=None)
    assert "strategy-and-rate" not in dict(figures_of(run))
    assert "by strategy and learning rate" not in page_of(run).text


def test_strategies_stand_in_the_order_of_their_depth(run: Path) -> None:
    trials = results.trials(run)
    trials["config/strategy"] = ["full", "head", "block4", "block5", "head", "full"]
    figure = plots.best_by_setting(trials, Metric.VAL_ACCURACY, "strategy", [], None)
    assert list(figure.layout.xaxis.ticktext) == ["head", "block5", "block4", "full"]
