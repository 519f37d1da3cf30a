"""The memory and disk that trials need, computed from shapes alone; what else a process uses is not included."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from sweep.request.config import SweepConfig
from trainable.config import Strategy, TrialConfig
from trainable.network.model import (
    CUTS,
    Backbone,
    TransferVGG16,
    build_model,
    feature_layers,
    multiply_adds,
)

BYTES_PER_PARAMETER: Final = {  # best weights; in last.pt, present weights and the optimizer's moments; in float32
    "adam": 4 * 4,
    "adamw": 4 * 4,
    "sgd": 3 * 4,
}
GRADIENT_BYTES: Final = 4  # per parameter, in float32
KEPT: Final = {nn.ReLU: 0, nn.MaxPool2d: 3}
"""Multiples of a layer's output that are kept: ReLU works in place, pooling keeps each maximum's place (int64)."""


@dataclass(frozen=True)
class ModelSize:
    """One strategy with one head."""

    strategy: Strategy
    head: str
    trained_parameters: int
    frozen_multiply_adds: int
    """In the convolutions of the frozen prefix, for one image."""
    trained_multiply_adds: int
    """In the convolutions of the trained suffix and in the head, for one image, forward."""
    activations: int
    """Values that the trained suffix keeps for the backward pass of one image."""


def model_sizes(config: SweepConfig, backbone: Backbone) -> list[ModelSize]:
    """Every strategy and head that the space can give."""
    return [
        _size(config, backbone, TrialConfig(strategy=strategy, head=head))
        for strategy in config.values_of("strategy")
        for head in config.values_of("head")
    ]


def _size(config: SweepConfig, backbone: Backbone, trial: TrialConfig) -> ModelSize:
    with torch.device("meta"):
        model = build_model(trial, backbone)
    cut, side = CUTS[trial.strategy], config.data.image_size
    head = sum(p.numel() for p in model.classifier.parameters() if p.dim() == 2)
    return ModelSize(
        trial.strategy,
        trial.head,
        sum(p.numel() for p in model.trained().values()),
        multiply_adds(config.model.width, side, 0, cut),
        multiply_adds(config.model.width, side, cut, CUTS["head"]) + head,
        activations(model, config.model.width, side),
    )


def activations(model: TransferVGG16, width: float, image_size: int) -> int:
    """Values (of four bytes) that torch keeps per image for the backward pass through the trained layers."""
    layers = feature_layers(width)
    with torch.no_grad():
        maps = layers[: model.cut](torch.empty(1, 3, image_size, image_size, device="meta"))
        total = maps.numel()
        for layer in layers[model.cut :]:
            maps = layer(maps)
            total += maps.numel() * KEPT.get(type(layer), 1)
    linear = [layer for layer in model.classifier if isinstance(layer, nn.Linear)]
    return int(total) + sum(layer.in_features + layer.out_features for layer in linear)


def trial_bytes(config: SweepConfig, sizes: Iterable[ModelSize]) -> int:
    """Disk space of the largest trial while it runs, and afterwards if it is kept."""
    return max(size.trained_parameters for size in sizes) * _bytes_per_parameter(config)


def memory_bytes(
    config: SweepConfig, sizes: Sequence[ModelSize], backbone: Backbone, batch_size: int
) -> int:
    """The most memory that the largest trial's tensors use: the pretrained weights, and for the trained layers the
    weights, those of the best epoch, gradients, moments, and the activations of the largest batch, in float32."""
    pretrained = sum(t.nbytes for t in (*backbone.features.values(), *backbone.classifier.values()))
    each = _bytes_per_parameter(config) + GRADIENT_BYTES
    largest = max(
        size.trained_parameters * each + size.activations * batch_size * 4 for size in sizes
    )
    return pretrained + largest


def _bytes_per_parameter(config: SweepConfig) -> int:
    return max(BYTES_PER_PARAMETER[str(name)] for name in config.values_of("optimizer"))
