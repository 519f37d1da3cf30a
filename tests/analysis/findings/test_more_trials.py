"""Expected best validation against the number of trials, per strategy."""

from itertools import product
from pathlib import Path

import pytest

from analysis.findings.more_trials import MoreTrials, Strategy, expected_best, more_trials
from tests.support.analysis_runs import Made, make_run
from trainable.metric import Metric
from trainable.records.rows import Status


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_the_expected_best_is_that_of_all_draws_with_replacement(trials: int) -> None:
    values = [0.91, 0.85, 0.97, 0.85]
    draws = [max(drawn) for drawn in product(values, repeat=trials)]
    assert expected_best(values, trials) == pytest.approx(sum(draws) / len(draws))


def test_full_trials_of_a_strategy_are_counted_and_pruned_ones_are_not(tmp_path: Path) -> None:
    block5 = [Made({"strategy": "block5", "lr": lr}) for lr in (1e-3, 2e-3, 3e-3, 4e-3)]
    head = [Made({"strategy": "head", "lr": lr}) for lr in (1e-3, 2e-3)]
    pruned = Made({"strategy": "block5", "lr": 5e-3}, Status.PRUNED, 1, "below")
    (found,) = more_trials(make_run(tmp_path, [*block5, *head, pruned], epochs=1)).each
    assert (found.strategy, found.trials, found.pruned) == ("block5", 4, 1)
    assert list(found.best) == [2, 4] or list(found.best) == [1, 2, 4]


def test_what_the_last_doubling_brought_decides_what_is_said() -> None:
    best = {2: 0.90, 4: 0.91, 8: 0.912}
    (little,) = MoreTrials(Metric.VAL_ACCURACY, (Strategy("head", 8, 0, best),)).said()
    assert "going from 4 to 8 gained +0.20" in little and "hardly have helped" in little
    (much,) = MoreTrials(Metric.VAL_ACCURACY, (Strategy("head", 8, 3, best | {8: 0.92}),)).said()
    assert "more trials could help" in much and "survivors: ASHA stopped 3 others" in much


def test_of_a_loss_the_curve_is_said_and_no_verdict_since_what_is_little_depends_on_its_size() -> (
    None
):
    best = {2: 0.41, 4: 0.384, 8: 0.3725}
    (text,) = MoreTrials(Metric.VAL_LOSS, (Strategy("head", 8, 1, best),)).said()
    assert text == (
        "with head, the expected best of 2 trials that were not pruned is 0.4100, of 4 it is 0.3840, of 8 it is 0.3725 "
        "(survivors: ASHA stopped 1 other)"
    )
