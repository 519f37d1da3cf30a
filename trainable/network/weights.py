"""Pretrained weights from a file or from torchvision, whatever wraps them, under torchvision's names.

Recorded runs also read their weights here, so reading must never change; checks that only new requests must pass are
in `refuse_unfit`.
"""

import http.client
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
import torchvision
from torch import Tensor

from trainable.errors import RequestError
from trainable.network.weight_kinds import HEAD_BYTES, is_safetensors, what_is

IMAGENET: Final = torchvision.models.VGG16_Weights.IMAGENET1K_V1
KEYS: Final = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights in their checkpoints."""
TORCH_PICKLE: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of torch.save before 1.6


@dataclass(frozen=True)
class Weights:
    """A state dict under torchvision's names, in the number formats of its file."""

    source: str
    state: Mapping[str, Tensor]
    remarks: tuple[str, ...] = ()
    """How it was found, if that needs saying."""

    def said(self) -> tuple[str, ...]:
        """What the user should know about how the file was read, in a line or none."""
        formats = {str(t.dtype).removeprefix("torch.") for t in _used(self.state).values()}
        others = sorted(formats - {"float32"})
        remarks = [*self.remarks, *(f"{name} read as float32" for name in others)]
        return (f"weights {self.source}: {', '.join(remarks)}",) if remarks else ()


def check_source(weights: str, width: float) -> None:
    """Check the weights as far as possible without fetching or loading them.

    Raises:
        RequestError: there is no such file, or it is something else; ImageNet's have another width.
    """
    if weights == "imagenet" and width != 1:
        raise RequestError(
            f"model.weights: imagenet is full-width VGG-16, but model.width is {width:g}"
        )
    if weights == "imagenet" and imagenet_file().is_file():
        _refuse_other(imagenet_file())
    elif weights not in ("imagenet", "none"):
        _refuse_other(Path(weights))


def read_weights(weights: str, width: float) -> Weights:
    """The weights named `imagenet`, or in the file at a path.

    Raises:
        RequestError: they can't be obtained, or are not a state dict.
    """
    check_source(weights, width)
    if weights == "imagenet":
        return Weights("IMAGENET1K_V1", _imagenet())
    state, inside = _tensors(_loaded(Path(weights)), weights)
    state, taken = _torchvision_names(state, weights)
    remarks = [f"from its key {'.'.join(inside)}"] if inside else []
    return Weights(weights, state, (*remarks, *taken))


def imagenet_file() -> Path:
    """Where torchvision stores the ImageNet weights and looks for them."""
    name: str = IMAGENET.url.rsplit("/", 1)[1]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def refuse_unfit(weights: Weights) -> None:
    """Check that a network can compute with the weights.

    For new runs only: a recorded run can continue.

    Raises:
        RequestError: a tensor of integers, or one with values that are not finite in float32.
    """
    for name, tensor in _used(weights.state).items():
        if not tensor.is_floating_point():
            raise RequestError(
                f"model.weights must be floating-point numbers, but {name} in {weights.source} is "
                f"{str(tensor.dtype).removeprefix('torch.')} (quantised?); use them as they were trained"
            )
        if name.startswith("features."):
            refuse_infinite(name, tensor, weights.source)


def refuse_infinite(name: str, tensor: Tensor, source: str) -> None:
    """Check that every value of a tensor is finite in float32.

    Raises:
        RequestError: one is NaN or infinite.
    """
    values = tensor.float()
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        kind = "NaN" if bool(torch.isnan(values).any()) else "infinite"
        raise RequestError(
            f"model.weights must be finite, but {name} in {source} is not: {bad:,} of {values.numel():,} values are "
            f"{kind} (did the training diverge?); use other weights"
        )


def _used(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of it that VGG-16 uses."""
    return {n: t for n, t in state.items() if n.startswith(("features.", "classifier."))}


def _imagenet() -> Mapping[str, Tensor]:
    if imagenet_file().is_file():  # torchvision would run code from it
        return _tensors(_loaded(imagenet_file()), str(imagenet_file()))[0]
    try:
        state: Mapping[str, Tensor] = IMAGENET.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise RequestError(
            f"model.weights: imagenet needs {imagenet_file()} or a download, but has neither ({error}); "
            f"put {imagenet_file().name} there, or give its path as model.weights"
        ) from None
    return state


# ---------------------------------------------------------------- what the file is


def _refuse_other(path: Path) -> None:
    if path.is_dir():
        raise _refusal(path, "a folder: give the file inside")
    if not path.is_file():
        raise RequestError(
            f"model.weights must be imagenet, none or the path of a state dict, but there is no file {path}"
        )
    try:
        kind = what_is(path)
    except OSError as error:
        raise _refusal(path, f"unreadable: {error.strerror}") from None
    if kind:
        raise _refusal(path, kind)


def _refusal(path: Path, kind: str) -> RequestError:
    again = "; delete it, and it will be downloaded again" if path == imagenet_file() else ""
    return RequestError(
        f"model.weights must be a state dict of VGG-16 (.pth or .safetensors), but {path} is {kind}{again}"
    )


def _loaded(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        if is_safetensors(head):
            return safetensors.torch.load_file(path)
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from foreign pickles, which are refused in one line
            # not the path: torch would judge it by its name
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch and safetensors raise many kinds for a file of another kind
        raise _refusal(path, _why(error, head)) from None


def _why(error: Exception, head: bytes) -> str:
    """Why a file could not be loaded, in our words: torch's advise loading it with the code in it."""
    if isinstance(error, OSError):
        return f"unreadable: {error.strerror or error}"
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"more than tensors: it holds {found[1]}, which only code from the file could create, and that is not run; "
            "save only the weights where the file comes from: torch.save(model.state_dict(), 'weights.pth')"
        )
    if head.startswith(b"PK\x03\x04") and type(error).__name__ == "UnpicklingError":
        return "more than tensors, or damaged: code from the file is not run; save the model's state_dict()"
    known = head.startswith((b"PK\x03\x04", TORCH_PICKLE)) or is_safetensors(head)
    if not known and head.startswith(b"\x80"):
        return "a pickle that torch.save did not write, whose code is not run: save the model's state_dict()"
    if known:
        return "cut short or damaged (a download that broke off?): fetch it again"
    return "of an unknown kind"


# ---------------------------------------------------------------- what is wrapped around the tensors


def _tensors(loaded: Any, source: str) -> tuple[Mapping[str, Tensor], list[str]]:
    """The tensors by name, and the keys of the checkpoint under which they were found.

    Raises:
        RequestError: there are none, or several sets of them.
    """
    inside: list[str] = []
    while isinstance(loaded, Mapping):
        here = {n: v for n, v in loaded.items() if isinstance(n, str) and isinstance(v, Tensor)}
        if here:
            return here, inside
        keys = _likely([key for key, value in loaded.items() if _holds_tensors(value)], loaded)
        if len(keys) > 1:
            raise RequestError(
                f"model.weights must be one state dict, but {source} holds several ({', '.join(keys)}); "
                "save only the one you want"
            )
        if not keys:
            break
        inside.append(keys[0])
        loaded = loaded[keys[0]]
    raise RequestError(
        f"model.weights must be a state dict (name → tensor), but {source} holds {type(loaded).__name__}"
        + (" without tensors" if isinstance(loaded, Mapping) else "")
    )


def _holds_tensors(value: Any) -> bool:
    """At any depth, but only under names: an optimizer's state is keyed by numbers."""
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and (isinstance(inner, Tensor) or _holds_tensors(inner))
        for key, inner in value.items()
    )


def _likely(keys: list[str], loaded: Mapping[str, Any]) -> list[str]:
    """Of several keys, those under which a training script keeps its model, or else those that hold layers."""
    if len(keys) < 2:
        return keys
    if named := [key for key in keys if key in KEYS]:
        return named
    return [key for key in keys if any(str(n).endswith(".weight") for n in loaded[key])] or keys


def _torchvision_names(
    state: Mapping[str, Tensor], source: str
) -> tuple[Mapping[str, Tensor], list[str]]:
    """`state` without the prefixes that wrappers add to names (`module.`, `model.`, …), and a remark on that.

    Raises:
        RequestError: it holds several networks.
    """
    if "features.0.weight" in state:
        return state, []
    prefixes = [
        n.removesuffix("features.0.weight") for n in state if n.endswith(".features.0.weight")
    ]
    inner = ""
    if not prefixes:  # only the convolutions, as from model.features.state_dict()
        first = [
            n.removesuffix("0.weight") for n in state if re.fullmatch(r"(?:.*\.)?0\.weight", n)
        ]
        prefixes = [
            p for p in first if f"{p}28.weight" in state and state[f"{p}28.weight"].ndim == 4
        ]
        inner = "features."
    if len(prefixes) > 1:
        raise RequestError(
            f"model.weights must be of one network, but {source} has several (names begin with "
            f"{', '.join(prefixes)}); save only the one you want"
        )
    if not prefixes:
        return state, []
    prefix = prefixes[0]
    named = {inner + n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    return named, [
        f"without the prefix {prefix} of its names"
        if prefix
        else "with the names of `features` only"
    ]
