"""Successive halving, held against Ray's own scheduler and against what a user fears: losing the best trial."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from sweep.request.config import AshaConfig
from sweep.search.asha import Decision, Rungs, one_arm, survives_rung

SCORES = st.floats(0, 1, allow_nan=False)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, int, list[tuple[int, list[float]]]]:
    """Grace period, reduction factor, epochs, and the order in which trials (number, curve) report."""
    grace = draw(st.integers(1, 3))
    factor = draw(st.integers(2, 4))
    epochs = draw(st.integers(grace + 1, 30))
    trials = draw(st.integers(1, 12))
    values = st.sampled_from([0.1, 0.2, 0.5, 0.5, 0.9]) | SCORES  # ties matter
    curves = [draw(st.lists(values, min_size=epochs, max_size=epochs)) for _ in range(trials)]
    return grace, factor, epochs, list(enumerate(curves))


def turns(count: int, epochs: int, seed: int) -> list[int]:
    """Whose turn it is to report, until everybody has reported every epoch."""
    order = np.repeat(np.arange(count), epochs)
    np.random.default_rng(seed).shuffle(order)
    return [int(who) for who in order]


@given(histories(), st.integers(0, 2**32 - 1))
def test_decisions_equal_those_of_rays_own_scheduler(
    history: tuple[int, int, int, list[tuple[int, list[float]]]], seed: int
) -> None:
    grace, factor, epochs, curves = history
    rungs = Rungs(AshaConfig(grace_period=grace, reduction_factor=factor).rungs(epochs), factor)
    # Ray's rung count is int(log(…)), which can lose its top rung; a max_t far away keeps every rung below ours.
    ray = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="best",
        mode="max",
        max_t=factor**12,
        grace_period=grace,
        reduction_factor=factor,
    )
    trials = {who: SimpleNamespace(trial_id=str(who), status="RUNNING") for who, _ in curves}
    for trial in trials.values():
        ray.on_trial_add(None, trial)
    epoch = dict.fromkeys(trials, 0)
    stopped: set[int] = set()
    for who in turns(len(curves), epochs, seed):
        if (
            who in stopped or epoch[who] == epochs - 1
        ):  # at the last epoch there is nothing left to decide
            continue
        epoch[who] += 1
        best = max(curves[who][1][: epoch[who]])
        theirs = ray.on_trial_result(None, trials[who], {"epoch": epoch[who], "best": best})
        decision = rungs.decide(str(who), epoch[who], best)
        if decision is not None:
            rungs.record(decision)
        ours = decision is not None and decision.verdict == "stop"
        assert ours == (theirs == TrialScheduler.STOP)
        if ours:
            stopped.add(who)


@given(histories(), st.integers(0, 2**32 - 1))
def test_the_best_trial_seen_is_never_pruned(
    history: tuple[int, int, int, list[tuple[int, list[float]]]], seed: int
) -> None:
    grace, factor, epochs, curves = history
    rungs = Rungs(AshaConfig(grace_period=grace, reduction_factor=factor).rungs(epochs), factor)
    epoch = dict.fromkeys(range(len(curves)), 0)
    best_seen = 0.0
    for who in turns(len(curves), epochs, seed):
        epoch[who] += 1
        best = max(curves[who][1][: epoch[who]])
        best_seen = max(best_seen, best)
        decision = rungs.decide(str(who), epoch[who], best)
        if decision is not None:
            rungs.record(decision)
            assert decision.verdict == "go on" or best < best_seen


REPORTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 3, 9]), SCORES))


def by_turns(trial_id: str) -> str:
    """Three arms."""
    return "abc"[int(trial_id) % 3]


@given(REPORTS, st.integers(0, 40), st.sampled_from([one_arm, by_turns]))
def test_replayed_decisions_give_the_same_rungs_wherever_the_driver_died(
    reports: list[tuple[int, int, float]], cut: int, arm_of: Callable[[str], str]
) -> None:
    whole, log = Rungs([1, 3, 9], 3, arm_of), []
    for who, epoch, score in reports:
        decision = whole.decide(str(who), epoch, score)
        if decision is not None:
            whole.record(decision)
            log.append(decision)
    resumed = Rungs([1, 3, 9], 3, arm_of)
    resumed.replay([Decision.from_json(d.to_json()) for d in log[:cut]])
    for decision in log[cut:]:
        again = resumed.decide(decision.trial_id, decision.rung, decision.score)
        assert again == decision
        resumed.record(again)
    assert resumed == whole


@given(REPORTS, st.sets(st.integers(0, 9)))
def test_each_arm_is_decided_as_if_there_were_no_other_and_all_are_counted_together(
    reports: list[tuple[int, int, float]], broken: set[int]
) -> None:
    """Also where trials leave the rungs."""
    together = Rungs([1, 3, 9], 3, by_turns)
    alone = {arm: Rungs([1, 3, 9], 3) for arm in "abc"}
    taken = 0
    for who, epoch, score in reports:
        trial_id = str(who)
        ours = together.decide(trial_id, epoch, score)
        its_own = alone[by_turns(trial_id)]
        theirs = its_own.decide(trial_id, epoch, score)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            taken += 1
            assert ours.sequence == taken
            assert (ours.cutoff, ours.verdict) == (theirs.cutoff, theirs.verdict)
            together.record(ours)
            its_own.record(theirs)
        if who in broken and epoch == 3:
            together.forget(trial_id)
            its_own.forget(trial_id)


def test_a_decision_on_record_is_not_taken_again() -> None:
    rungs = Rungs([1], 2)
    first = rungs.decide("a", 1, 0.4)
    assert first is not None
    rungs.record(first)
    assert rungs.decide("a", 1, 0.9) is None


def test_a_broken_trial_leaves_the_rungs() -> None:
    rungs = Rungs([1], 2)
    for who, score in (("good", 0.6), ("collapsed", 0.9)):
        decision = rungs.decide(who, 1, score)
        assert decision is not None
        rungs.record(decision)
    rungs.forget("collapsed")
    decision = rungs.decide("next", 1, 0.7)
    assert decision is not None and decision.verdict == "go on"


def test_a_decision_that_no_later_one_is_compared_with_still_counts() -> None:
    """At a rung that a run has no longer, or with a score that is none: it was the fifth all the same."""
    rungs = Rungs([3], 2)
    for rung, score in ((9, 0.5), (3, float("nan"))):
        rungs.record(Decision(5, "a", rung, score, None, "go on"))
        assert rungs.recorded == {3: {}}
        following = rungs.decide("b", 3, 0.1)
        assert following == Decision(6, "b", 3, 0.1, None, "go on")


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), float("inf")])
def test_a_score_that_is_not_finite_stops_even_the_first_trial(score: float) -> None:
    assert not survives_rung(score, [], 3)


def test_no_rung_is_lost_where_rays_logarithm_loses_one() -> None:
    assert AshaConfig(grace_period=1, reduction_factor=3).rungs(244) == [1, 3, 9, 27, 81, 243]
    assert AshaConfig(grace_period=1, reduction_factor=10).rungs(1001) == [1, 10, 100, 1000]
    assert AshaConfig(grace_period=1, reduction_factor=2).rungs(10) == [1, 2, 4, 8]
    assert AshaConfig(grace_period=2, reduction_factor=3).rungs(2) == []
