"""What the terminal shows, drawn by rich itself."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.search.ranking import Standing
from sweep.show.progress import Board, Line, Terminal, describe
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.rows import Row, Status, frozen_work
from trainable.show.terminal import PlainConsole
from trainable.show.wording import duration, frozen_work_said


def board(metric: Metric = Metric.VAL_ACCURACY) -> Board:
    made = Board("faces", metric, epochs=10, trials=4)
    head, block5 = TrialConfig(strategy="head"), TrialConfig(lr=3e-4)
    made.lines["aaaaaaaaaaaa"] = Line(
        head, 0, Status.FINISHED, 10, 0.7, standing("aaaaaaaaaaaa", 0.75, metric)
    )
    made.lines["bbbbbbbbbbbb"] = Line(
        block5, 1, Status.RUNNING, 4, 0.8, standing("bbbbbbbbbbbb", 0.8, metric), "slot-1"
    )
    made.lines["cccccccccccc"] = Line(TrialConfig(lr=1.0), 2, Status.DIVERGED, 0)
    return made


def standing(trial_id: str, value: float, metric: Metric, val_loss: float = 0.5) -> Standing:
    """Of a trial whose best epoch has this value of the metric."""
    measured: dict[str, Any] = {metric.value: value}
    best = replace(Row(1, 0.7, 0.5, val_loss, 0.5, 0.5, 0.5, 1e-3, 1.0, 1.0, 0, ""), **measured)
    return Standing(trial_id, trial_id, Status.RUNNING, "search", best, metric)


def drawn(made: Board) -> str:
    file = io.StringIO()
    console = PlainConsole(file=file, width=120, force_terminal=True, color_system=None)
    console.print(Terminal(made, console).picture())
    return file.getvalue()


def test_before_the_first_epoch_there_is_no_best() -> None:
    text = drawn(Board("faces", Metric.VAL_ACCURACY, epochs=10, trials=4))
    assert "0 of 4 trials ended" in text and "workers are starting" in text
    assert "best so far  –" in text


def test_the_picture_names_counts_slots_and_the_best_so_far() -> None:
    text = drawn(board())
    assert "2 of 4 trials ended: 1 running, 1 finished, 1 diverged" in text
    assert "slot-1" in text and "4/10" in text
    assert "best so far  0.8000  bbbbbbbbbbbb  block5, lr 0.0003" in text


def test_with_a_loss_the_lowest_is_best() -> None:
    assert "best so far  0.7500  aaaaaaaaaaaa" in drawn(board(Metric.VAL_LOSS))


def test_of_two_with_the_same_value_the_lower_loss_leads_as_in_the_ranking() -> None:
    made = board()
    made.lines["aaaaaaaaaaaa"].standing = standing("aaaaaaaaaaaa", 0.8, made.metric, val_loss=0.4)
    assert "best so far  0.8000  aaaaaaaaaaaa" in drawn(made)


def test_elsewhere_than_on_a_terminal_each_end_is_one_plain_line() -> None:
    console = PlainConsole(file=io.StringIO(), width=80)
    with Terminal(board(), console) as terminal:
        terminal.ended(
            "bbbbbbbbbbbb", Status.PRUNED, "best val_accuracy 0.8 where the rung asked for 0.9"
        )
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("\n") == 1 and "\x1b" not in text
    assert text.startswith("pruned") and "asked for 0.9" in text


def test_on_a_terminal_an_end_is_redrawn_and_in_the_log_a_line(tmp_path: Path) -> None:
    console = PlainConsole(file=io.StringIO(), width=80, force_terminal=True)
    with console.kept(), Terminal(board(), console) as terminal:
        console.log_to(tmp_path / "log")
        terminal.ended("bbbbbbbbbbbb", Status.PRUNED, "the rung asked for 0.9")
        terminal.say("[bold]frozen features")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "asked for 0.9" not in shown and "[bold]frozen features" in shown
    first, second = (tmp_path / "log").read_text().splitlines()
    assert "pruned" in first and first.endswith("(the rung asked for 0.9)")
    assert second.endswith("INFO sweep [bold]frozen features")


def test_time_left_counts_what_runs_and_what_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    made = board()
    assert made.seconds_left() is None
    made.epochs_done, made.began = 14, 0.0
    monkeypatch.setattr("time.monotonic", lambda: 28.0)  # two seconds an epoch
    # ended trials had 10 and 0 epochs: 5 typical; one runs at 4 (1 left), one is to come (5)
    assert made.seconds_left() == pytest.approx(12.0)


def test_while_a_trial_runs_the_time_left_is_not_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = board()
    made.trials = 3
    made.lines["bbbbbbbbbbbb"].epoch = 9  # longer than those that ended
    made.epochs_done, made.began = 19, 0.0
    monkeypatch.setattr("time.monotonic", lambda: 38.0)
    assert made.seconds_left() == pytest.approx(2.0)
    made.lines["bbbbbbbbbbbb"].epoch = 10  # and writes its weights
    assert made.seconds_left() is None


def test_elsewhere_than_on_a_terminal_epochs_are_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = PlainConsole(file=io.StringIO(), width=200)
    with console.kept(), Terminal(board(), console) as terminal:
        console.log_to(tmp_path / "log")
        for seconds in (0, 4, 5, 11, 12):
            now[0] = 100.0 + seconds
            terminal.epoch("bbbbbbbbbbbb")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2 and all(line.startswith("running    bbbbbbbbbbbb") for line in lines)
    assert "of 10 epochs" in lines[0] and "trials ended" in lines[0] and "left" in lines[0]
    assert terminal.board.epochs_done == 5
    assert not (tmp_path / "log").read_text(), "the records have them"


def test_a_setting_is_described_by_what_differs_from_the_defaults() -> None:
    assert describe(TrialConfig()) == "block5, lr 0.0001"
    config = TrialConfig(strategy="head", lr=0.05, optimizer="sgd", momentum=0.85, head="512-64")
    assert describe(config) == "head, lr 0.05, optimizer sgd, momentum 0.85, head 512-64"


def test_durations_are_said_as_people_say_them() -> None:
    said = [duration(seconds) for seconds in (0.42, 12, 200, 3900)]
    assert said == ["0.4 s", "12 s", "3 min 20 s", "1 h 05 min"]


def test_a_run_whose_features_were_all_in_the_store_says_so() -> None:
    facts = dict.fromkeys(frozen_work([]), 0.0) | {
        "saved_multiply_adds": 2e12,
        "shared_images": 60.0,
    }
    assert "2.00 T saved by sharing (all of it was in the store before)" in frozen_work_said(facts)
    assert "; frozen features of 60 images read, 0.0 s waited" in frozen_work_said(facts)
    done = facts | {"frozen_multiply_adds": 1e12, "saved_seconds": 90.0}
    assert (
        "(3.0 times less work, about 1 min 30 s of training time, summed over trials)"
        in frozen_work_said(done)
    )
    ahead = done | {"saved_multiply_adds": -5e11, "saved_seconds": -45.0}
    said = frozen_work_said(ahead)
    assert "0.50 T of them ahead of the epochs that will use them" in said and "less" not in said
