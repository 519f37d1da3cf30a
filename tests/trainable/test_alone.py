"""A trial without a sweep: `prepare` gives `fit` what a sweep would."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.bench import Bench, exhaust, results
from tests.support.faces import WIDTH, Faces
from trainable.alone import prepare
from trainable.config import DataConfig, ModelConfig, SplitConfig, TrialConfig
from trainable.errors import RequestError
from trainable.fit import fit
from trainable.metric import Metric

SETTING = TrialConfig(strategy="block5", head="8", batch_size=8, augmentation="flip")
NARROW = ModelConfig(weights="none", width=WIDTH)


def of(faces: Faces) -> DataConfig:
    split = SplitConfig(validation=0.2, test=0.2)
    return DataConfig(images=faces.images, target="Smiling", image_size=32, split=split)


def test_a_trial_alone_trains_as_one_of_a_run_with_the_same_split(
    faces: Faces, bench: Bench, own_store: Path
) -> None:
    prepared = prepare(of(faces), NARROW, epochs=3, threads=1)
    of_a_run, _ = bench.fit(SETTING, tf32=False)
    alone, _ = exhaust(fit(SETTING, *prepared))
    assert results(alone) == results(of_a_run)


def test_a_trial_alone_never_holds_a_test_image(
    faces: Faces, bench: Bench, own_store: Path
) -> None:
    data = prepare(of(faces), NARROW).data
    held = {*data.training.files, *data.validation.files}
    assert held == {*bench.data.training.files, *bench.data.validation.files}
    assert len(held) == 32 < len(faces.files)


def test_a_trial_alone_leaves_no_file_behind(
    faces: Faces, own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    exhaust(fit(SETTING, *prepare(of(faces), NARROW, epochs=1, threads=1)))
    assert not [*here.iterdir()]


def test_the_metric_that_was_asked_for_decides(faces: Faces, own_store: Path) -> None:
    prepared = prepare(of(faces), NARROW, metric=Metric.VAL_LOSS, threads=1)
    assert (prepared.run.metric, prepared.run.epochs) == (Metric.VAL_LOSS, 10)
    assert torch.equal(prepared.data.training.labels.unique(), torch.tensor([0.0, 1.0]))


def test_data_that_cant_be_used_is_refused_in_one_line(
    faces: Faces, own_store: Path, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    with pytest.raises(RequestError) as caught:
        prepare(of(replace(faces, images=faces.images / "none")), NARROW)
    assert "none" in refused(caught)
    with pytest.raises(RequestError) as caught:
        prepare(of(faces), ModelConfig(weights=str(faces.table)))
    assert "faces.csv" in refused(caught)
