"""One trial on a GPU, or two side by side? Measured by training the sweep's own models on noise."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from sweep.frozen.policy import cuts_of
from sweep.request.config import SweepConfig
from sweep.request.space import Range
from trainable.captured_steps import Noise
from trainable.config import RunSettings, TrialConfig
from trainable.frozen.chunks import FILL_BATCH
from trainable.frozen.reference import ResidentFeatures, Work, autocast
from trainable.hardware.device import device_of
from trainable.network.model import (
    CUTS,
    Backbone,
    build_model,
    feature_layers,
    forward_frozen,
    frozen_layers,
    load_backbone,
)
from trainable.step import TrainingSteps

ROOM: Final = 0.9  # of a GPU's memory, for both trials together; assumed
WORTH: Final = 1.05  # two must train this many times the images of one; assumed
PROBE_SECONDS: Final = 3.0  # for one trial alone, and again for two; assumed
STEPS: Final = 20  # in an epoch on noise; assumed


@dataclass(frozen=True)
class Packed:
    """What was measured, and what follows from it."""

    one: float
    """Images per second of one trial with the GPU to itself."""
    two: float
    """Of two trials side by side, together."""
    bytes_each: int
    """The most GPU memory that a trial uses: for training, a filling at the same time, and the features it holds."""
    total_bytes: int
    """The GPU's memory."""

    @property
    def share(self) -> float:
        return packing(self.one, self.two, self.bytes_each, self.total_bytes)

    def facts(self) -> dict[str, Any]:
        """As recorded in the manifest."""
        return asdict(self) | {"gpus_per_trial": self.share, "why": self.said()}

    def said(self) -> str:
        """As a line of text."""
        memory = f"two take {2 * self.bytes_each / 1e9:.1f} of {self.total_bytes / 1e9:.1f} GB"
        speed = f"train {self.two / self.one:.2f} times the images of one" if self.one else ""
        return f"{1 / self.share:.0f} on a GPU: {memory} and {speed}"


def packing(one: float, two: float, bytes_each: int, total: int) -> float:
    """A trial's share of a GPU: 1/2 if two together are faster (images per second) than one, and fit."""
    fits = 2 * bytes_each <= ROOM * total
    return 0.5 if fits and two >= WORTH * one > 0 else 1.0


def held_bytes(config: SweepConfig, images: tuple[int, int], item: int) -> int:
    """The most bytes of features that a trial holds: each fixed view of all (training, validation) images at a cut."""
    looks = 2 if "flip" in config.values_of("augmentation") else 1
    count = images[0] * looks + images[1]
    width, side = config.model.width, config.data.image_size
    sizes = [_shape(width, side, cut) for cut in cuts_of(config)]
    return max(count * item * channels * height**2 for channels, height in sizes)


def tried(config: SweepConfig) -> list[TrialConfig]:
    """A trial of every strategy and head, at the largest batch and with the first optimizer of the space."""
    return [
        TrialConfig(
            strategy=strategy,
            head=head,
            batch_size=largest(config, "batch_size"),
            optimizer=config.values_of("optimizer")[0],
        )
        for strategy in config.values_of("strategy")
        for head in config.values_of("head")
    ]


def largest(config: SweepConfig, name: str) -> int:
    """The largest value that a setting of whole numbers can take."""
    for dimension in config.space.dimensions:
        if dimension.name == name and isinstance(dimension.domain, Range):
            return int(dimension.domain.high)
    return max(int(str(value)) for value in config.values_of(name))


class Probe:
    """Trains the largest and the smallest of some models on noise, on this process's device."""

    def __init__(self, run: RunSettings, configs: Sequence[TrialConfig]) -> None:
        self.run, self._device = run, device_of(run.device)
        torch.set_num_threads(run.threads)
        self._device.fix_kernels(run.tf32)
        backbone = load_backbone(run.weights, run.width)
        by_size = sorted(configs, key=lambda config: _parameters(config, backbone), reverse=True)
        self._device.forget_peak()
        largest = self._training(by_size[0], backbone)
        largest()
        self._fill_once(backbone)
        parameters = 4 * _parameters(by_size[0], backbone)  # the best epoch's, also kept there
        self.bytes_each = self._device.peak_bytes() + parameters
        self._trainings = [largest]
        if len(by_size) > 1:
            self._trainings.append(self._training(by_size[-1], backbone))
            self._trainings[1]()

    def found(self) -> tuple[str, int, int]:
        """Which GPU this is, the memory that a trial uses besides features, and the total."""
        here = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return here, self.bytes_each, self._device.total_bytes()

    def rate(self, seconds: float) -> float:
        """Images per second, with each model trained on as many."""
        each = [self._rate(train, seconds / len(self._trainings)) for train in self._trainings]
        return len(each) / sum(1 / rate for rate in each)

    def _rate(self, train: "Training", seconds: float) -> float:
        images, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            images += train()
        return images / (time.perf_counter() - began)

    def _training(self, config: TrialConfig, backbone: Backbone) -> "Training":
        place = self._device.torch
        images = STEPS * config.batch_size
        channels, side = _shape(self.run.width, self.run.image_size, CUTS[config.strategy])
        format = getattr(torch, self.run.precision)
        table = torch.rand(config.batch_size, side, side, channels, device=place).to(format)
        rows = torch.arange(images, device=place) % config.batch_size
        labels = (torch.arange(images) % 2).float()
        torch.manual_seed(0)
        model = build_model(config, backbone).to(place)
        return Training(
            TrainingSteps(config, self.run, model, labels),
            Noise(ResidentFeatures(table, rows)),
            images,
        )

    def _fill_once(self, backbone: Backbone) -> None:
        """Use the memory that a filling needs besides training."""
        side, size = self.run.image_size, FILL_BATCH[self.run.device]
        pixels = torch.zeros(size, 3, side, side, device=self._device.torch)
        with autocast(self.run.precision, self.run.device):
            forward_frozen(frozen_layers(backbone).to(self._device.torch), pixels)
        self._device.synchronize()


@dataclass
class Training:
    """Epochs on noise: each call runs one, and waits for it."""

    steps: TrainingSteps
    noise: Noise
    images: int
    epochs: int = 0

    def __call__(self) -> int:
        """Train for one epoch; returns the number of images."""
        self.epochs += 1
        self.steps.epoch(self.noise, self.epochs, Work())
        self.steps.fetch(torch.zeros(1, device=self.noise.held.table.device))
        return self.images


def _parameters(config: TrialConfig, backbone: Backbone) -> int:
    """How many parameters train."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(config, backbone).trained().values())


def _shape(width: float, image_size: int, cut: int) -> tuple[int, int]:
    """Channels and side of an image's features before layer `cut`."""
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    _, channels, side, _ = feature_layers(width)[:cut](image).shape
    return channels, side
