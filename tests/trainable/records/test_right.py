"""Which validation images were right is on record for every epoch, and never of other epochs or images than it says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st

from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.frames.snapshot.rights import rights_of, validation_labels
from tests.support.analysis_runs import copy_of, template
from tests.support.bench import Bench
from tests.whole.test_old_runs import STATES, OldRun
from trainable import fit as fit_module
from trainable.config import TrialConfig
from trainable.data import open_training_data
from trainable.fit import fit
from trainable.network.model import load_backbone
from trainable.records.right import append_right, read_right
from trainable.records.rows import Status

CONFIG = TrialConfig(head="16", lr=0.01, batch_size=6, augmentation="flip_jitter", dropout=0.3)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return copy_of(template(tmp_path_factory.getbasetemp()), tmp_path / "run")


def read(
    run: Path,
) -> tuple[Snapshot, list[tuple[ReadTrial, "np.ndarray[tuple[int, int], np.dtype[np.bool_]]"]]]:
    """A run, and each of its trials with an epoch beside what it got right."""
    found = Snapshot.of(run)
    images = len(validation_labels(found))
    pairs = [(trial, rights_of(trial, images)) for trial in found.trials if len(trial.epochs)]
    return found, [(trial, right) for trial, right in pairs if right is not None]


# ---------------------------------------------------------------- what is written


def test_the_share_of_images_right_is_the_accuracy_of_every_row(run: Path) -> None:
    found, trials = read(run)
    with_epochs = [trial for trial in found.trials if len(trial.epochs)]
    assert [trial for trial, _ in trials] == with_epochs
    assert Status.PRUNED in {trial.status().status for trial, _ in trials}
    for trial, right in trials:
        assert list(right.mean(axis=1)) == [row.val_accuracy for row in trial.rows()]


def test_the_mean_over_classes_is_the_balanced_accuracy_of_every_row(run: Path) -> None:
    found, trials = read(run)
    labels = validation_labels(found)
    for trial, right in trials:
        recalls = [right[:, labels == each].mean(axis=1) for each in (0, 1)]
        rows = [row.val_balanced_accuracy for row in trial.rows()]
        assert list(np.mean(recalls, axis=0)) == pytest.approx(rows, abs=1e-12)


def test_image_by_image_they_are_what_the_predictions_of_each_best_epoch_say(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "WRITING_SHARE", 0)
    record, images, compared = bench.record("right"), len(bench.data.validation), set()
    for row in fit(CONFIG, bench.run, bench.data, bench.backbone, record):
        right = read_right(record.right, row.epoch, images)
        assert right is not None
        for best in range(1, row.epoch + 1):
            if record.has_predictions(best):
                kept = record.predictions(best)
                expected = np.where(kept["logit"] > 0, 1, 0) == kept["label"]
                assert list(right[best - 1]) == list(expected)
                assert tuple(kept["file"]) == bench.data.validation.files
                compared.add(best)
    assert len(compared) > 1


def test_labels_are_those_of_the_predictions_in_their_order(run: Path) -> None:
    found, trials = read(run)
    trial = trials[0][0]
    (best,) = (path.stem for path in trial.record.folder.glob("best-*.parquet"))
    kept = trial.record.predictions(int(best.removeprefix("best-")))
    assert list(validation_labels(found)) == list(kept["label"])


# ---------------------------------------------------------------- what is not used


def test_what_is_not_of_these_epochs_and_images_is_none(run: Path) -> None:
    found, trials = read(run)
    images = len(validation_labels(found))
    trial, right = next(pair for pair in trials if len(set(pair[1].sum(axis=1))) == 3)
    whole = trial.record.right.read_bytes()
    assert rights_of(trial, images + 1) is None
    assert rights_of(trial, images - 1) is None
    assert rights_of(trial, 8 * images) is None
    for damaged in (whole[:-1], b"", whole[:1] * len(whole), bytes(len(whole)), whole[::-1]):
        trial.record.right.write_bytes(damaged)
        assert rights_of(trial, images) is None
    trial.record.right.write_bytes(whole + whole[:1])  # of an epoch without a row
    np.testing.assert_array_equal(rights_of(trial, images), right)
    trial.record.right.unlink()
    assert rights_of(trial, images) is None


@limited(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.lists(st.integers(1, 6), max_size=8), st.data())
def test_they_are_read_as_they_were_written_whichever_epochs_came_again(
    tmp_path_factory: pytest.TempPathFactory, images: int, again: list[int], data: st.DataObject
) -> None:
    """After each of `again` the trial goes on with an epoch that was, and what a killed writer left lies behind."""
    path = tmp_path_factory.mktemp("right") / "right.bits"
    draw = np.random.default_rng(images)
    written: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    for epoch in [1, 2, 3, *again]:
        if epoch > len(written) + 1:
            continue
        written[epoch - 1 :] = [draw.random(images) < 0.5]
        append_right(path, epoch, written[-1])
        torn = data.draw(st.binary(max_size=4))
        with path.open("ab") as file:
            file.write(torn)
        np.testing.assert_array_equal(read_right(path, len(written), images), written)
    append_right(path, len(written) + 1, written[0])
    assert path.stat().st_size == (len(written) + 1) * len(np.packbits(written[0]))


def test_a_trial_whose_first_epochs_are_without_stays_without(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "WRITING_SHARE", 0)
    older, shorter = bench.record("older"), bench.record("shorter")
    for record in (older, shorter):
        bench.fit(CONFIG, record, epochs=1)
    older.right.unlink()
    shorter.right.write_bytes(b"")
    for record in (older, shorter):
        rows, _ = bench.fit(CONFIG, record, epochs=3)
        assert [row.epoch for row in rows] == [2, 3]
        assert not record.right.exists()


def test_a_trial_that_starts_again_has_them_all(bench: Bench) -> None:
    record = bench.record("older")
    bench.fit(CONFIG, record, epochs=1)
    record.right.unlink()
    record.last.unlink()
    bench.fit(CONFIG, record, epochs=2)
    right = read_right(record.right, 2, len(bench.data.validation))
    assert right is not None
    assert list(right.mean(axis=1)) == [row.val_accuracy for row in record.rows()]


# ---------------------------------------------------------------- runs of older versions


@pytest.mark.parametrize("state", STATES)
def test_a_run_of_an_older_version_has_none(state: str, tmp_path: Path) -> None:
    found, trials = read(OldRun(state, tmp_path).path)
    assert found.trials and trials == []
    assert set(validation_labels(found)) == {0, 1}


def test_a_trial_of_an_older_version_goes_on_without(tmp_path: Path) -> None:
    found, _ = read(OldRun("killed_in_extend", tmp_path).path)
    settings = found.settings
    assert settings is not None
    data = open_training_data(found.folder.split, settings.images, settings.image_size)
    backbone = load_backbone(settings.weights, settings.width)
    trial = found.trials[0]
    more = settings.model_copy(update={"epochs": len(trial.epochs) + 1})
    rows = list(fit(trial.asked.settings, more, data, backbone, trial.record))
    assert [row.epoch for row in rows] == [more.epochs]
    assert not trial.record.right.exists()
    shutil.rmtree(trial.record.folder)
    trial.record.folder.mkdir()
    rows = list(fit(trial.asked.settings, more, data, backbone, trial.record))
    right = read_right(trial.record.right, len(rows), len(data.validation))
    assert right is not None
    assert list(right.mean(axis=1)) == [row.val_accuracy for row in rows]
