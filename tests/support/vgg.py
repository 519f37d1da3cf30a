"""Where torchvision's VGG-16 has its blocks: what our cuts are held against."""

import torch
import torchvision
from torch import nn


def first_trained(strategy: str) -> int:
    """Index in `features` of the first layer that trains: of a block, the one behind the pooling before it."""
    with torch.device("meta"):
        layers = torchvision.models.vgg16().features
    if strategy in ("head", "full"):
        return len(layers) if strategy == "head" else 0
    pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return pools[int(strategy.removeprefix("block")) - 2] + 1
