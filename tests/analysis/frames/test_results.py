"""The two frames, their files, and the table in the terminal."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.final_test import final_test
from analysis.findings.runs import compare
from analysis.frames import results
from analysis.frames.columns import EPOCHS as EPOCH_COLUMNS
from analysis.frames.columns import PREDICTIONS, RUNS, TRIALS, as_markdown, dtypes
from analysis.frames.select import select, why_unfinished
from tests.support.analysis_runs import (
    EPOCHS,
    FAILED,
    GOOD,
    PENDING,
    Made,
    make_run,
    set_how,
    set_status,
)
from tests.support.project import ROOT
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.records.rows import FROZEN_COLUMNS, RATE_COLUMNS, ROW_COLUMNS, Status
from trainable.records.run_folder import RunFolder

RUN = CliRunner()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("empty"), [], how=None)


def lines_of(run: Path, trial_id: str) -> list[dict[str, Any]]:
    """The rows of a trial as json reads them: a witness that shares no code with the frames."""
    path = run / "trials" / trial_id / "epochs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_row_a_trial_holds_what_its_files_say(unchanged: Path) -> None:
    frame = results.trials(unchanged)
    assert frame["number"].tolist() == list(range(6))
    for _, row in frame.iterrows():
        folder = unchanged / "trials" / row["trial_id"]
        asked = json.loads((folder / "config.json").read_text())
        status = json.loads((folder / "status.json").read_text())
        lines = lines_of(unchanged, row["trial_id"])
        assert row["config/strategy"] == asked["settings"]["strategy"]
        assert row["config/lr"] == asked["settings"]["lr"]
        assert row["origin"] == asked["origin"] == "search"
        assert row["status"] == status["status"]
        assert row["epochs"] == len(lines)
        assert row["seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
        if lines:
            best = min(lines, key=lambda line: (-line["val_accuracy"], line["val_loss"]))
            assert row["best_epoch"] == best["epoch"]
            assert row["val_accuracy"] == best["val_accuracy"]
            assert row["train_loss"] == best["train_loss"]


def test_a_row_an_epoch_holds_every_line_of_every_trial(unchanged: Path) -> None:
    frame = results.epochs(unchanged)
    for trial_id, rows in frame.groupby("trial_id"):
        expected = pd.DataFrame(lines_of(unchanged, str(trial_id)))
        same = list(expected.columns.drop("ended_at"))
        pd.testing.assert_frame_equal(
            rows[same].reset_index(drop=True), expected[same], check_dtype=False
        )
    assert len(frame) == results.trials(unchanged)["epochs"].sum()


def test_settings_that_do_not_act_in_a_trial_are_missing(unchanged: Path) -> None:
    frame = results.trials(unchanged).set_index("config/optimizer")
    assert frame.loc[["adam"], "config/momentum"].isna().all()
    assert frame.loc[["sgd"], "config/momentum"].notna().all()
    head = results.trials(unchanged).query("`config/strategy` == 'head'")
    assert head["config/backbone_lr_ratio"].isna().all()
    assert head["config/dropout"].isna().all()


def test_every_setting_of_a_trial_has_a_column(unchanged: Path) -> None:
    columns = set(results.trials(unchanged).columns)
    assert {f"config/{name}" for name in TrialConfig.model_fields} <= columns


def test_every_column_of_a_trial_beside_its_settings_has_a_value_in_some_trial(run: Path) -> None:
    path = next(run.glob("trials/*/status.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"slot": "node-1 GPU 0"}))
    frame = results.trials(run)
    columns = [name for name in TRIALS if not name.startswith("config/")]
    assert not [name for name in columns if frame[name].isna().all()]


def test_every_measure_of_an_epoch_has_a_column(unchanged: Path) -> None:
    assert set(results.epochs(unchanged)) == {"trial_id", "number", *ROW_COLUMNS}
    assert {*RATE_COLUMNS, *FROZEN_COLUMNS} <= set(results.trials(unchanged))


@pytest.mark.parametrize("which", ["unchanged", "empty"])
def test_frames_have_the_same_dtypes_with_and_without_trials(
    which: str, request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(which)
    for frame, kinds in (
        (results.trials(run), dtypes(TRIALS)),
        (results.epochs(run), dtypes(EPOCH_COLUMNS)),
        (results.predictions(run), dtypes(PREDICTIONS)),
    ):
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == kinds
        assert "object" not in set(kinds.values())


@pytest.mark.parametrize("which", ["run", "empty"])
def test_parquet_gives_back_the_frames_exactly(which: str, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(which)
    results.write(run)
    for name, frame in (("trials", results.trials(run)), ("epochs", results.epochs(run))):
        path = run / f"results/{name}.parquet"
        pd.testing.assert_frame_equal(results.read_frame(path), frame)
        pd.testing.assert_frame_equal(pd.read_parquet(path), frame)


def test_csv_gives_back_the_frames_exactly(run: Path) -> None:
    results.write(run)
    for name, frame in (("trials", results.trials(run)), ("epochs", results.epochs(run))):
        pd.testing.assert_frame_equal(results.read_frame(run / f"results/{name}.csv"), frame)


def test_no_other_file_is_taken_for_a_frame(run: Path) -> None:
    with pytest.raises(RequestError, match=r"trials or epochs, as \.parquet or \.csv"):
        results.read_frame(run / "split.parquet")


def test_predictions_hold_every_validation_image_of_every_trial_as_its_file_does(
    unchanged: Path,
) -> None:
    frame, trials = results.predictions(unchanged), results.trials(unchanged)
    asked = pd.read_parquet(unchanged / "split.parquet").query("part == 'validation'")
    for trial_id, rows in frame.groupby("trial_id"):
        assert rows["file"].tolist() == asked["file"].tolist()
        assert rows["label"].tolist() == asked["label"].tolist()
        row = trials.set_index("trial_id").loc[trial_id]
        assert set(rows["epoch"]) == {row["best_epoch"]}
        right = (rows["probability"] > 0.5) == (rows["label"] == 1)
        assert right.mean() == pytest.approx(row["val_accuracy"])
    assert {str(name): str(kind) for name, kind in frame.dtypes.items()} == dtypes(PREDICTIONS)


def test_predictions_of_chosen_trials_come_alone_and_of_none_are_refused(unchanged: Path) -> None:
    some = results.trials(unchanged)["trial_id"][1]
    assert set(results.predictions(unchanged, [some])["trial_id"]) == {some}
    with pytest.raises(RequestError, match="must have predictions on record, but 0123"):
        results.predictions(unchanged, ["0123456789ab"])


def test_runs_stand_side_by_side_with_their_winners(unchanged: Path, empty: Path) -> None:
    frame = compare([unchanged, empty])
    trials = results.trials(unchanged)
    best = trials[trials["status"] == "finished"].sort_values("val_accuracy").iloc[-1]
    first, second = frame.to_dict(orient="records")
    assert first["trials"] == 6 and first["pruned"] == 1 and first["failed"] == 1
    assert (first["winner"], first["val_accuracy"]) == (best["trial_id"], best["val_accuracy"])
    assert first["winner_ground"] == "single runs"
    corrected = first["val_accuracy"] - first["val_excess"]
    assert first["val_low"] < corrected <= min(first["val_high"], first["val_accuracy"])
    assert first["seconds"] == pytest.approx(trials["seconds"].sum())
    assert first["finished_sweep"] and not second["finished_sweep"]
    assert second["trials"] == 0 and pd.isna(second["winner"])
    assert {str(name): str(kind) for name, kind in frame.dtypes.items()} == dtypes(RUNS)


def test_the_test_result_stands_beside_with_wilsons_interval(run: Path) -> None:
    final_test(run)
    tested = pd.read_parquet(run / "test_predictions.parquet")
    right = int(((tested["logit"] > 0) == (tested["label"] == 1)).sum())
    (row,) = compare([run]).to_dict(orient="records")
    assert (row["test_images"], row["times_test_opened"]) == (len(tested), 1)
    assert row["test_accuracy"] == right / len(tested)
    interval = binomtest(right, len(tested)).proportion_ci(method="wilson")
    assert (row["test_low"], row["test_high"]) == pytest.approx((interval.low, interval.high))


def test_without_a_winner_nothing_has_decided(empty: Path) -> None:
    found = select(empty)
    assert found.winner is None and found.ground is None and found.ground_said() == ""


def test_the_document_of_the_frames_is_made_from_their_columns() -> None:
    document = ROOT / "docs" / "reference" / "frames.md"
    assert document.read_text() == as_markdown(), "python docs/make_reference.py"


def test_a_trial_without_a_finished_epoch_is_a_row_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path, [GOOD, PENDING, Made({"lr": 0.9}, Status.FAILED, 0, "no memory")])
    frame = results.trials(run)
    assert frame["epochs"].tolist() == [EPOCHS, 0, 0]
    assert frame["best_epoch"].isna().tolist() == [False, True, True]
    assert frame["val_accuracy"].isna().tolist() == [False, True, True]
    assert frame["reason"].tolist()[2] == "no memory"
    assert why_unfinished(run) == "1 of its trials has not ended"


def test_a_half_written_last_line_is_left_out(run: Path) -> None:
    trial = results.trials(run)["trial_id"][0]
    before = len(results.epochs(run))
    with (run / "trials" / trial / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_lo')
    assert len(results.epochs(run)) == before


def test_json_holds_what_the_files_hold(run: Path) -> None:
    done = RUN.invoke(app, ["results", str(run), "--json"])
    assert done.exit_code == 0
    facts = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    frame = pd.read_parquet(run / "results" / "trials.parquet")
    assert [trial["trial_id"] for trial in facts["trials"]] == frame["trial_id"].tolist()
    assert facts["trials"][0]["config/momentum"] is None
    assert facts["trials"][1]["val_loss"] == frame["val_loss"][1]
    assert len(facts["epochs"]) == frame["epochs"].sum()
    assert facts["winner"] == frame["trial_id"][1]
    assert all(Path(path).is_file() for path in facts["files"])


def test_the_table_names_every_trial_the_winner_and_the_files(run: Path) -> None:
    done = RUN.invoke(app, ["results", str(run)])
    assert done.exit_code == 0
    for trial in results.trials(run)["trial_id"]:
        assert trial in done.stdout
    assert f"winner by val_accuracy: {results.trials(run)['trial_id'][1]}" in done.stdout
    assert "OSError: disk full" in done.stdout
    assert str(run / "results" / "epochs.csv") in done.stdout


def test_the_winner_is_the_best_finished_trial_and_a_better_unfinished_one_is_named(
    run: Path,
) -> None:
    best = results.trials(run)["trial_id"][1]
    set_status(run, best, Status.FAILED)
    selection = select(run)
    assert selection.winner is not None and selection.winner.trial_id != best
    assert selection.winner.status is Status.FINISHED
    (remark,) = selection.remarks()
    assert best in remark and "did not finish: failed" in remark


def test_without_a_finished_trial_there_is_no_winner_and_the_best_others_are_named(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, [FAILED])
    selection = select(run)
    assert selection.winner is None
    assert selection.ranked[0].trial_id in selection.remarks()[0]


def test_a_sweep_is_finished_when_all_trials_have_ended_and_the_last_session_says_so(
    run: Path,
) -> None:
    folder = RunFolder(run)
    assert why_unfinished(run) is None
    set_how(run, "time limit")
    assert "time limit" in str(why_unfinished(run))
    set_how(run, "finished")
    set_status(run, folder.trials()[0].trial_id, Status.INTERRUPTED)
    assert "not ended" in str(why_unfinished(run))


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"must be a run folder, but .* has no manifest\.json"):
        results.trials(tmp_path)


def test_a_run_of_a_newer_format_is_refused(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"format_version": 3}))
    with pytest.raises(RequestError, match="format_version"):
        results.trials(run)
