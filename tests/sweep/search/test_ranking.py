"""Which trial is better: one order for what is kept, for the winner, and for the best epoch."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sweep.search.ranking import Standing, bar, best_row, best_so_far, rank, to_keep, winner
from trainable.metric import Metric
from trainable.records.rows import Row, Status

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
