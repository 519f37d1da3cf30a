"""VGG-16: where it is cut, frozen prefix and trained suffix, head, parameter groups."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from trainable.config import Strategy, TrialConfig
from trainable.errors import RequestError
from trainable.network.weight_kinds import what_network
from trainable.network.weights import Weights, read_weights

CUTS: Final[Mapping[Strategy, int]] = {  # index in `features` of the first layer that trains
    "head": 31,
    "block5": 24,
    "block4": 17,
    "block3": 10,
    "full": 0,
}
PRETRAINED_HEAD: Final = ("0.weight", "0.bias", "3.weight", "3.bias")
"""What `head: pretrained` takes from VGG's classifier."""
POOLED: Final = 7  # side of the map after VGG's adaptive pooling: torchvision's vgg16()


def feature_layers(width: float) -> nn.Sequential:
    """The 31 layers of torchvision's `vgg16().features` with `width` times the channels, without storage."""
    channels = [c if isinstance(c, str) else max(1, round(c * width)) for c in cfgs["D"]]
    with torch.device("meta"):
        layers: nn.Sequential = make_layers(channels)
    return layers


def map_shapes(layers: nn.Sequential, image_size: int) -> list[tuple[int, int]]:
    """Side and channels of one image's maps before each of `features`' layers, and after the last."""
    side, channels = image_size, 3
    found = [(side, channels)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
        found.append((side, channels))
    return found


def _digest(*parts: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        for name, tensor in sorted(part.items()):
            sha.update(name.encode())
            sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class Backbone:
    """Pretrained weights in float32 under torchvision's names; trials share these tensors, and none writes to them."""

    width: float
    features: dict[str, Tensor]
    """`0.weight`, `0.bias`, `2.weight`, … of `features`."""
    classifier: dict[str, Tensor]
    """`0.weight`, … of VGG's own classifier; empty if the file has none."""

    def digest(self) -> str:
        """SHA-256 over names and values."""
        return _digest(self.features, self.classifier)

    def features_digest(self) -> str:
        """The same for `features` alone, on which frozen features depend."""
        return _digest(self.features)


def load_backbone(weights: str, width: float) -> Backbone:
    """The backbone named `imagenet`, `none` (random, the same for every trial), or in a state dict at a path.

    Raises:
        RequestError: the weights can't be obtained, are not a state dict, or do not fit by name or shape.
    """
    if weights == "none":
        return _random_backbone(width)
    return fitted(read_weights(weights, width), width)


def fitted(weights: Weights, width: float) -> Backbone:
    """The backbone with these `weights`, in float32.

    Raises:
        RequestError: they belong to another network, or have another width.
    """
    state, source = weights.state, weights.source
    expected = {
        f"features.{n}": tuple(m.shape) for n, m in feature_layers(width).state_dict().items()
    }
    lacking = next((name for name in expected if name not in state), None)
    if lacking is not None:
        network = what_network(state)
        raise RequestError(
            f"model.weights must have torchvision's VGG-16 names, but {source} lacks {lacking}"
            + (f": it is {network}, not VGG-16" if network not in ("", "VGG-16") else "")
        )
    wrong = next((name for name in expected if tuple(state[name].shape) != expected[name]), None)
    if wrong is not None:
        raise RequestError(
            f"{wrong} must have shape {expected[wrong]} at model.width {width:g}, "
            f"but {source} has {tuple(state[wrong].shape)}{_width_hint(state)}"
        )
    return Backbone(width, _part(state, "features.", expected), _part(state, "classifier."))


def _part(
    state: Mapping[str, Tensor], prefix: str, names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """The tensors in `names`, or all that begin with `prefix`, without the prefix, in float32."""
    taken = names if names is not None else [name for name in state if name.startswith(prefix)]
    return {n.removeprefix(prefix): state[n].detach().float().contiguous() for n in taken}


def _width_hint(state: Mapping[str, Tensor]) -> str:
    """A hint at the width of the weights, if they have a valid one."""
    width = state["features.0.weight"].shape[0] / 64 if state["features.0.weight"].ndim else 0
    if not 0 < width <= 1:
        return ""
    layers = feature_layers(width).state_dict().items()
    fits = all(state[f"features.{name}"].shape == meta.shape for name, meta in layers)
    return f"; model.width={width:g} fits them" if fits else ""


def _random_backbone(width: float) -> Backbone:
    """Kaiming-normal with fan-out, as torchvision initialises VGG; torch's default makes the signal vanish."""
    generator = torch.Generator().manual_seed(0)
    features = {}
    for name, meta in feature_layers(width).state_dict().items():
        tensor = torch.zeros(meta.shape)
        if name.endswith("weight"):
            nn.init.kaiming_normal_(
                tensor, mode="fan_out", nonlinearity="relu", generator=generator
            )
        features[name] = tensor
    return Backbone(width, features, {})


def frozen_layers(backbone: Backbone) -> nn.Sequential:
    """All of `features`, frozen, around the backbone's own tensors."""
    layers = feature_layers(backbone.width)
    layers.load_state_dict(backbone.features, assign=True)
    return layers.requires_grad_(False)


@torch.no_grad()
def forward_frozen(layers: nn.Sequential, hidden: Tensor) -> Tensor:
    """The output of frozen `layers` for a batch.

    On a CPU, a batch with no more images than threads may use another kernel, whose last bits differ (docs/log.md): it
    is padded with its own images, so that an image's features are the same in any batch.
    """
    images = len(hidden)
    least = torch.get_num_threads() + 1 if hidden.device.type == "cpu" else 2
    if 0 < images < least:
        hidden = torch.cat([hidden] * -(-least // images))[:least]  # keeps channels last
    result: Tensor = layers(hidden)
    return result[:images]


class TransferVGG16(nn.Module):
    """VGG-16 cut into a frozen prefix and a trained suffix with a head of one logit; torchvision's parameter names."""

    def __init__(self, features: nn.Sequential, cut: int, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(POOLED)
        self.classifier = classifier
        self.cut = cut
        # the same layers, cut once and not for each batch; a tuple, since the model has them already
        self._parts = (features[:cut].requires_grad_(False), features[cut:].requires_grad_(True))

    def prefix(self, images: Tensor) -> Tensor:
        """Frozen features of `images` (batch, 3, side, side), normalised: (batch, channels, side', side')."""
        return forward_frozen(self._parts[0], images)

    def suffix(self, hidden: Tensor) -> Tensor:
        """Logits (batch,) from what `prefix` gives."""
        maps = self.avgpool(self._parts[1](hidden))
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits.squeeze(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.suffix(self.prefix(images))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def trained_copy(self, into: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of their present values, in the memory of an earlier copy if one is given."""
        if into is None:
            return {name: p.detach().clone() for name, p in self.trained().items()}
        for name, parameter in self.trained().items():
            into[name].copy_(parameter)
        return into

    def beside_trained(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`values` of the trained parameters, each on the device of its parameter."""
        return {name: values[name].to(p.device) for name, p in self.trained().items()}

    @torch.no_grad()
    def set_trained(self, values: Mapping[str, Tensor]) -> None:
        """Restore what `trained_copy` returned.

        Raises:
            RequestError: other names or shapes.
        """
        own = self.trained()
        shapes = {name: tuple(p.shape) for name, p in own.items()}
        if shapes != {name: tuple(value.shape) for name, value in values.items()}:
            raise RequestError("the trained parameters kept for this trial do not fit its settings")
        for name, parameter in own.items():
            parameter.copy_(values[name])


def build_model(config: TrialConfig, backbone: Backbone) -> TransferVGG16:
    """The model of one trial on the CPU. The head is drawn from torch's generator; frozen layers are the backbone's.

    Raises:
        RequestError: `head: pretrained`, but the weights have no classifier.
    """
    cut = CUTS[config.strategy]
    features = feature_layers(backbone.width)
    values = {
        name: value.clone() if int(name.split(".")[0]) >= cut else value
        for name, value in backbone.features.items()
    }
    features.load_state_dict(values, assign=True)
    channels = backbone.features["28.bias"].numel()
    return TransferVGG16(features, cut, _head(config, backbone, channels * POOLED**2))


def _head(config: TrialConfig, backbone: Backbone, inputs: int) -> nn.Sequential:
    if config.head == "pretrained":
        return _pretrained_head(config, backbone, inputs)
    hidden = {"mlp": [4096, 1024], "linear": []}.get(config.head)
    if hidden is None:
        hidden = [int(size) for size in config.head.split("-")]
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.ReLU(inplace=True), nn.Dropout(config.dropout)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


def _pretrained_head(config: TrialConfig, backbone: Backbone, inputs: int) -> nn.Sequential:
    """VGG's classifier (4096-4096) with a new last layer."""
    lacking = [name for name in PRETRAINED_HEAD if name not in backbone.classifier]
    if lacking:
        raise RequestError(
            "head: pretrained needs VGG's own classifier (classifier.0, classifier.3) among "
            f"model.weights, but they lack classifier.{lacking[0]}; use another head"
        )
    first, second = backbone.classifier["0.weight"], backbone.classifier["3.weight"]
    if first.shape[1] != inputs:
        raise RequestError(
            f"classifier.0.weight must have {inputs} columns at model.width {backbone.width:g}, "
            f"but it has {first.shape[1]}"
        )
    with torch.device("meta"):
        kept = nn.Sequential(
            nn.Linear(first.shape[1], first.shape[0]),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(second.shape[1], second.shape[0]),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
        )
    kept.load_state_dict(
        {name: backbone.classifier[name].clone() for name in PRETRAINED_HEAD}, assign=True
    )
    return nn.Sequential(*kept, nn.Linear(second.shape[0], 1))


def make_optimizer(config: TrialConfig, model: TransferVGG16) -> torch.optim.Optimizer:
    """Fused Adam, AdamW or SGD over every trained parameter: the head at `lr`, convolutions at a share of it."""
    trained = model.trained()
    groups: list[dict[str, Any]] = [
        {
            "name": part,
            "params": [p for name, p in trained.items() if name.startswith(part)],
            "lr": config.lr * ratio,
        }
        for part, ratio in (("classifier", 1.0), ("features", config.backbone_lr_ratio))
    ]
    groups = [group for group in groups if group["params"]]
    _assert_each_parameter_once(model, groups)
    decay = config.weight_decay
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, weight_decay=decay, fused=True)
        case "sgd":
            return _with_momentum(
                torch.optim.SGD(groups, momentum=config.momentum, weight_decay=decay, fused=True)
            )


def _with_momentum(sgd: torch.optim.SGD) -> torch.optim.SGD:
    """Set momenta to 0, with which the first step does the same as without any.

    torch creates them in the first step, and leaves them uninitialised if that is skipped for infinite gradients.
    """
    for group in sgd.param_groups:
        for parameter in group["params"]:
            if group["momentum"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def _assert_each_parameter_once(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)), "a parameter is in two optimizer groups"
    for name, p in model.named_parameters():
        assert p.requires_grad == (id(p) in grouped), f"{name} is neither frozen nor optimised"


@lru_cache  # called in every epoch
def multiply_adds(width: float, image_size: int, first: int, last: int) -> int:
    """Multiply-adds of `features[first:last]` for one image, convolutions only."""
    layers = feature_layers(width)
    shapes = map_shapes(layers, image_size)
    return sum(
        side * side * layer.out_channels * channels * 9
        for layer, (side, channels) in list(zip(layers, shapes, strict=False))[first:last]
        if isinstance(layer, nn.Conv2d)
    )
