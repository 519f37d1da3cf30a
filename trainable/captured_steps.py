"""Checks, before a run's first trial, that captured and replayed training steps train as eager ones do.

To be run in a process of its own: a process in which a capture failed should not train.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from trainable.config import SMALLEST_IMAGE, Precision, RunSettings, TrialConfig
from trainable.frozen.reference import Batches, ResidentFeatures, Work
from trainable.hardware.device import device_of
from trainable.network.model import (
    CUTS,
    Backbone,
    build_model,
    feature_layers,
    load_backbone,
    map_shapes,
)
from trainable.step import TrainingSteps

WIDTH: Final = 0.05  # as narrow as the tests' models, so that it is quick; assumed
IMAGES, BATCH, EPOCHS = 85, 8, 2
"""Ten full batches, so that most are replayed, and a smaller one; assumed."""
TOLERANCE: Final = 1e-3
"""Difference in a mean loss. A wrongly captured step is off by far more; kernels that add in another order by less.
Assumed."""
TRIED: Final = tuple(
    TrialConfig(strategy=strategy, head="32", optimizer=optimizer, lr=1e-3, batch_size=BATCH)
    for strategy, optimizer in (("head", "adam"), ("block5", "sgd"), ("block5", "adamw"))
)


@dataclass
class Noise:
    """Random features without images, held on the device."""

    held: ResidentFeatures

    def resident_training(self, epoch: int, work: Work) -> ResidentFeatures:
        return self.held

    def resident_validation(self, work: Work) -> ResidentFeatures:
        return self.held

    def training(self, epoch: int, order: Sequence[int], work: Work) -> Batches:
        raise AssertionError("everything is held")

    def validation(self, work: Work) -> Batches:
        raise AssertionError("everything is held")


def problem(device: str, precision: Precision) -> str:
    """Why no step should be captured on this machine's `device`; "" if replayed steps train as eager ones do."""
    backbone = load_backbone("none", WIDTH)
    try:
        for config in TRIED:
            eager, replayed = (
                losses(config, backbone, device, precision, graphs) for graphs in (False, True)
            )
            worst = max(abs(a - b) for a, b in zip(eager, replayed, strict=True))
            if not worst <= TOLERANCE:
                return f"{config.strategy} with {config.optimizer}: a loss of {replayed}, but {eager} with eager steps"
    except Exception as error:  # from driver, CUDA or torch: train without graphs
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def losses(
    config: TrialConfig, backbone: Backbone, device: str, precision: Precision, graphs: bool
) -> list[float]:
    """Mean training loss of each epoch on noise."""
    run = RunSettings(
        folder=Path(tempfile.gettempdir()),
        images=Path(tempfile.gettempdir()),
        image_size=SMALLEST_IMAGE,
        weights="none",
        width=WIDTH,
        epochs=EPOCHS,
        device="cuda" if device == "cuda" else "cpu",
        precision=precision,
        tf32=False,
        graphs=graphs,
    )
    place = device_of(device)
    place.fix_kernels(tf32=False)
    torch.manual_seed(0)
    labels = (torch.arange(IMAGES) % 2).float()
    frozen = Noise(noise(config, backbone, precision, place.torch))
    model = build_model(config, backbone).to(place.torch)
    steps = TrainingSteps(config, run, model, labels)
    found = []
    for epoch in range(1, EPOCHS + 1):
        steps.epoch(frozen, epoch, Work())
        sums, _ = steps.fetch(torch.zeros(1, device=place.torch))
        found.append(sums.loss)
    steps.close()
    return found


def noise(
    config: TrialConfig, backbone: Backbone, precision: Precision, place: torch.device
) -> ResidentFeatures:
    """Random features that differ by label, with the shape that the strategy reads at the smallest image size."""
    shapes = map_shapes(feature_layers(backbone.width), SMALLEST_IMAGE)
    side, channels = shapes[CUTS[config.strategy]]
    values: Tensor = torch.rand(IMAGES, side, side, channels)
    values += (torch.arange(IMAGES) % 2).view(-1, 1, 1, 1) * 0.2
    format = getattr(torch, precision)
    return ResidentFeatures(values.to(place, format), torch.arange(IMAGES, device=place))
