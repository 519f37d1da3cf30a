"""Conclusions are true where the truth is known: simulated searches, a few of what benchmarks/conclusions.py runs."""

import numpy as np
import pytest

from analysis.statistics import wilson
from benchmarks import conclusions
from benchmarks.conclusions import RANDOM, SLOW, Found, Mean, Setup, search
from trainable.records.rows import Status


def fits(found: Found) -> bool:
    """Is the figure one that so many runs may give where the goal is reached?"""
    if isinstance(found, Mean):
        return found.low - 3 * found.error <= found.mean <= found.high + 3 * found.error
    ends = wilson(found.times, found.runs)
    return found.holds or (found.at_least <= ends.high and ends.low <= found.at_most)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "runs"),
    [("one_point", 15), ("slow", 15), ("ends", 8), ("collapse", 10), ("flat_curves", 200)],
)
def test_what_is_said_is_true_as_often_as_it_should_be(part: str, runs: int) -> None:
    for found in conclusions.PARTS[part](range(1000, 1000 + runs)):
        assert fits(found), found.said()


@pytest.mark.slow
def test_nothing_is_claimed_of_equal_settings() -> None:
    claimed = [
        bool(conclusions.claims(search(Setup(**RANDOM, images=200), s).mattered()))
        for s in range(40)
    ]
    assert wilson(sum(claimed), len(claimed)).low <= 0.07


def test_a_simulated_search_is_stopped_as_asha_does_and_ends() -> None:
    found = search(Setup(SLOW, images=100, asha=(2, 2), **RANDOM), 0)
    ran = {status: {t.epochs for t in found.trials if t.status is status} for status in Status}
    assert ran[Status.FINISHED] == {conclusions.EPOCHS} and ran[Status.PRUNED] <= {2, 4}
    assert len(found.trials) == 24 and not ran[Status.RUNNING]


def test_six_trials_of_each_strategy_are_audited_and_stand_for_all_that_were_stopped() -> None:
    found = search(Setup(SLOW, images=100, asha=(2, 2), **RANDOM), 0)
    audited = found.audited()
    assert {trial.epochs for trial in audited.trials if not trial.collapses} == {conclusions.EPOCHS}
    for strategy in ("head", "block5"):
        stopped = [t for t in found.pruned().values() if t.settings.strategy == strategy]
        drawn = [t for t in audited.trials if t.settings in [each.settings for each in stopped]]
        assert len(drawn) == min(6, len(stopped))
        assert sum(t.stands_for for t in drawn) == pytest.approx(len(stopped))
    assert len(found.audited(every=True).trials) == len(found.trials)


def test_simulated_trials_are_right_as_often_as_their_truth() -> None:
    images = conclusions.Images(np.random.default_rng(0), 20_000)
    right = images.right("head", np.array([0.7, 0.9]))
    assert right.mean(axis=1) == pytest.approx([0.7, 0.9], abs=0.02)
    assert (right[0] & ~right[1]).mean() < 0.02  # an easy image stays easy
