"""What is said of ASHA, held against simulated searches whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.findings.pruning import pruning_of
from analysis.frames.snapshot import Snapshot
from benchmarks.pruning import (
    EPOCHS,
    RULES,
    SITUATIONS,
    TRIALS,
    looks_too_short,
    regret_of,
    search,
    train,
)
from tests.support.analysis_runs import PRUNED, SGD, make_run
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord


def test_without_pruning_every_trial_finishes_and_the_best_by_validation_wins() -> None:
    trials = train(np.random.default_rng(0), SITUATIONS["equal"], 50)
    found = search(np.random.default_rng(1), trials, RULES["no pruning"])
    assert found.epochs == (EPOCHS,) * TRIALS and sorted(found.finished) == list(range(TRIALS))
    assert trials.validation[found.winner(trials)].max() == trials.validation.max()


def test_accuracies_on_drawn_images_are_the_true_ones_but_for_the_draw() -> None:
    trials = train(np.random.default_rng(0), SITUATIONS["crossing at 6"], 20_000)
    assert np.abs(trials.validation - trials.accuracy).max() < 5 * (0.25 / 20_000) ** 0.5


@pytest.mark.parametrize("rule", ["ASHA, best kept", "ASHA, rungs apart"])
def test_the_best_kept_or_rungs_of_its_own_leave_a_finisher_of_each_strategy_that_learns(
    rule: str,
) -> None:
    situation = replace(SITUATIONS["crossing at 6"], curvature=0.0)
    for seed in range(5):
        trials = train(np.random.default_rng(seed), situation, 50)
        found = search(np.random.default_rng(seed), trials, RULES[rule])
        assert {trials.strategies[place] for place in found.finished} == {"head", "block5"}
        assert regret_of(trials, found) >= 0


def test_what_is_kept_beside_asha_s_own_costs_epochs() -> None:
    situation = replace(SITUATIONS["crossing at 6"], curvature=0.0)
    for seed in range(5):
        trials = train(np.random.default_rng(seed), situation, 50)
        plain, found = (
            search(np.random.default_rng(seed), trials, RULES[rule])
            for rule in ("ASHA", "ASHA, best kept")
        )
        assert sum(plain.epochs) <= sum(found.epochs)


def test_where_a_loss_decides_an_audit_is_better_by_its_loss_and_by_how_much_is_accuracy(
    tmp_path: Path,
) -> None:
    """No predictions of the audit are on record, so that no test over images decides."""
    run = RunFolder(make_run(tmp_path, [SGD, PRUNED], epochs=1, metric="val_loss"))
    best, stopped = run.trials()
    audited = TrialRecord.create(run, stopped.asked.settings, 9, 1, "audit")
    (row,) = best.rows()
    best.cut(0)
    best.append(replace(row, val_accuracy=0.5))
    for loss, accuracy, better, ahead in (
        (-0.1, 0.25, {stopped.trial_id: 0.25}, 0),
        (-0.1, -0.25, {}, 0),
        (-0.1, 0.004, {}, 1),  # less than half a point
        (0.1, 0.25, {}, 0),
    ):
        audited.cut(0)
        audited.append(replace(row, val_loss=row.val_loss + loss, val_accuracy=0.5 + accuracy))
        audited.write_status(replace(audited.status(), status=Status.FINISHED))
        found = pruning_of(Snapshot.of(run.path)).audit
        assert found is not None and (dict(found.better), found.ahead) == (better, ahead)


@pytest.mark.slow
def test_with_equal_settings_the_grace_period_is_called_too_short_in_at_most_one_run_of_twenty() -> (
    None
):
    """After an audit of every pruned trial, at 3,000 images and at 200."""
    for images, runs in ((200, 100), (3_000, 60)):
        said = 0
        for seed in range(runs):
            trials = train(np.random.default_rng((1, seed)), SITUATIONS["equal"], images)
            found = search(np.random.default_rng((2, seed)), trials, RULES["ASHA"])
            said += looks_too_short(trials, found)
        assert said <= 0.05 * runs, (images, said)
