"""What a short trial needs, and what it gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from tests.support.faces import WIDTH, Faces
from trainable.config import RunSettings, TrialConfig
from trainable.data import LabelledImages, TrainingData, open_training_data
from trainable.fit import fit, predict
from trainable.frozen.reference import evaluation_batches
from trainable.network.model import Backbone, TransferVGG16, load_backbone
from trainable.records.rows import RESULT_COLUMNS, Outcome, Row
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord


@dataclass(frozen=True)
class Bench:
    """What a trial needs, at a size that trains in milliseconds."""

    run: RunSettings
    data: TrainingData
    backbone: Backbone
    split: Path

    def record(self, trial_id: str) -> TrialRecord:
        """An empty record in the run folder."""
        record = RunFolder(self.run.folder).trial(trial_id)
        record.folder.mkdir(parents=True)
        return record

    def predict(self, model: TransferVGG16, images: LabelledImages) -> torch.Tensor:
        """Logits of `images` without augmentation or dropout."""
        return predict(model, evaluation_batches(model, self.run, images), self.run)

    def fit(
        self, config: TrialConfig, record: TrialRecord | None = None, **changed: object
    ) -> tuple[list[Row], Outcome]:
        """Every row of a trial and how it ended; `changed` replaces settings of the run."""
        run = self.run.model_copy(update=changed)
        return exhaust(fit(config, run, self.data, self.backbone, record))


def exhaust(trial: Iterator[Row]) -> tuple[list[Row], Outcome]:
    """The rows that a generator yields, and what it returns."""
    rows = []
    while True:
        try:
            rows.append(next(trial))
        except StopIteration as end:
            return rows, end.value


def results(rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """What must repeat exactly, without what is measured."""
    return [tuple(getattr(row, column) for column in RESULT_COLUMNS) for row in rows]


def make_bench(faces: Faces, split_file: Path, folder: Path) -> Bench:
    """Three epochs on `faces` at 32 px with a narrow random backbone, in the run folder `folder`; no collapse guard."""
    run = RunSettings(
        folder=folder,
        images=faces.images,
        image_size=32,
        weights="none",
        width=WIDTH,
        epochs=3,
        collapse_epochs=None,
    )
    run.folder.mkdir()
    data = open_training_data(split_file, faces.images, run.image_size)
    return Bench(run, data, load_backbone("none", WIDTH), split_file)


def write_weights(path: Path) -> Path:
    """The weights that `none` stands for at this width, as a file."""
    backbone = load_backbone("none", WIDTH)
    state = {f"features.{name}": tensor for name, tensor in backbone.features.items()}
    state |= {f"classifier.{name}": tensor for name, tensor in backbone.classifier.items()}
    safetensors.torch.save_file(state, path)
    return path
