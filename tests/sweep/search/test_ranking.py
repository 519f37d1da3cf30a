"""Which trial is better: one order for what is kept, for the winner, and for the best epoch."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.search.ranking import (
    Standing,
    bar,
    best_row,
    best_so_far,
    leader,
    rank,
    replicates,
    standing_of,
    to_keep,
    winner,
)
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.rows import Asked, Row, Status

VALUES = st.sampled_from([0.1, 0.5, 0.5, 0.9])


def row(epoch: int, val_accuracy: float, val_loss: float = 1.0) -> Row:
    return Row(epoch, 1.0, 0.5, val_loss, val_accuracy, 0.5, 0.5, 1e-3, 1.0, 1.0, 0, "")


def stand(
    trial_id: str,
    accuracy: float,
    status: Status = Status.FINISHED,
    loss: float = 1.0,
    epoch: int = 1,
) -> Standing:
    best = row(epoch, accuracy, loss)
    return Standing(trial_id, trial_id, status, "search", best, Metric.VAL_ACCURACY)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8))
def test_the_best_epoch_has_the_best_value_then_the_lower_loss_then_comes_first(
    curve: list[tuple[float, float]],
) -> None:
    rows = [row(epoch, *values) for epoch, values in enumerate(curve, start=1)]
    best = best_row(rows, Metric.VAL_ACCURACY)
    expected = min(rows, key=lambda r: (-r.val_accuracy, r.val_loss, r.epoch))
    assert best == expected
    lowest = best_row(rows, Metric.VAL_LOSS)
    assert lowest is not None and lowest.val_loss == min(r.val_loss for r in rows)


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_best_so_far_never_gets_worse(curve: list[float]) -> None:
    rows = [row(epoch, value, value) for epoch, value in enumerate(curve, start=1)]
    assert best_so_far(rows, Metric.VAL_ACCURACY) == [
        max(curve[: i + 1]) for i in range(len(curve))
    ]
    assert best_so_far(rows, Metric.VAL_LOSS) == [min(curve[: i + 1]) for i in range(len(curve))]


def test_only_a_finished_trial_of_the_search_can_win() -> None:
    finished = stand("b", 0.8)
    others = [stand("a", 0.95, status) for status in Status if status is not Status.FINISHED]
    replicate = replace(stand("c", 0.99), origin="replicate")
    assert winner([*others, replicate, finished]) == finished
    assert winner([*others, replicate]) is None
    assert winner([]) is None


def test_ties_go_to_the_lower_loss_then_the_earlier_epoch_then_the_smaller_id() -> None:
    standings = [
        stand("d", 0.9, loss=0.3),
        stand("c", 0.9, loss=0.2, epoch=4),
        stand("b", 0.9, loss=0.2, epoch=2),
        stand("a", 0.9, loss=0.2, epoch=2),
    ]
    assert [each.trial_id for each in rank(standings)] == ["a", "b", "c", "d"]


def test_the_winner_is_always_among_those_that_keep_their_weights() -> None:
    standings = [
        stand("pruned", 0.99, Status.PRUNED),
        stand("low", 0.6),
        stand("high", 0.7),
        stand("on", 0.9, Status.RUNNING),
    ]
    assert to_keep(standings, 1) == {"high"}
    assert to_keep(standings, 3) == {"high", "low", "pruned"}


@given(st.permutations([stand(name, 0.5 + number / 20) for number, name in enumerate("abcdefgh")]))
def test_who_ends_behind_the_bar_would_not_have_been_kept(ended: list[Standing]) -> None:
    """Trials end one after another; one that is behind the bar of its moment is not among the best three at the end."""
    holding: list[Standing] = []
    skipped = set()
    for each in ended:
        key = bar(holding, 3)
        if key is not None and each.key > key:
            skipped.add(each.trial_id)
        kept = to_keep([*holding, each], 3)
        holding = [s for s in [*holding, each] if s.trial_id in kept]
    assert {s.trial_id for s in holding} == to_keep(ended, 3)
    assert not skipped & to_keep(ended, 3)


def test_nobody_is_behind_the_bar_before_as_many_trials_of_the_search_finished_as_are_kept() -> (
    None
):
    low, high = stand("low", 0.6), stand("high", 0.8)
    others = [
        stand("pruned", 0.9, Status.PRUNED),
        replace(stand("replicate", 0.9), origin="replicate"),
        replace(stand("audit", 0.9), origin="audit"),
    ]
    assert bar([*others, low], 2) is None
    assert bar([*others, low, high], 2) == low.key
    assert bar([*others, low, high], 1) == high.key


def test_a_trial_stands_at_its_best_epoch_and_nowhere_before_its_first() -> None:
    asked = Asked(settings := TrialConfig(seed=3), 0, "replicate")
    rows = [row(1, 0.6, 0.9), row(2, 0.8, 0.7), row(3, 0.7, 0.4)]
    assert standing_of("a", asked, Status.RUNNING, [], Metric.VAL_ACCURACY) is None
    by_accuracy = standing_of("a", asked, Status.RUNNING, rows, Metric.VAL_ACCURACY)
    by_loss = standing_of("a", asked, Status.RUNNING, rows, Metric.VAL_LOSS)
    assert by_accuracy is not None and by_loss is not None
    assert (by_accuracy.best.epoch, by_accuracy.value, by_accuracy.score) == (2, 0.8, 0.8)
    assert (by_loss.best.epoch, by_loss.value, by_loss.score) == (3, 0.4, -0.4)
    assert by_loss.setting_id == settings.with_seed(0).setting_id
    assert (by_loss.status, by_loss.origin) == (Status.RUNNING, "replicate")


@pytest.mark.parametrize("status", Status)
def test_the_leader_is_the_best_so_far_whatever_becomes_of_it_but_no_audit(status: Status) -> None:
    best, audit = stand("best", 0.9, status), replace(stand("audit", 0.95), origin="audit")
    assert leader([audit, stand("other", 0.8), best]) == best
    assert leader([audit]) is None


# ---------------------------------------------------------------- replicates


def again(setting: str, *accuracies: float, status: Status = Status.FINISHED) -> list[Standing]:
    """Replicates of one setting."""
    return [
        replace(
            stand(f"{setting} {status} {number}", accuracy, status),
            setting_id=setting,
            origin="replicate",
        )
        for number, accuracy in enumerate(accuracies)
    ]


def test_replicates_are_counted_where_two_or_more_ended_by_themselves() -> None:
    standings = [
        *again("two", 0.7, 0.9),
        *again("one and a collapse", 0.7),
        *again("one and a collapse", 0.5, status=Status.COLLAPSED),
        *again("all diverged", 0.5, 0.5, status=Status.DIVERGED),
        *again("one", 0.7),
        *again("one of which the other runs", 0.7),
        *again("one of which the other runs", 0.7, status=Status.RUNNING),
        *again("failed", 0.7, 0.7, status=Status.FAILED),
        replace(stand("x", 0.99), setting_id="two"),  # of the search
        replace(stand("y", 0.99), setting_id="two", origin="audit"),
    ]
    found = replicates(standings)
    assert {key: (len(runs.learned), len(runs.not_learned)) for key, runs in found.items()} == {
        "two": (2, 0),
        "one and a collapse": (1, 1),
        "all diverged": (0, 2),
    }
    assert {key: runs.decide for key, runs in found.items()} == {
        "two": True,
        "one and a collapse": False,
        "all diverged": False,
    }
    assert found["two"].mean == pytest.approx(0.8)


def test_a_flat_replicate_did_not_learn_and_is_in_no_mean() -> None:
    standings = [*again("a", 0.7, 0.9, 0.5), *again("a", 0.5, status=Status.COLLAPSED)]
    flat = standings[2].trial_id
    found = replicates(standings, {flat, standings[3].trial_id, "another"})["a"]
    assert found.learned == tuple(standings[:2]) and found.not_learned == tuple(standings[2:])
    assert found.mean == pytest.approx(0.8)


def test_the_best_replicate_of_the_setting_with_the_best_mean_wins() -> None:
    """Neither the best replicate of all, nor one of a setting of which one alone learned, nor the search's best."""
    steady, wild = again("steady", 0.80, 0.84, 0.82), again("wild", 0.90, 0.70)
    lonely = [*again("lonely", 0.95), *again("lonely", 0.5, status=Status.COLLAPSED)]
    single = stand("single", 0.99)
    assert winner([single, *wild, *steady, *lonely]) == steady[1]
    assert winner([single, *wild, *steady, *lonely], flat={steady[1].trial_id}) == steady[2]
    assert winner([single, *wild, *steady[:1], *lonely]) == wild[0]
    assert winner([single, *lonely]) == single


def test_losses_of_replicates_are_averaged_as_losses() -> None:
    def by_loss(runs: Sequence[Standing], *losses: float) -> list[Standing]:
        return [
            replace(run, metric=Metric.VAL_LOSS, best=row(1, 0.5, loss))
            for run, loss in zip(runs, losses, strict=True)
        ]

    low, high = by_loss(again("low", 0, 0), 0.3, 0.5), by_loss(again("high", 0, 0), 0.2, 0.9)
    assert winner([*high, *low]) == low[0]


ENDS = st.sampled_from([Status.FINISHED, Status.FINISHED, Status.COLLAPSED, Status.RUNNING])
STANDINGS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["search", "replicate"]), VALUES, ENDS),
    max_size=10,
)


@given(STANDINGS, st.randoms(use_true_random=False))
def test_neither_winner_nor_what_is_kept_depends_on_the_order_of_records(
    drawn: list[tuple[str, str, float, Status]], shuffle: Random
) -> None:
    standings = [
        replace(stand(f"t{number}", value, status), setting_id=setting, origin=origin)  # type: ignore[arg-type]
        for number, (setting, origin, value, status) in enumerate(drawn)
    ]
    shuffled = standings.copy()
    shuffle.shuffle(shuffled)
    assert winner(shuffled) == winner(standings) and to_keep(shuffled, 2) == to_keep(standings, 2)


def test_of_each_setting_one_replicate_stays_a_finished_one_before_any_other() -> None:
    good = again("a", 0.7, 0.8)
    bad = again("a", 0.95, status=Status.COLLAPSED)
    only_bad = again("b", 0.5, 0.6, status=Status.DIVERGED)
    waiting = again("c", 0.9, status=Status.INTERRUPTED)
    audit = replace(stand("audit", 0.99), origin="audit")
    kept = to_keep([*bad, *good, *only_bad, *waiting, audit, stand("x", 0.6)], 5)
    assert kept == {good[1].trial_id, only_bad[1].trial_id, "x"}
