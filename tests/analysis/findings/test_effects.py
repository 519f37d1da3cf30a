"""What mattered is found where it was planted, and nowhere else."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.findings.effects import effects_of, weights_of
from analysis.findings.effects.claims import Verdict
from analysis.frames.learned import flat_until
from analysis.frames.snapshot import Snapshot
from analysis.frames.snapshot.rights import validation_labels
from analysis.pages.report.conclusions import Conclusions
from analysis.pages.report.summary import summary
from sweep.request.config import check_config
from sweep.request.prepare import prepare
from sweep.search.proposals import Proposals
from sweep.search.study import recorded
from sweep.session.audit import draw
from sweep.session.sessions import open_session
from tests.support.analysis_runs import copy_of
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.right import append_right
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

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


@pytest.fixture(scope="module")
def forty(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty random trials, each better in its last epoch than before. Not to be written to."""
    folder = tmp_path_factory.mktemp("forty")
    facts = sweep_facts(faces, folder, SPACE, search={"method": "random", "trials": 40})
    config = check_config(facts, {}, "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_STORE", str(folder / "store"))
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


@pytest.fixture
def run(forty: Path, tmp_path: Path, own_store: Path) -> Path:
    """A copy of `forty`, the test's own."""
    return copy_of(forty, tmp_path / "run")


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
    assert "after 3 epochs on these images, strategy block5 is ahead of head by" in said
    assert "augmentation" in said and "no difference larger than 1" in said
    assert found.mattered_most() == next(iter(found.said()))
    assert found.mattered_most() in summary(Conclusions.of(Snapshot.of(run)), "")


def test_the_edge_and_the_range_to_try_next(run: Path) -> None:
    """The best rates are the highest."""
    (edge,) = effects_of(run).edges
    assert (edge.name, edge.low, edge.high) == ("lr", 1e-5, 1e-2)
    assert (edge.next_low, edge.next_high) == pytest.approx((10**-3.5, 10**-0.5))
    assert any("try 0.00032 to 0.32 next" in text for text in effects_of(run).said())


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


def stop(record: TrialRecord) -> list[Row]:
    """As ASHA does, at the first rung; the rows that its audit will have."""
    rows = record.rows()
    record.cut(1)
    record.write_status(replace(record.status(), status=Status.PRUNED))
    return rows


def audit(folder: RunFolder, stopped: TrialRecord, rows: list[Row]) -> None:
    settings, number = stopped.asked.settings, 100 + stopped.asked.number
    record = TrialRecord.create(folder, settings, number, 1, "audit")
    for row in rows:
        record.append(row)
    record.write_status(replace(record.status(), status=Status.FINISHED))


def test_the_end_is_compared_once_every_stopped_trial_was_audited(run: Path) -> None:
    folder = RunFolder(run)
    stopped = folder.trials()[:2]
    ends = [stop(record) for record in stopped]
    found = effects_of(run)
    assert found.mattered.moment.epoch == 1 and found.at_the_end is None
    assert any("is not known" in text for text in found.said())
    for record, rows in zip(stopped, ends, strict=True):
        assert effects_of(run).at_the_end is None
        audit(folder, record, rows)
    found = effects_of(run)
    assert found.at_the_end is not None and found.at_the_end.trials == 40
    assert "after 3 epochs" in str(found.mattered_most())
    said = list(found.said())
    assert (
        "every pruned trial was run to its end by an audit, so the end of training can be compared too"
        in said
    )
    assert not any("is not known" in text for text in said)
    broken = next(t for t in folder.trials() if t.status().status is Status.FINISHED)
    broken.write_status(replace(broken.status(), status=Status.COLLAPSED))
    said = list(effects_of(run).said())
    assert sum("1 trial did not learn" in text for text in said) == 1, "not of each moment anew"


def weighted_lead(folder: RunFolder, pruned: Mapping[str, str]) -> float:
    """Of block5 over head by statsmodels; `pruned` are trial → strategy."""
    from statsmodels.regression.linear_model import WLS

    there = Counter(pruned.values())
    rows, values, weights = [], [], []
    for record in folder.trials():
        settings, audited = record.asked.settings, record.asked.origin == "audit"
        if record.trial_id not in pruned:
            rate = np.log10(settings.lr)
            flip, block5 = settings.augmentation == "flip", settings.strategy == "block5"
            rows.append([1, block5, flip, rate, rate**2])
            values.append(max(row.val_accuracy for row in record.rows()))
            weights.append(there[settings.strategy] / 6 if audited else 1)
    return float(WLS(values, np.array(rows, float), weights=weights).fit().params[1])


def test_six_audits_of_each_strategy_speak_for_all_that_were_stopped(run: Path) -> None:
    """Of each strategy the worst are stopped: those that finished alone would say too much of it."""
    folder, ends = RunFolder(run), dict[str, tuple[TrialRecord, list[Row]]]()
    arms: dict[str, list[TrialRecord]] = {}
    for record in folder.trials():
        arms.setdefault(record.asked.settings.strategy, []).append(record)
    for strategy, count in (("block5", 15), ("head", 7)):
        worst = sorted(arms[strategy], key=lambda record: record.rows()[-1].val_accuracy)
        ends |= {record.trial_id: (record, stop(record)) for record in worst[:count]}
    assert any("; `sweep extend RUN --audit 12` runs" in text for text in effects_of(run).said())
    strategies = {name: record.asked.settings.strategy for name, (record, _) in ends.items()}
    *drawn, last = draw(strategies, (), 12, seed=0)
    for name in drawn:
        audit(folder, *ends[name])
    found = effects_of(run)
    assert found.at_the_end is None
    assert any("; `sweep extend RUN --audit 1` runs" in text for text in found.said())
    audit(folder, *ends[last])
    found = effects_of(run)
    assert found.at_the_end is not None and found.at_the_end.trials == 18 + 12
    assert (
        "12 of 22 pruned trials were run to their ends by audits, drawn at random within each strategy, so the "
        "end of training can be compared too; each stands for "
    ) in "\n".join(found.said())
    assert {found.audited.stands_for("block5"), found.audited.stands_for("head")} == {15 / 6, 7 / 6}
    (effect,) = (e for e in found.at_the_end.effects if e.name == "strategy")
    assert effect.verdict is Verdict.BETTER and effect.pairs == (0, 0)
    assert effect.difference == pytest.approx(weighted_lead(folder, strategies))
    assert not any("is not known" in text for text in found.said())
    assert "pairs" not in str(found.mattered_most())
    json.dumps(found.to_json(), allow_nan=False)


def test_of_a_search_under_way_audits_do_not_tell_the_end(run: Path) -> None:
    """What ASHA lets go on ends after what it stops."""
    folder = RunFolder(run)
    goes_on, *others = folder.trials()
    for record in others[:3]:
        audit(folder, record, stop(record))
    assert effects_of(run).at_the_end is not None
    goes_on.cut(2)
    goes_on.write_status(replace(goes_on.status(), status=Status.RUNNING))
    found = effects_of(run)
    assert found.at_the_end is None
    assert any(
        text.endswith("trials that have not ended yet, or failed, would show it")
        for text in found.said()
    )
