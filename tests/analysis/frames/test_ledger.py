"""The ledger of the test set: what a call has to do, by every case; what is written; what is said of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.frames.ledger import (
    NextStep,
    Opening,
    Result,
    Winner,
    alarm_of,
    how_often,
    leak_alarm,
    next_step,
    parse_ledger,
    reasons,
    write_ledger,
)
from analysis.statistics import Confusion, wilson
from trainable.errors import RequestError
from trainable.records.run_folder import RunFolder

TIME = "2026-01-01T00:00:00+00:00"
WINNER = Winner(
    trial_id="1cdbe21b4f0a", epoch=3, metric="val_accuracy", value=0.95, weights_sha256="a" * 64
)
RESULT = Result(
    images=10,
    loss=None,
    accuracy=0.9,
    accuracy_interval=wilson(9, 10),
    balanced_accuracy=0.9,
    precision=0.8,
    recall=1.0,
    f1=0.9,
    auc=None,
    confusion=Confusion(5, 1, 0, 4),
    predictions_sha256="b" * 64,
    mistakes_sha256="c" * 64,
    device="cpu",
    number_format="float32",
)
DONE = Opening(
    number=1,
    opened=TIME,
    completed=TIME,
    host="here",
    sweep_finished=True,
    winner=WINNER,
    split_sha256="d" * 64,
    result=RESULT,
)
INTERRUPTED = DONE.model_copy(update={"completed": None, "result": None})


def other(**changed: object) -> Winner:
    return WINNER.model_copy(update=changed)


# ---------------------------------------------------------------- the file


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.mark.parametrize("openings", [[DONE], [INTERRUPTED], [DONE, INTERRUPTED]])
def test_what_is_written_is_read_again(run: RunFolder, openings: list[Opening]) -> None:
    write_ledger(run, openings)
    assert parse_ledger(run.test.read_bytes(), run) == tuple(openings)


def test_above_the_ledger_stands_its_newest_opening(run: RunFolder) -> None:
    write_ledger(run, [INTERRUPTED, DONE.model_copy(update={"winner": other(epoch=4)})])
    facts = json.loads(run.test.read_text())
    assert (facts["format_version"], facts["times_opened"]) == (1, 2)
    assert facts["winner"]["epoch"] == 4
    assert facts["result"]["accuracy"] == 0.9
    assert [each["result"] is None for each in facts["ledger"]] == [True, False]


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_format_is_refused(run: RunFolder, version: int | None) -> None:
    write_ledger(run, [DONE])
    facts = json.loads(run.test.read_text()) | {"format_version": version}
    with pytest.raises(RequestError, match=f"must have format_version 1, but it has {version};"):
        parse_ledger(json.dumps(facts).encode(), run)


@pytest.mark.parametrize(
    "damaged", [{}, {"ledger": None}, {"ledger": [1]}, {"ledger": [{"number": 1}]}], ids=str
)
def test_a_damaged_ledger_is_refused_in_one_line_that_names_the_file(
    run: RunFolder,
    refused: Callable[[pytest.ExceptionInfo[Exception]], str],
    damaged: dict[str, object],
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_ledger(json.dumps({"format_version": 1} | damaged).encode(), run)
    assert refused(caught).startswith(f"{run.test} must be as this project wrote it, but ")


# ---------------------------------------------------------------- the rule

CHANGED = {
    "another trial": (other(trial_id="5b0b5bd0ad2f"), "d" * 64, "the winner by .* has changed"),
    "another epoch": (other(epoch=2), "d" * 64, "the winner by .* has changed"),
    "other weights": (other(weights_sha256="e" * 64), "d" * 64, "the weights recorded"),
    "another split": (WINNER, "e" * 64, "the split has changed"),
}


def test_a_test_set_is_opened_once_then_shown_and_an_interrupted_opening_completed() -> None:
    assert next_step([], WINNER, "d" * 64, None) is NextStep.OPEN
    assert next_step([DONE], WINNER, "d" * 64, None) is NextStep.SHOW
    assert next_step([INTERRUPTED], WINNER, "d" * 64, None) is NextStep.COMPLETE
    assert next_step([INTERRUPTED, DONE], WINNER, "d" * 64, None) is NextStep.SHOW, (
        "the newest counts"
    )
    assert next_step([DONE], WINNER, "d" * 64, "a reason") is NextStep.OPEN
    assert next_step([INTERRUPTED], WINNER, "d" * 64, "a reason") is NextStep.COMPLETE


@pytest.mark.parametrize("opening", [DONE, INTERRUPTED])
@pytest.mark.parametrize(("winner", "split", "said"), CHANGED.values(), ids=CHANGED.keys())
def test_what_has_changed_since_asks_for_a_reason(
    opening: Opening, winner: Winner, split: str, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        next_step([opening], winner, split, None)
    assert next_step([opening], winner, split, "a reason") is NextStep.OPEN


@pytest.mark.parametrize("openings", [[], [DONE]])
def test_an_empty_reason_is_none(openings: list[Opening]) -> None:
    with pytest.raises(RequestError, match="must give the reason"):
        next_step(openings, WINNER, "d" * 64, " ")


def test_what_was_never_opened_is_not_reopened() -> None:
    with pytest.raises(RequestError, match="this one has not"):
        next_step([], WINNER, "d" * 64, "a reason")


# ---------------------------------------------------------------- what is said


def accurate(share: float) -> Opening:
    return DONE.model_copy(update={"result": RESULT.model_copy(update={"accuracy": share})})


@pytest.mark.parametrize(
    ("target", "images", "accuracy", "alarm"),
    [
        ("Smiling", 10_000, 0.9351, True),
        ("Smiling", 10_000, 0.935, False),
        ("Smiling", 9_999, 0.9351, False),
        ("Male", 10_000, 0.989, False),
        ("Male", 10_000, 0.9891, True),
        ("Young", 10_000, 1.0, False),
    ],
)
def test_the_alarm_is_for_celeba_and_for_more_than_models_reach(
    target: str, images: int, accuracy: float, alarm: bool
) -> None:
    assert (leak_alarm(target, images, accuracy) is not None) == alarm


def test_the_alarm_says_both_shares() -> None:
    said = leak_alarm("Smiling", 30_000, 0.9512)
    assert said is not None and re.findall(r"(\d+\.\d+)\s%", said) == ["95.12", "93.5"]


def test_the_newest_result_decides_by_the_rows_of_the_split(tmp_path: Path) -> None:
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    pd.DataFrame({"file": ["a"] * 9_999}).to_parquet(small)
    pd.DataFrame({"file": ["a"] * 10_000}).to_parquet(large)
    high, low = accurate(0.99), accurate(0.9)
    assert alarm_of("Smiling", large, [low, high]) is not None
    assert alarm_of("Smiling", large, [high, low]) is None
    assert alarm_of("Smiling", small, [high]) is None
    assert alarm_of("Smiling", large, [high, INTERRUPTED]) is None
    assert alarm_of("Smiling", large, []) is None


def test_how_often_is_said_in_words() -> None:
    assert how_often([]) == "The test set has not been opened."
    assert how_often([DONE, DONE]) == "The test set has been opened twice."


def test_of_each_opening_is_said_what_readers_must_know() -> None:
    early = INTERRUPTED.model_copy(
        update={"number": 2, "reason": "more epochs", "sweep_finished": False}
    )
    assert list(reasons([DONE])) == []
    assert list(reasons([DONE, early])) == [
        "opening 2: more epochs",
        "opening 2 was made before the sweep had finished",
        "opening 2 was interrupted and has no result",
    ]
