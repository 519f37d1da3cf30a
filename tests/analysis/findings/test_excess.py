"""How much of the winner's value is luck of being chosen: against simulations whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score

from analysis.findings.excess import Models, chosen_among, excess_of_best
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot
from analysis.frames.snapshot.rights import validation_labels
from analysis.statistics import wilson, wilson_of_proportion
from analysis.wording import counted
from benchmarks.read import write_run
from tests.support.analysis_runs import copy_of
from tests.support.manifests import ask_instead, edit_manifest
from trainable.metric import Metric
from trainable.records.files import sha256_of
from trainable.records.right import append_right, read_right
from trainable.records.run_folder import RunFolder


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
    assert found.excess is not None
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
    assert found.excess is not None
    assert found.best_epochs_only > 0 and found.models == found.best_epochs_only
    assert "so the true excess is larger" in list(found.said())[-1]


def test_a_trial_whose_predictions_are_damaged_is_unknown_and_the_others_still_count(
    run: Path,
) -> None:
    for path in run.glob("trials/*/right.bits"):
        path.unlink()
    whole = chosen_among(Snapshot.of(run), select(run))
    winner = select(run).winner
    assert winner is not None
    damaged = next(p for p in run.glob("trials/*/best-*") if winner.trial_id not in str(p))
    damaged.with_suffix(".parquet").write_bytes(b"damaged")
    found = chosen_among(Snapshot.of(run), select(run))
    assert found.models == whole.models - 1
    assert (found.best_epochs_only, found.unknown) == (whole.models - 1, whole.unknown + 1)
    known, unknown = counted(found.models, "trial"), counted(found.unknown, "trial")
    assert list(found.said())[-1] == (
        f"for {known} only the best epoch's results per image are on record and for {unknown} no results per image "
        "are on record, so the true excess is larger"
    )


def by_metric(folder: Path, metric: Metric) -> Snapshot:
    """Eight trials of two epochs on 1,000 images, one of ten in class 1; the first trial is far behind."""
    write_run(folder, 8, 2, 1_000)
    run = RunFolder(folder)
    split = pd.read_parquet(run.split)
    split.assign(label=(split.index % 10 == 0).astype(int)).to_parquet(run.split, index=False)
    edit_manifest(run, lambda facts: facts["digests"].update(split=sha256_of(run.split)))
    labels = validation_labels(Snapshot.of(folder))
    ask_instead(run, run.config.read_text().replace("metric: val_accuracy", f"metric: {metric}"))
    for place, record in enumerate(run.trials()):
        right = read_right(record.right, 2, len(labels))
        assert right is not None
        if place == 0:
            right &= np.arange(1_000) % 4 == 0
        rows = record.rows()
        record.cut(0)
        for row, mine in zip(rows, right, strict=True):
            append_right(record.right, row.epoch, mine)
            balanced = float(balanced_accuracy_score(labels, np.where(mine, labels, 1 - labels)))
            record.append(
                replace(row, val_accuracy=float(mine.mean()), val_balanced_accuracy=balanced)
            )
    return Snapshot.of(folder)


@pytest.mark.parametrize("metric", [Metric.VAL_ACCURACY, Metric.VAL_BALANCED_ACCURACY])
def test_epochs_out_of_reach_are_left_out_and_nothing_is_lost_by_it(
    metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = by_metric(tmp_path / "run", metric)
    found = chosen_among(read, select(read))
    assert found.metric is metric and 2 <= found.out_of_reach < 16
    assert found.models + found.out_of_reach == 16 and found.unknown == 0
    monkeypatch.setattr("analysis.findings.excess.OUT_OF_REACH", np.inf)
    every = chosen_among(read, select(read))
    assert every.models == 16 and every.excess == found.excess is not None


def test_a_winner_by_area_has_no_excess_from_right_and_wrong(run: Path) -> None:
    read = Snapshot.of(run)
    found = chosen_among(read, replace(select(read), metric=Metric.VAL_AUC))
    assert found.excess is None
    assert "by how much is not known" in " ".join(found.said())


def test_copies_of_a_run_have_the_same_excess(run: Path, tmp_path: Path) -> None:
    """Draws are fixed: every command prints the same figure."""
    found = [
        chosen_among(read, select(read))
        for read in map(Snapshot.of, (run, copy_of(run, tmp_path / "again")))
    ]
    assert found[0] == found[1]
