"""Run folders that commit 21d5110 left (23 November 2026) open, report, resume and extend.

They were made by that commit's own code, tests/fixtures/make_old_runs.py says how. What they must come to is what the
old commands said of them then, and what the old code came to where it was not interrupted.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.__main__ import app as analysis
from sweep.__main__ import app as sweep
from sweep.request.open_run import open_run
from sweep.request.prepare import check_unchanged
from sweep.search.study import study_of
from tests.analysis.pages.test_report import Page
from tests.support.project import ROOT

pytestmark = pytest.mark.usefixtures("own_store")
PACKED = ROOT / "tests" / "fixtures" / "runs-21d5110"
MADE_IN = "/srv/faces"
"""Where the old code ran: images, run folders and store."""
STATES = ("finished", "interrupted", "pruned", "time_limit", "killed_in_extend")
HELD = ("interrupted", "killed_in_extend")
COMPARABLE = ("finished", "pruned", "killed_in_extend")
"""These have two trials of the search that finished."""
NOBODY = "127.0.0.1:1"
"""An address at which no Ray listens: what is refused before it is asked needs none."""
WATCHES_FOR_A_SECOND = """
import sweep.session.hold
sweep.session.hold.WATCH_SECONDS = 1
from sweep.__main__ import main
main()
"""
"""The command, with a shorter wait for a driver of the old version, whose process can't be told from another."""

REWORDED = {
    "_limit` goes on": "_limit` continues the run",
    "1 trial of it has not ended": "1 of its trials has not ended",
    "of the one with the highest mean": "of the setting with the highest mean",
    "the best others": "the best so far",
}
"""Sentences of the old code, and what is said in their place today."""


class OldRun:
    """A run folder of the old code, unpacked into `root`, and what the old commands said of it."""

    def __init__(self, state: str, root: Path) -> None:
        for name in ("faces", state):
            with tarfile.open(PACKED / f"{name}.tar.gz") as archive:
                archive.extractall(root, filter="data")
        self.root = root
        self.path = root / "runs" / state
        self._said = root / "said" / state
        self._move()

    def _move(self) -> None:
        """Name the images, the weights and the run folder where they now lie.

        Only sweep.yaml and the texts in manifest.json have absolute paths, and the digests of these configurations
        follow. Every other file stays byte for byte.
        """
        config, manifest = self.path / "sweep.yaml", self.path / "manifest.json"
        config.write_text(self._moved(config.read_text()))
        facts = self._moved(json.loads(manifest.read_text()))
        assert facts["format_version"] == 1
        for entry in facts["configurations"]:
            entry["sha256"] = hashlib.sha256(entry["text"].encode()).hexdigest()
        manifest.write_text(json.dumps(facts, indent=2))

    def _moved(self, facts: Any) -> Any:
        if isinstance(facts, str):
            return facts.replace(MADE_IN, str(self.root))
        if isinstance(facts, list):
            return [self._moved(each) for each in facts]
        if isinstance(facts, dict):
            return {key: self._moved(value) for key, value in facts.items()}
        return facts

    def said(self, command: str) -> dict[str, Any]:
        """What the old `sweep status --json`, or another command, printed."""
        text = (self._said / f"{command}.json").read_text()
        for then, now in REWORDED.items():
            text = text.replace(then, now)
        facts: dict[str, Any] = json.loads(text)
        return facts

    @property
    def tested(self) -> str:
        """What the old `analysis test` printed, called once more after the opening."""
        return (self._said / "test.txt").read_text()

    @property
    def whole(self) -> pd.DataFrame:
        """The epochs of the same sweep, run by the old code without an interruption."""
        return pd.read_csv(self._said / "whole.csv")

    def lines(self) -> dict[str, list[str]]:
        """Trial → the lines of its epochs.jsonl."""
        return {
            path.parent.name: path.read_text().splitlines()
            for path in self.path.glob("trials/*/epochs.jsonl")
        }

    def statuses(self) -> dict[str, int]:
        """As `sweep status` counts them."""
        counts: dict[str, int] = status_of(self.path)["counts"]
        return counts


@pytest.fixture(params=STATES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldRun:
    """Each state."""
    return OldRun(request.param, tmp_path)


def ask(app: Any, *arguments: object) -> str:
    """What a command prints that ends well."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def status_of(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(ask(sweep, "status", run, "--json"))
    return facts


def faults_of(run: Path) -> list[str]:
    faults: list[str] = json.loads(ask(sweep, "check", run, "--json"))["faults"]
    return faults


NOT_SAID: Final = (
    "saved_seconds",  # of a trial at its own pace, 0 where it had none; now at the run's, null where that has none
    "shared_seconds",  # of the run, in the same way; now called saved_seconds
    "devices_per_trial",  # of the last session; now each epoch's own, in device_seconds
    "chance",  # that a pruned trial would have won
    "rungs",
)
"""Keys of old output that are gone, or whose values mean something else now."""


def assert_says(now: Any, then: Any, place: str = "") -> None:
    """All that was said then, but NOT_SAID, is said now; more may be."""
    if isinstance(then, dict):
        for key, value in then.items():
            if key in NOT_SAID:
                continue
            assert key in now, f"{place}/{key} is not said any more"
            assert_says(now[key], value, f"{place}/{key}")
    elif isinstance(then, list):
        assert len(now) == len(then), place
        for number, (one, other) in enumerate(zip(now, then, strict=True)):
            assert_says(one, other, f"{place}/{number}")
    elif isinstance(then, float):
        assert now == pytest.approx(then), place
    else:
        assert now == then, place


def leader_of(old: OldRun, best: float) -> dict[str, Any]:
    """By the old table: of the trials with this value that can win, the one of the lowest loss, then the soonest."""
    trials = pd.read_csv(old.path / "results" / "trials.csv")
    equals = trials[(trials["val_accuracy"] == best) & (trials["origin"] != "audit")]
    first = equals.sort_values(["val_loss", "best_epoch", "trial_id"]).iloc[0]
    return {"trial_id": first["trial_id"], "best": best, "best_epoch": first["best_epoch"]}


# ---------------------------------------------------------------- open and report


def test_the_status_of_an_old_run_is_what_it_was(old: OldRun) -> None:
    then = old.said("status")
    ended = then.pop("state")
    then.pop("run")
    then["best"] = leader_of(old, then["best"]["best"])  # of equals the old code named the first
    if old.path.name == "killed_in_extend":
        then["epochs"] = 8  # of manifest.json; the old code went by sweep.yaml, which is behind
    now = status_of(old.path)
    assert_says(now, then)
    shown = ask(sweep, "status", old.path)
    assert all(trial["trial_id"] in shown for trial in then["trials"])
    if old.path.name in HELD:
        assert "its last sign of life was" in now["state"] and "sweep resume" in now["state"]
    else:
        assert now["state"] == ended.replace(MADE_IN, str(old.root))


def test_the_results_of_an_old_run_are_what_they_were(old: OldRun) -> None:
    tables = {name: old.path / "results" / f"{name}.csv" for name in ("trials", "epochs")}
    then = {name: pd.read_csv(path) for name, path in tables.items()}
    said = old.said("results")
    for place in ("run", "files"):
        said.pop(place)
    assert_says(json.loads(ask(analysis, "results", old.path, "--json")), said)
    for name, path in tables.items():
        now = pd.read_csv(path)
        columns = [column for column in then[name].columns if column not in NOT_SAID]
        pd.testing.assert_frame_equal(now[columns], then[name][columns])
    shown = ask(analysis, "results", old.path)
    assert all(trial_id in shown for trial_id in then["trials"]["trial_id"])


def test_the_finalists_of_an_old_run_are_what_they_were(old: OldRun) -> None:
    if old.path.name in COMPARABLE:
        now = json.loads(ask(analysis, "select", old.path, "--top", "99", "--json"))["finalists"]
        then, known = old.said("select")["finalists"], {one["trial_id"]: one for one in now["each"]}
        assert now["images"] == then["images"]
        assert now["each"][0]["trial_id"] == old.said("results")["winner"]
        for model in then["each"]:
            for key in ("setting", "right", "accuracy"):
                assert known[model["trial_id"]][key] == model[key]
        assert ask(analysis, "select", old.path)
    else:
        done = CliRunner().invoke(analysis, ["select", str(old.path)])
        assert "a comparison needs two finished trials" in str(done.exception)


def test_the_cost_of_an_old_run_is_what_it_was(old: OldRun) -> None:
    then = old.said("cost")
    said = then.pop("said")
    if then["audit"] is not None:
        then["audit"].pop("interval")  # of all strategies together
        then["audit"]["better"] = dict.fromkeys(then["audit"]["better"])
        saved = then.pop("pruned_epochs"), then.pop("pruned_seconds")  # what audits ran among it
    now = json.loads(ask(analysis, "cost", old.path, "--json"))
    if then["audit"] is not None:
        assert (now["pruned_epochs"], now["pruned_seconds"]) < saved
    assert_says(now, then)
    assert now["said"][0] == said[0]
    assert ask(analysis, "cost", old.path)


def test_the_report_of_an_old_run_names_its_trials_its_winner_and_its_openings(old: OldRun) -> None:
    ask(analysis, "report", old.path)
    page = Page((old.path / "report.html").read_text(encoding="utf-8"))
    text, said = " ".join(page.text.split()), old.said("results")
    assert {f"t-{trial['trial_id']}" for trial in said["trials"]} <= page.ids
    assert (f"trial {said['winner']}, epoch" if said["winner"] else "there is no winner") in text
    often = "has been opened once" if said["times_test_opened"] else "has not been opened"
    assert f"The test set {often}" in text


def test_an_old_run_is_checked_without_a_fault_and_without_a_change(old: OldRun) -> None:
    before = {path: path.read_bytes() for path in old.path.rglob("*") if path.is_file()}
    assert faults_of(old.path) == []
    assert {path: path.read_bytes() for path in old.path.rglob("*") if path.is_file()} == before


def test_an_old_run_is_a_study_with_the_trials_of_its_search(old: OldRun) -> None:
    trials = [trial for trial in old.said("status")["trials"] if trial["origin"] == "search"]
    study = study_of(old.path)
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == [
        trial["trial_id"] for trial in trials
    ]
    best = [trial["best"] for trial in trials if trial["status"] == "finished"]
    complete = [t.value for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert set(best) <= set(complete)


def test_an_old_run_goes_to_tensorboard(old: OldRun, tmp_path: Path) -> None:
    ask(analysis, "export", old.path, "--tensorboard", tmp_path / "board")
    assert len(list((tmp_path / "board").iterdir())) == len(old.said("results")["trials"])


def test_a_test_set_that_the_old_code_opened_is_shown_and_not_opened_again(tmp_path: Path) -> None:
    old = OldRun("finished", tmp_path)
    shutil.rmtree(tmp_path / "images")
    before = (old.path / "test.json").read_bytes()
    shown = ask(analysis, "test", old.path)
    then = [line for line in old.tested.splitlines() if line.startswith(("winner", "test acc"))]
    assert len(then) == 2 and all(line in shown for line in then)
    assert "no test image was read" in shown
    assert (old.path / "test.json").read_bytes() == before
    assert json.loads(ask(analysis, "results", old.path, "--json"))["times_test_opened"] == 1


# ---------------------------------------------------------------- go on


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """The address of a cluster of one node."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "num_gpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


def go_on(command: str, old: OldRun, *options: object) -> subprocess.CompletedProcess[str]:
    """`sweep resume` or `sweep extend`, to its end."""
    return subprocess.run(
        [sys.executable, "-c", WATCHES_FOR_A_SECOND, command, str(old.path), *map(str, options)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("state", ["finished", "pruned"])
def test_an_old_run_that_is_complete_has_nothing_left_to_do(state: str, tmp_path: Path) -> None:
    old = OldRun(state, tmp_path)
    before = old.lines()
    assert "nothing is left to do" in ask(sweep, "resume", old.path)
    assert old.lines() == before


def test_an_old_run_whose_images_have_changed_is_refused(tmp_path: Path) -> None:
    """So the digests of old records still count."""
    old = OldRun("interrupted", tmp_path)
    (tmp_path / "images" / "000001.jpg").write_bytes(b"another")
    resume = ["resume", str(old.path), "--take-over", "--address", NOBODY]
    done = CliRunner().invoke(sweep, resume)
    assert "000001.jpg has changed" in str(done.exception)


class AsItCame(OldRun):
    """Its records still name the places where it was made."""

    def _move(self) -> None:
        pass


def test_an_old_run_is_moved_by_resume_as_it_is_by_hand(tmp_path: Path) -> None:
    old = AsItCame("finished", tmp_path / "old")
    first = (old.path / "manifest.json").read_bytes()
    wrong = CliRunner().invoke(sweep, ["resume", str(old.path), f"data.images={old.path}"])
    assert "data.images must hold the images that the run began with" in str(wrong.exception)
    assert (old.path / "manifest.json").read_bytes() == first
    places = {
        "data.images": old.root / "images",
        "data.table": old.root / "faces.csv",
        "model.weights": old.root / "backbone.safetensors",
    }
    said = ask(sweep, "resume", old.path, *(f"{key}={place}" for key, place in places.items()))
    for key, place in places.items():
        assert f"{key}: {MADE_IN}/{place.name} → {place}" in said
    assert "nothing is left to do" in said
    assert (old.path / "manifest.1.json").read_bytes() == first
    by_hand = OldRun("finished", tmp_path / "by_hand")
    moved, other = open_run(old.path), open_run(by_hand.path)
    assert check_unchanged(moved) == []
    for run, root in ((moved, old.root), (other, by_hand.root)):
        assert (run.manifest.image_folder, run.manifest.table) == (
            root / "images",
            root / "faces.csv",
        )
        assert run.settings is not None
        assert run.settings.images == root / "images"
        assert run.settings.weights == run.config.model.weights
        assert run.config.model.weights == str(root / "backbone.safetensors")
    places_apart: dict[str, Any] = {
        "data": {"images", "table"},
        "model": {"weights"},
        "storage": True,
    }
    assert moved.config.model_dump(exclude=places_apart) == other.config.model_dump(
        exclude=places_apart
    )
    again = ask(analysis, "test", old.path, "--reopen", "is it the same elsewhere?")
    (then,) = (line for line in old.tested.splitlines() if line.startswith("test acc"))
    assert then.split(",")[0] in again


@pytest.mark.ray
def test_an_old_run_whose_driver_was_killed_is_completed_and_equals_one_that_was_not(
    tmp_path: Path, ray: str
) -> None:
    """Its hold is waited for. The second trial goes on from its state: the rows up to there stay as they are."""
    old = OldRun("interrupted", tmp_path)
    assert old.statuses() == {"finished": 1, "running": 1}
    before = old.lines()
    done = go_on("resume", old, "--address", ray)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it did not record how to tell its process" in done.stdout
    assert old.statuses() == {"finished": 3}
    first, second = (
        trial["trial_id"] for trial in old.said("status")["trials"] if trial["epoch"] > 0
    )
    after = old.lines()
    with_images = {path.parent.name for path in old.path.glob("trials/*/right.bits")}
    assert with_images == after.keys() - {first, second}
    (lost,) = (old.path / "trials" / second / "lost.jsonl").read_text().splitlines()
    kept = len(before[second]) - json.loads(lost)["epochs"]
    assert 0 < kept < len(before[second])
    assert after[first] == before[first]
    for now, then in zip(after[second][:kept], before[second][:kept], strict=True):
        assert_says(json.loads(now), json.loads(then))  # cut, and so written again

    whole = dict(list(old.whole.groupby("trial_id")))
    assert after.keys() == whole.keys()
    for trial_id, expected in whole.items():
        rows = pd.DataFrame(map(json.loads, after[str(trial_id)]))
        assert list(rows["epoch"]) == list(expected["epoch"])
        for column in ("train_loss", "val_loss"):  # equal bit by bit on the CPU that made them
            assert list(rows[column]) == pytest.approx(list(expected[column]), rel=0.05)
    sessions = status_of(old.path)["sessions"]
    assert [session["how"] for session in sessions] == [None, "finished"]
    assert faults_of(old.path) == []


@pytest.mark.ray
def test_an_old_extension_that_was_killed_between_its_two_writes_is_completed(
    tmp_path: Path, ray: str
) -> None:
    old = OldRun("killed_in_extend", tmp_path)
    before = old.lines()
    assert {len(rows) for rows in before.values()} == {5}
    done = go_on("resume", old, "--take-over", "--address", ray)
    assert done.returncode == 0, done.stdout + done.stderr
    assert old.statuses() == {"finished": 3}
    after = old.lines()
    assert {len(rows) for rows in after.values()} == {8}
    assert {trial_id: rows[:5] for trial_id, rows in after.items()} == before
    assert faults_of(old.path) == []


@pytest.mark.ray
def test_an_old_run_that_finished_is_given_another_trial(tmp_path: Path, ray: str) -> None:
    old = OldRun("finished", tmp_path)
    before = old.lines()
    done = go_on("extend", old, "--trials", "+1", "--address", ray)
    assert done.returncode == 0, done.stdout + done.stderr
    assert old.statuses() == {"finished": 4}
    after = old.lines()
    assert {trial_id: after[trial_id] for trial_id in before} == before
    (new,) = after.keys() - before.keys()
    assert len(after[new]) == 8
    assert faults_of(old.path) == []


@pytest.mark.ray
@pytest.mark.slow
def test_the_time_limit_of_an_old_run_in_plain_seconds_still_ends_a_session(
    tmp_path: Path, ray: str
) -> None:
    old = OldRun("time_limit", tmp_path)
    assert "time_limit: 8.0\n" in (old.path / "sweep.yaml").read_text()
    (before,) = old.lines().values()
    done = go_on("resume", old, "--address", ray)
    assert done.returncode == 130 and "time limit" in done.stdout, done.stdout + done.stderr
    (after,) = old.lines().values()
    assert_says(json.loads(after[0]), json.loads(before[0]))
    assert old.statuses() == {"interrupted": 1}
    sessions = status_of(old.path)["sessions"]
    assert [session["how"] for session in sessions] == ["time limit", "time limit"]
