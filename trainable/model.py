"""VGG-16: its weights, where it is cut, frozen prefix and trained suffix, head, parameter groups."""

import hashlib
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from trainable.config import RequestError, Strategy, TrialConfig

CUTS: Final[Mapping[Strategy, int]] = {  # index in `features` of the first layer that trains
    "head": 31,
    "block5": 24,
    "block4": 17,
    "block3": 10,
    "full": 0,
}
POOLED: Final = 7  # side of the map that VGG's adaptive pooling leaves
IMAGENET: Final = torchvision.models.VGG16_Weights.IMAGENET1K_V1


def feature_layers(width: float) -> nn.Sequential:
    """The 31 layers of torchvision's `vgg16().features` with `width` times the channels, without storage."""
    channels = [c if isinstance(c, str) else max(1, round(c * width)) for c in cfgs["D"]]
    with torch.device("meta"):
        layers: nn.Sequential = make_layers(channels)
    return layers


def _digest(*parts: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        for name, tensor in sorted(part.items()):
            sha.update(name.encode())
            sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class Backbone:
    """Pretrained weights in float32 under torchvision's names; trials share these tensors, none writes to them."""

    width: float
    features: dict[str, Tensor]
    """`0.weight`, `0.bias`, `2.weight`, … of `features`."""
    classifier: dict[str, Tensor]
    """`0.weight`, … of VGG's own classifier; empty where the file has none."""

    def digest(self) -> str:
        """SHA-256 over names and values."""
        return _digest(self.features, self.classifier)

    def features_digest(self) -> str:
        """The same of `features` alone, on which frozen features depend."""
        return _digest(self.features)


def load_backbone(weights: str, width: float) -> Backbone:
    """The backbone named `imagenet`, `none` (random, the same for every trial), or in a state dict at a path.

    Raises:
        RequestError: the weights can't be had, are no state dict, or do not fit by name or shape.
    """
    if weights == "none":
        return _random_backbone(width)
    if weights == "imagenet":
        if width != 1:
            raise RequestError(
                f"model.weights: imagenet is full-width VGG-16, but model.width is {width:g}"
            )
        return _from_state(_imagenet(), width, "IMAGENET1K_V1")
    return _from_state(_state_file(Path(weights)), width, weights)


def imagenet_file() -> Path:
    """Where torchvision keeps, and looks for, the ImageNet weights."""
    name: str = IMAGENET.url.rsplit("/", 1)[1]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _imagenet() -> Mapping[str, Tensor]:
    if imagenet_file().is_file():  # torchvision would run code in it
        return _state_file(imagenet_file())
    try:
        state: Mapping[str, Tensor] = IMAGENET.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise RequestError(
            f"model.weights: imagenet needs {imagenet_file()} or the network, and has neither ({error}); "
            f"put {imagenet_file().name} there, or give its path as model.weights"
        ) from None
    return state


def _state_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise RequestError(
            f"model.weights must be imagenet, none or the path of a state dict, but there is no file {path}"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch and safetensors raise many kinds for a file of another kind
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RequestError(
            "model.weights must be a state dict (.safetensors, or .pth without code in it), "
            f"but {path} is none: {reason}"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RequestError(
            f"model.weights must be a state dict (name → tensor), but {path} holds {type(state).__name__}"
        )
    return state


def _from_state(state: Mapping[str, Tensor], width: float, source: str) -> Backbone:
    features = {}
    for name, expected in feature_layers(width).state_dict().items():
        given = state.get(f"features.{name}")
        if given is None:
            raise RequestError(
                f"model.weights must have torchvision's VGG-16 names, but {source} lacks features.{name}"
            )
        if given.shape != expected.shape:
            raise RequestError(
                f"features.{name} must have shape {tuple(expected.shape)} at model.width {width:g}, "
                f"but {source} has {tuple(given.shape)}"
            )
        features[name] = given.float().contiguous()
    classifier = {
        name.removeprefix("classifier."): tensor.float().contiguous()
        for name, tensor in state.items()
        if name.startswith("classifier.")
    }
    return Backbone(width, features, classifier)


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
    """What frozen `layers` make of a batch.

    A batch of one goes through twice side by side: on a CPU it would take another kernel, whose last bits differ.
    """
    if len(hidden) == 1:
        twice: Tensor = layers(torch.cat([hidden, hidden]))
        return twice[:1]
    result: Tensor = layers(hidden)
    return result


class TransferVGG16(nn.Module):
    """VGG-16 cut into a frozen prefix and a trained suffix with a head of one logit; torchvision's parameter names."""

    def __init__(self, features: nn.Sequential, cut: int, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(POOLED)
        self.classifier = classifier
        self.cut = cut
        features[:cut].requires_grad_(False)
        features[cut:].requires_grad_(True)

    def prefix(self, images: Tensor) -> Tensor:
        """Frozen features of `images` (batch, 3, side, side), normalised: (batch, channels, side', side')."""
        return forward_frozen(self.features[: self.cut], images)

    def suffix(self, hidden: Tensor) -> Tensor:
        """Logits (batch,) from what `prefix` gives."""
        maps = self.avgpool(self.features[self.cut :](hidden))
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits.squeeze(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.suffix(self.prefix(images))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def trained_copy(self, into: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Their values now, apart from the model's; in the memory of an earlier copy where one is given."""
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
        """Put back what `trained_copy` gave.

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
    """The model of one trial on the CPU. The head draws from torch's generator; frozen layers are the backbone's own.

    Raises:
        RequestError: `head: pretrained` without a classifier among the weights.
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
    names = ("0.weight", "0.bias", "3.weight", "3.bias")
    lacking = [name for name in names if name not in backbone.classifier]
    if lacking:
        raise RequestError(
            "head: pretrained needs VGG's own classifier (classifier.0, classifier.3) among "
            f"model.weights, but they lack classifier.{lacking[0]}; take another head"
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
    kept.load_state_dict({name: backbone.classifier[name].clone() for name in names}, assign=True)
    return nn.Sequential(*kept, nn.Linear(second.shape[0], 1))


def make_optimizer(config: TrialConfig, model: TransferVGG16) -> torch.optim.Optimizer:
    """Fused Adam, AdamW or SGD over every trained parameter: the head at `lr`, convolutions at their share of it."""
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
    """With momenta of 0, from which the first step makes what it would have made without any.

    torch makes them in the first step, and leaves them uninitialised where that is skipped for its infinite gradients.
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


def multiply_adds(width: float, image_size: int, first: int, last: int) -> int:
    """Of `features[first:last]` for one image, convolutions only."""
    total, side, channels = 0, image_size, 3
    for index, layer in enumerate(feature_layers(width)[:last]):
        if isinstance(layer, nn.Conv2d):
            if index >= first:
                total += side * side * layer.out_channels * channels * 9
            channels = layer.out_channels
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
    return total
