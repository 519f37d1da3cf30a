"""How much of the winner's value is luck of being chosen: against simulations whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from analysis.findings.excess import Models, chosen_among, excess_of_best
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot
from analysis.statistics import wilson, wilson_of_proportion
from tests.support.analysis_runs import copy_of
from trainable.metric import Metric


def equals(draw: np.random.Generator, trials: int, epochs: int, images: int) -> Models:
    """Models of 90 % that share four fifths of what makes an image hard."""
    image = draw.normal(0, 0.8**0.5, images)
    own = draw.normal(0, 0.2**0.5, (trials * epochs, images))
    return Models(image + own < norm.ppf(0.9), np.repeat(np.arange(trials), epochs))


def test_of_equal_models_the_excess_is_what_the_best_is_above_the_truth() -> None:
    draw = np.random.default_rng(0)
    real, found, held = [], [], 0
    for _ in range(25):
        models = equals(draw, 12, 4, 200)
        printed = float(models.right.mean(axis=1).max())
        excess = excess_of_best(models, printed)
        real.append(printed - 0.9)
        found.append(excess.excess)
        held += excess.interval.low <= 0.9 <= excess.interval.high
    assert np.mean(found) == pytest.approx(np.mean(real), abs=0.008)
    assert held >= 23


def test_one_model_was_not_chosen_and_keeps_its_interval() -> None:
    models = equals(np.random.default_rng(1), 1, 1, 300)
    printed = float(models.right.mean())
    found = excess_of_best(models, printed)
    plain = wilson(int(models.right.sum()), 300)
    assert found.excess < 0.002
    assert found.interval.low == pytest.approx(plain.low, abs=0.003)
    assert found.interval.high == pytest.approx(plain.high, abs=0.003)


def test_copies_of_one_model_are_no_choice() -> None:
    one = equals(np.random.default_rng(1), 1, 1, 300)
    copies = Models(np.repeat(one.right, 5, axis=0), np.arange(5))
    printed = float(one.right.mean())
    assert excess_of_best(copies, printed) == excess_of_best(one, printed)


def test_a_model_far_behind_changes_nothing() -> None:
    models = equals(np.random.default_rng(2), 3, 4, 400)
    poor = np.random.default_rng(3).random((1, 400)) < 0.5
    more = Models(np.concatenate([models.right, poor]), np.append(models.trial, 3))
    printed = float(models.right.mean(axis=1).max())
    assert excess_of_best(more, printed) == excess_of_best(models, printed)


def test_where_classes_are_of_one_size_balanced_accuracy_has_the_same_excess() -> None:
    models = equals(np.random.default_rng(4), 8, 3, 400)
    labels = np.random.default_rng(5).permutation(np.repeat([0, 1], 200))
    printed = float(models.right.mean(axis=1).max())
    plain, balanced = excess_of_best(models, printed), excess_of_best(models, printed, labels)
    assert balanced.excess == pytest.approx(plain.excess, abs=0.002)
    assert balanced.interval.low == pytest.approx(plain.interval.low, abs=0.003)


def test_where_replicates_decide_the_setting_is_chosen_by_its_mean() -> None:
    """Setting 0 has the best single run and the lower mean: by its mean setting 1 is chosen on nearly every draw."""
    draw = np.random.default_rng(6)
    right = np.stack([draw.random(2_000) < share for share in (0.97, 0.7, 0.92, 0.92)])
    trial = np.arange(4)
    by_mean = excess_of_best(Models(right, trial, np.array([0, 0, 1, 1])), right[2:].mean())
    by_best = excess_of_best(Models(right, trial), right[0].mean())
    assert by_mean.corrected == pytest.approx(0.92, abs=0.01)
    assert by_best.corrected == pytest.approx(right[0].mean(), abs=0.002)


@pytest.mark.parametrize(("right", "images"), [(0, 8), (8, 8), (180, 200), (2_999, 3_000)])
def test_wilsons_interval_of_a_share_is_that_of_its_count(right: int, images: int) -> None:
    share = right / images
    found, expected = (
        wilson_of_proportion(share, share * (1 - share) / images, images),
        wilson(right, images),
    )
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    wide = wilson_of_proportion(share, 0.01, images)
    assert 0 <= wide.low <= share <= wide.high <= 1


def test_every_epoch_of_every_trial_of_the_search_was_a_candidate(run: Path) -> None:
    read = Snapshot.of(run)
    found = chosen_among(read, select(read))
    assert found is not None and found.excess is not None
    assert found.trials == sum(len(trial.epochs) > 0 for trial in read.trials)
    assert found.models + found.out_of_reach == sum(len(trial.epochs) for trial in read.trials)
    assert (found.best_epochs_only, found.unknown) == (0, 0)
    assert found.excess.printed == select(read).winner.value  # type: ignore[union-attr]
    (text,) = found.said()
    assert "is too high by about" in text


def test_a_run_without_bits_says_what_is_not_known(run: Path) -> None:
    for path in run.glob("trials/*/right.bits"):
        path.unlink()
    read = Snapshot.of(run)
    found = chosen_among(read, select(read))
    assert found is not None and found.excess is not None
    assert found.best_epochs_only > 0 and found.models == found.best_epochs_only
    assert "so the true excess is larger" in list(found.said())[-1]


def test_a_winner_by_area_has_no_excess_from_right_and_wrong(run: Path) -> None:
    read = Snapshot.of(run)
    found = chosen_among(read, replace(select(read), metric=Metric.VAL_AUC))
    assert found is not None and found.excess is None
    assert "by how much is not known" in " ".join(found.said())


def test_copies_of_a_run_have_the_same_excess(run: Path, tmp_path: Path) -> None:
    """Draws are fixed: every command prints the same figure."""
    found = [
        chosen_among(read, select(read))
        for read in map(Snapshot.of, (run, copy_of(run, tmp_path / "again")))
    ]
    assert found[0] == found[1]
