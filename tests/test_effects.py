"""What mattered is found where it was planted, and nowhere else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.effects import effects_of, weights_of
from analysis.effects.verdicts import Verdict
from analysis.learned import flat_until
from analysis.snapshot import Snapshot
from analysis.snapshot.rights import validation_labels
from sweep.config import check_config
from sweep.prepare import prepare
from sweep.proposals import Proposals
from sweep.run_folder import open_session
from sweep.study import recorded
from tests.conftest import Faces, sweep_facts
from tests.made_runs import create_run
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.record import RunFolder, TrialRecord
from trainable.right import append_right
from trainable.rows import Row, Status

EPOCHS = 3
SPACE = {
    "strategy": ["head", "block5"],
    "augmentation": ["none", "flip"],
    "lr": {"loguniform": [1e-5, 1e-2]},
    "epochs": EPOCHS,
}


def value(settings: TrialConfig, noise: float) -> float:
    """Block 5 is worth ten points and each decade of the rate two; augmentation nothing."""
    best = 0.7 + 0.1 * (settings.strategy == "block5") + 0.02 * (np.log10(settings.lr) + 5)
    return float(best + noise)


@pytest.fixture
def run(faces: Faces, tmp_path: Path, own_store: Path) -> Path:
    """Forty random trials, each better in its last epoch than before."""
    facts = sweep_facts(faces, tmp_path, SPACE, search={"method": "random", "trials": 40})
    config = check_config(facts, {}, "test")
    run = create_run(config, prepare(config), [])
    open_session(run, session := 1)
    draw = np.random.default_rng(0)
    while proposed := Proposals(config).next([recorded(r, config.metric) for r in run.trials()]):
        number, settings = proposed
        record = TrialRecord.create(run, settings, number, session)
        final = value(settings, draw.normal(0, 0.005))
        for epoch in range(1, EPOCHS + 1):
            reached = final - 0.05 * (EPOCHS - epoch)
            record.append(
                Row(
                    epoch,
                    0.5,
                    reached + 0.03 * epoch,
                    0.5,
                    reached,
                    reached,
                    0.8,
                    settings.lr,
                    1.0,
                    9.0,
                    0,
                    "",
                )
            )
        record.write_status(replace(record.status(), status=Status.FINISHED))
    return run.path


def test_what_matters_is_told_from_what_does_not(run: Path) -> None:
    found = effects_of(run)
    by_name = {effect.name: effect for effect in found.at_the_end_or_first.effects}
    strategy, augmentation = by_name["strategy"], by_name["augmentation"]
    assert (strategy.first, strategy.second) == ("block5", "head")
    assert strategy.verdict is Verdict.BETTER and strategy.p_holm < 0.001
    assert strategy.low < 0.1 < strategy.high
    assert augmentation.verdict is Verdict.NO_DIFFERENCE
    (rate,) = found.mattered.trends
    assert rate.is_claimed and rate.best == pytest.approx(rate.high)
    said = "\n".join(found.said())
    assert "after 3 epochs on these images strategy block5 is ahead of head by" in said
    assert "augmentation" in said and "no difference larger than 1" in said
    assert found.mattered_most() == next(iter(found.said()))


def test_the_edge_and_the_range_to_try_next(run: Path) -> None:
    """The best rates are the highest."""
    (edge,) = effects_of(run).edges
    assert (edge.name, edge.low, edge.high) == ("lr", 1e-5, 1e-2)
    assert (edge.next_low, edge.next_high) == pytest.approx((10**-3.5, 10**-0.5))
    assert any("try 0.000316 to 0.316 next" in text for text in effects_of(run).said())


def test_curves_that_still_rise_and_the_gap_are_counted(run: Path) -> None:
    endings = effects_of(run).endings
    assert endings.finished == 40 and endings.rise is not None
    assert endings.rise.slope == pytest.approx(0.05) and endings.rise.is_seen
    assert endings.gap_best == pytest.approx(0.09) and endings.gap_last == pytest.approx(0.09)
    assert any("--epochs" in text for text in effects_of(run).said())


def test_a_run_with_hardly_any_trial_says_hardly_anything(run: Path) -> None:
    for record in RunFolder(run).trials()[1:]:
        record.write_status(replace(record.status(), status=Status.FAILED))
        (record.folder / "epochs.jsonl").unlink()
    found = effects_of(run)
    assert found.mattered.effects == () and found.mattered_most() is None
    json.dumps(found.to_json(), allow_nan=False)


def with_bits(run: Path) -> int:
    """Every accuracy becomes one that the validation images can give, and its bits are written; how many images."""
    images = len(validation_labels(Snapshot.of(run)))
    for record in RunFolder(run).trials():
        rows = record.rows()
        counts = [round(row.val_accuracy * images) for row in rows]
        record.cut(0)
        for row, count in zip(rows, counts, strict=True):
            append_right(record.right, row.epoch, np.arange(images) < count)
            record.append(replace(row, val_accuracy=count / images))
    return images


def test_with_the_bits_on_record_images_count_and_without_them_it_is_on_these_images(
    run: Path,
) -> None:
    with_bits(run)
    found = effects_of(run).mattered
    assert found.with_images
    assert not any("on these images" in text for text in effects_of(run).said())
    next(iter(RunFolder(run).trials())).right.unlink()
    older = effects_of(run).mattered
    assert not older.with_images
    assert any("on these images" in text for text in effects_of(run).said())
    before, after = ({e.name: e for e in each.effects}["strategy"] for each in (found, older))
    assert before.difference == pytest.approx(after.difference)


def test_weights_make_the_mean_over_images_the_metric() -> None:
    from sklearn.metrics import balanced_accuracy_score

    draw = np.random.default_rng(0)
    labels, predicted = (draw.random(200) < 0.2).astype(int), (draw.random(200) < 0.3).astype(int)
    right = labels == predicted
    balanced = (weights_of(labels, Metric.VAL_BALANCED_ACCURACY) * right).mean()
    assert balanced == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert (weights_of(labels, Metric.VAL_ACCURACY) * right).mean() == pytest.approx(right.mean())


def test_so_few_images_that_any_area_may_be_chance_call_no_trial_flat() -> None:
    assert flat_until(2, 2) == 0
    assert 0.5 < flat_until(100, 100) < 0.65


def test_the_end_is_compared_once_every_stopped_trial_was_audited(run: Path) -> None:
    folder = RunFolder(run)
    stopped = folder.trials()[:2]
    ends = [record.rows() for record in stopped]
    for record in stopped:
        record.cut(1)
        record.write_status(replace(record.status(), status=Status.PRUNED))
    found = effects_of(run)
    assert found.mattered.moment.epoch == 1 and found.at_the_end is None
    assert any("isn't known" in text for text in found.said())
    for record, rows in zip(stopped, ends, strict=True):
        assert effects_of(run).at_the_end is None
        audit = TrialRecord.create(
            folder, record.origin.settings, 100 + record.origin.number, 1, "audit"
        )
        for row in rows:
            audit.append(row)
        audit.write_status(replace(audit.status(), status=Status.FINISHED))
    found = effects_of(run)
    assert found.at_the_end is not None and found.at_the_end.trials == 40
    assert "after 3 epochs" in str(found.mattered_most())
    assert not any("isn't known" in text for text in found.said())
