"""A trial alone: what the training loop needs of a data set, without a sweep, a run folder or Ray."""

from pathlib import Path
from typing import NamedTuple

from trainable.config import DataConfig, ModelConfig, Precision, RunSettings
from trainable.data import TrainingData, training_data
from trainable.data.examine import examine
from trainable.hardware.cpus import usable_cpus
from trainable.hardware.device import device_of, has_gpu
from trainable.metric import Metric
from trainable.network.model import Backbone, load_backbone
from trainable.network.weights import check_source


class Prepared(NamedTuple):
    """What `fit` takes after the settings of a trial, in its order."""

    run: RunSettings
    data: TrainingData
    backbone: Backbone


def prepare(
    data: DataConfig,
    model: ModelConfig | None = None,
    epochs: int = 10,
    metric: Metric = Metric.VAL_ACCURACY,
    threads: int | None = None,
) -> Prepared:
    """Read and check a data set and pretrained weights, so that `fit(TrialConfig(), *prepare(data))` trains on them.

    Training is on a GPU where there is one, in its half precision, else on the CPU with `threads` threads, or all.
    `metric` decides which epoch is the best. Test images are checked and parted off; `fit` never sees them.

    Raises:
        RequestError: table, split, an image or the weights can't be used.
    """
    model = model or ModelConfig()
    check_source(model.weights, model.width)
    examined = examine(data)
    backbone = load_backbone(model.weights, model.width)
    kind = "cuda" if has_gpu() else "cpu"
    precision: Precision = device_of(kind).half()  # type: ignore[assignment]
    run = RunSettings(
        folder=Path(),  # a trial without a record writes nothing
        images=examined.table.images,
        image_size=data.image_size,
        weights=model.weights,
        width=model.width,
        epochs=epochs,
        metric=metric,
        device=kind,
        precision=precision,
        tf32=False,
        views_made_on="device" if kind == "cuda" else "host",
        threads=threads or usable_cpus(),
        workers=usable_cpus(),
    )
    return Prepared(
        run, training_data(examined.split, examined.table.images, data.image_size), backbone
    )
