"""The least time that a sweep can take on a machine: every piece of unique work once, at rates measured there.

Unique work: the frozen layers once for each image, view and layer that any trial needs; training and validation of what
a trial trains, for each trial and epoch; the bytes that each optimizer step must move. It is compared with the same
sweep without sharing, in which each trial runs its own frozen layers: the ratio is the most that sharing can gain.
Both leave out decoding, starting processes, building models and writing weights.

    python benchmarks/floor.py SETTINGS.json --images 24000 --validation 3000 --epochs 10 [--split split.parquet]
        [--image-size 224] [--width 1.0] [--threads 2] [--out floor.json]
    python benchmarks/floor.py --reference

A setting has strategy, augmentation, batch_size, head, optimizer and, if trials end early, epochs.
"""

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainable.config import Strategy, TrialConfig
from trainable.data import read_split
from trainable.data.views import view
from trainable.network.model import CUTS, Backbone, build_model, feature_layers, load_backbone
from trainable.network.model import multiply_adds as multiply_adds_of

LAST = CUTS["head"]
BOUNDS = sorted(CUTS.values())  # the same strategies need all layers between two of them
FORWARD_BATCH = 8  # images, for measuring a rate
EVALUATION_BATCH = 64
FLOATS_MOVED = {  # read and written by one step for each parameter
    "adam": 7,  # reads parameter, gradient and two moments, writes all but the gradient
    "adamw": 7,
    "sgd": 5,  # one moment
}
DISTURBED = 1.5  # ratio of slowest to fastest run above which a rate is doubtful
LARGEST_STEP = 2**26  # parameters, for measuring the optimizer's rate
multiply_adds = lru_cache(multiply_adds_of)


@dataclass(frozen=True)
class Trial:
    """The settings of a trial that determine its work."""

    strategy: Strategy
    augmentation: str
    batch_size: int
    head: str
    optimizer: str
    epochs: int

    @staticmethod
    def of(setting: Mapping[str, Any], epochs: int) -> "Trial":
        defaults = TrialConfig.model_fields
        names = ("strategy", "augmentation", "batch_size", "head", "optimizer")
        values = {name: setting.get(name, defaults[name].default) for name in names}
        return Trial(**values, epochs=setting.get("epochs", epochs))

    @property
    def cut(self) -> int:
        return CUTS[self.strategy]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data and the backbone."""

    images: int
    validation: int
    image_size: int
    width: float


@dataclass(frozen=True)
class Part:
    """Work that runs at one rate; multiply-adds, or bytes for the optimizer."""

    kind: str
    """forward | training | head training | head validation | optimizer"""
    first: int = 0
    last: int = 0
    """Of the layers `features[first:last]`."""
    head: str = ""
    batch_size: int = FORWARD_BATCH
    input_gradient: bool = True
    """Does the head's first layer pass on a gradient? Not if nothing trains before it."""

    def __str__(self) -> str:
        layers = f"features {self.first}–{self.last - 1}"
        match self.kind:
            case "forward":
                return f"forward, {layers}"
            case "training":
                return f"forward and backward, {layers}, batch {self.batch_size}"
            case "head training":
                rest = "" if self.input_gradient else ", no input gradient"
                return f"head {self.head} forward and backward, batch {self.batch_size}{rest}"
            case "head validation":
                return f"head {self.head} forward"
            case _:
                return "optimizer, bytes"


Work = Counter[Part]


# ---------------------------------------------------------------- counting


def distinct_views(
    images: int, epochs_of: tuple[tuple[str, int], ...], files: tuple[str, ...] | None
) -> float:
    """Pairs of image and view that training sees with each augmentation in its epochs: expected, or for `files`."""
    if files is not None:
        return _counted_views(files, epochs_of)
    epochs = dict(epochs_of)
    flips = epochs.get("flip", 0)
    mirrored = 1 - 0.5**flips
    original = 1.0 if "none" in epochs else mirrored
    return images * (original + mirrored + epochs.get("flip_jitter", 0))


@lru_cache
def _counted_views(files: tuple[str, ...], epochs_of: tuple[tuple[str, int], ...]) -> int:
    def seen(file: str) -> int:
        return len(
            {
                view(augmentation, 0, epoch, file)  # type: ignore[arg-type]
                for augmentation, epochs in epochs_of
                for epoch in range(1, epochs + 1)
            }
        )

    return sum(map(seen, files))


def _longest(trials: Sequence[Trial]) -> tuple[tuple[str, int], ...]:
    longest: dict[str, int] = {}
    for trial in trials:
        longest[trial.augmentation] = max(longest.get(trial.augmentation, 0), trial.epochs)
    return tuple(sorted(longest.items()))


def frozen_once(trials: Sequence[Trial], sizes: Sizes, files: tuple[str, ...] | None) -> Work:
    """The frozen layers, each once for every image and view that a trial needs it for."""
    work = Work()
    for first, last in pairwise(BOUNDS):
        needing = [trial for trial in trials if trial.cut >= last]
        if needing:
            images = distinct_views(sizes.images, _longest(needing), files) + sizes.validation
            macs = multiply_adds(sizes.width, sizes.image_size, first, last)
            work[Part("forward", first, last)] += round(images * macs)
    return work


def frozen_each_time(trials: Sequence[Trial], sizes: Sizes) -> Work:
    """The frozen layers, for every image in every epoch of every trial."""
    work = Work()
    for trial in trials:
        for first, last in pairwise(BOUNDS):
            if trial.cut >= last:
                macs = multiply_adds(sizes.width, sizes.image_size, first, last)
                images = trial.epochs * (sizes.images + sizes.validation)
                work[Part("forward", first, last)] += images * macs
    return work


def trained_work(
    trials: Sequence[Trial], sizes: Sizes, models: "Models", all_gradients: bool = False
) -> Work:
    """What trials train, which can't be shared: convolutions, head, optimizer.

    Backward takes twice the forward pass: the gradient of the weights, and of the input. The first layer that trains
    needs no gradient of its input; `all_gradients` counts it anyway.
    """
    work = Work()
    for trial in trials:
        size = models.size(trial)
        training, validation = trial.epochs * sizes.images, trial.epochs * sizes.validation
        if trial.cut < LAST:
            once = multiply_adds(sizes.width, sizes.image_size, trial.cut, LAST)
            spared = 0 if all_gradients else size.first_convolution
            part = Part("training", trial.cut, LAST, batch_size=trial.batch_size)
            work[part] += training * (3 * once - spared)
            for first, last in pairwise(BOUNDS):
                if first >= trial.cut:
                    macs = multiply_adds(sizes.width, sizes.image_size, first, last)
                    work[Part("forward", first, last)] += validation * macs
        passes_on = trial.cut < LAST
        spared = 0 if all_gradients or passes_on else size.first_linear
        part = Part(
            "head training",
            head=trial.head,
            batch_size=trial.batch_size,
            input_gradient=passes_on,
        )
        work[part] += training * (3 * size.head - spared)
        part = Part("head validation", head=trial.head, batch_size=EVALUATION_BATCH)
        work[part] += validation * size.head
        steps = trial.epochs * -(-sizes.images // trial.batch_size)
        moved = 4 * FLOATS_MOVED[trial.optimizer] * size.parameters
        work[Part("optimizer")] += steps * moved
    return work


@dataclass(frozen=True)
class ModelSize:
    """Multiply-adds of one image, and trained parameters."""

    first_convolution: int
    """Of the first convolution that trains."""
    first_linear: int
    head: int
    parameters: int


class Models:
    """Sizes of a trial's model, without its storage."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        with torch.device("meta"):
            features = feature_layers(sizes.width).state_dict()
        self._backbone = Backbone(sizes.width, features, {})
        self._known: dict[tuple[Strategy, str], ModelSize] = {}

    def linear(self, head: str) -> list[nn.Linear]:
        """The layers of a head, from input to output."""
        with torch.device("meta"):
            model = build_model(TrialConfig(strategy="head", head=head), self._backbone)
        return [layer for layer in model.classifier if isinstance(layer, nn.Linear)]

    def size(self, trial: Trial) -> ModelSize:
        key = trial.strategy, trial.head
        if key not in self._known:
            with torch.device("meta"):
                config = TrialConfig(strategy=trial.strategy, head=trial.head)
                model = build_model(config, self._backbone)
            linear = [layer.weight.numel() for layer in self.linear(trial.head)]
            width, side = self._sizes.width, self._sizes.image_size
            first = multiply_adds(width, side, trial.cut, min(trial.cut + 1, LAST))
            parameters = sum(p.numel() for p in model.trained().values())
            self._known[key] = ModelSize(first, linear[0], sum(linear), parameters)
        return self._known[key]


def count(
    trials: Sequence[Trial],
    sizes: Sizes,
    files: tuple[str, ...] | None = None,
    all_gradients: bool = False,
) -> tuple[Work, Work]:
    """Work of the sweep with everything shared that can be, and without sharing."""
    own = trained_work(trials, sizes, Models(sizes), all_gradients)
    return frozen_once(trials, sizes, files) + own, frozen_each_time(trials, sizes) + own


def total_multiply_adds(work: Work) -> float:
    return sum(amount for part, amount in work.items() if part.kind != "optimizer")


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Rate:
    """Multiply-adds (bytes for the optimizer) per second."""

    median: float
    spread: float
    """Ratio of the slowest to the fastest run; far above 1 if the machine had other work."""


def measure_rates(
    work: Work, trials: Sequence[Trial], sizes: Sizes, threads: int, repeats: int = 5
) -> dict[Part, Rate]:
    """The rate of every part on `threads`, from `repeats` runs."""
    torch.set_num_threads(threads)
    backbone = load_backbone("none", sizes.width)
    rates: dict[Part, Rate] = {}
    for part in sorted(work, key=str):
        match part.kind:
            case "forward":
                runs, amount = _forward(part, sizes, backbone)
            case "training":
                runs, amount = _training(part, sizes, backbone)
            case "head training" | "head validation":
                runs, amount = _head(part, sizes)
            case _:
                runs, amount = _step(trials, sizes)
        times = min((_seconds(run, repeats) for run in runs), key=statistics.median)
        rates[part] = Rate(amount / statistics.median(times), max(times) / min(times))
    return rates


def _seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each run, without the first two."""
    times = []
    for _ in range(2 + repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times[2:]


def _maps(layers: nn.Sequential, first: int, batch_size: int, image_size: int) -> torch.Tensor:
    """Positive random numbers with the input shape of `layers[first]`."""
    channels = next(layer.in_channels for layer in layers[first:] if isinstance(layer, nn.Conv2d))
    pools = sum(isinstance(layer, nn.MaxPool2d) for layer in layers[:first])
    side = image_size >> pools
    return torch.rand(batch_size, channels, side, side)


def _layers(sizes: Sizes, backbone: Backbone) -> nn.Sequential:
    layers = feature_layers(sizes.width)
    values = {name: value.clone() for name, value in backbone.features.items()}
    layers.load_state_dict(values, assign=True)
    return layers.requires_grad_(True)


Runs = tuple[list[Callable[[], object]], float]
"""The same work in each memory layout, the faster of which counts, and its amount."""


def _forward(part: Part, sizes: Sizes, backbone: Backbone) -> Runs:
    layers = _layers(sizes, backbone)
    images = _maps(layers, part.first, part.batch_size, sizes.image_size)

    def run(layout: torch.memory_format) -> Callable[[], object]:
        ready = images.contiguous(memory_format=layout)
        chosen = layers[part.first : part.last]

        @torch.inference_mode()
        def forward() -> None:
            chosen(ready)

        return forward

    macs = multiply_adds(sizes.width, sizes.image_size, part.first, part.last)
    layouts = (torch.contiguous_format, torch.channels_last)
    return [run(layout) for layout in layouts], part.batch_size * macs


def _training(part: Part, sizes: Sizes, backbone: Backbone) -> Runs:
    layers = _layers(sizes, backbone)
    images = _maps(layers, part.first, part.batch_size, sizes.image_size)

    def run(layout: torch.memory_format) -> Callable[[], object]:
        ready = images.contiguous(memory_format=layout)
        chosen = layers[part.first : part.last]

        def forward_backward() -> None:
            for parameter in chosen.parameters():
                parameter.grad = None
            chosen(ready).mean().backward()

        return forward_backward

    def macs(first: int, last: int) -> int:
        return multiply_adds(sizes.width, sizes.image_size, first, last)

    once = 3 * macs(part.first, part.last) - macs(part.first, part.first + 1)
    layouts = (torch.contiguous_format, torch.channels_last)
    return [run(layout) for layout in layouts], part.batch_size * once


def _head(part: Part, sizes: Sizes) -> Runs:
    """Only the matrix products, into allocated memory, including reading weights and writing gradients."""
    layers = Models(sizes).linear(part.head)
    products: list[Callable[[], object]] = []
    amount = 0
    for number, layer in enumerate(layers):
        weight = torch.rand(layer.out_features, layer.in_features)
        inputs = torch.rand(part.batch_size, layer.in_features)
        outputs = torch.empty(part.batch_size, layer.out_features)
        products.append(partial(torch.mm, inputs, weight.t(), out=outputs))
        amount += weight.numel()
        if part.kind == "head training":
            gradient = torch.empty_like(weight)
            products.append(partial(torch.mm, outputs.t(), inputs, out=gradient))
            amount += weight.numel()
            if number or part.input_gradient:
                passed = torch.empty_like(inputs)
                products.append(partial(torch.mm, outputs, weight, out=passed))
                amount += weight.numel()

    def run() -> None:
        for product_ in products:
            product_()

    return [run], part.batch_size * amount


def _step(trials: Sequence[Trial], sizes: Sizes) -> Runs:
    """A fused Adam step over as many parameters as the largest trial trains."""
    models = Models(sizes)
    numbers = min(max(models.size(trial).parameters for trial in trials), LARGEST_STEP)
    parameter = nn.Parameter(torch.zeros(numbers))
    parameter.grad = torch.full((numbers,), 1e-3)
    optimizer = torch.optim.Adam([parameter], fused=True)
    return [lambda: optimizer.step()], 4.0 * FLOATS_MOVED["adam"] * numbers


def seconds(work: Work, rates: Mapping[Part, Rate]) -> float:
    return sum(amount / rates[part].median for part, amount in work.items())


def floor(
    trials: Sequence[Trial],
    sizes: Sizes,
    threads: int,
    files: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Floor and ceilings with every part's work and rate, as plain JSON."""
    unique, peer = count(trials, sizes, files)
    rates = measure_rates(unique + peer, trials, sizes, threads)
    return {
        "trials": len(trials),
        "images": sizes.images,
        "validation": sizes.validation,
        "image_size": sizes.image_size,
        "width": sizes.width,
        "threads": threads,
        "views": "counted" if files is not None else "expected",
        "unique_multiply_adds": total_multiply_adds(unique),
        "peer_multiply_adds": total_multiply_adds(peer),
        "ceiling_by_multiply_adds": total_multiply_adds(peer) / total_multiply_adds(unique),
        "floor_seconds": seconds(unique, rates),
        "peer_seconds": seconds(peer, rates),
        "ceiling_by_time": seconds(peer, rates) / seconds(unique, rates),
        "parts": [
            {
                "part": str(part),
                "unit": "bytes" if part.kind == "optimizer" else "multiply-adds",
                "unique": unique[part],
                "peer": peer[part],
                "per_second": rates[part].median,
                "spread": rates[part].spread,
                "unique_seconds": unique[part] / rates[part].median,
                "peer_seconds": peer[part] / rates[part].median,
            }
            for part in sorted(peer, key=str)
        ],
    }


def show(found: Mapping[str, Any]) -> None:
    """Print what `floor` found as a table."""
    print(f"{'':58}{'unique':>10}{'peer':>10}{'a second':>12}{'unique s':>10}{'peer s':>10}")
    for part in found["parts"]:
        print(
            f"{part['part']:58}{part['unique']:10.3g}{part['peer']:10.3g}{part['per_second']:12.3g}"
            f"{part['unique_seconds']:10.1f}{part['peer_seconds']:10.1f}"
        )
    print(
        f"floor {found['floor_seconds']:.1f} s, peer at the same rates {found['peer_seconds']:.1f} s; "
        f"ceiling {found['ceiling_by_time']:.2f}× by time, "
        f"{found['ceiling_by_multiply_adds']:.2f}× by multiply-adds alone"
    )
    disturbed = [part["part"] for part in found["parts"] if part["spread"] > DISTURBED]
    if disturbed:
        print(f"the machine had other work while these were measured: {'; '.join(disturbed)}")


# ---------------------------------------------------------------- the known ceilings


def grid(
    strategies: Sequence[str], rates: int, augmentations: Sequence[str], batch_size: int = 32
) -> list[Trial]:
    """Ten epochs of every combination with `rates` learning rates."""
    return [
        Trial.of({"strategy": strategy, "augmentation": augmentation, "batch_size": batch_size}, 10)
        for strategy, _, augmentation in product(strategies, range(rates), augmentations)
    ]


BOTH = ("head", "block5")
REFERENCE = {  # known ceilings by multiply-adds alone, full width, 224 px, 24,000 and 3,000 images
    "12 trials, 2 strategies × 2 lr × 3 augmentations": (
        4.7,
        grid(BOTH, 2, ("none", "flip", "flip_jitter")),
    ),
    "8 trials, the same without jitter": (6.5, grid(BOTH, 2, ("none", "flip"))),
    "4 trials of report M, flip, batch 64": (5.7, grid(BOTH, 2, ("flip",), 64)),
    "24 trials, 2 strategies, flip": (7.2, grid(BOTH, 12, ("flip",))),
    "24 trials of the head, flip": (37.0, grid(("head",), 24, ("flip",))),
}


def show_reference() -> None:
    """Print the ceilings of `REFERENCE`, with a gradient of every layer's input, and without the unnecessary ones."""
    sizes = Sizes(24_000, 3_000, 224, 1.0)
    print(f"{'':52}{'known':>8}{'all gradients':>16}{'needed alone':>16}")
    for name, (known, trials) in REFERENCE.items():
        ceilings = []
        for all_gradients in (True, False):
            unique, peer = count(trials, sizes, all_gradients=all_gradients)
            ceilings.append(total_multiply_adds(peer) / total_multiply_adds(unique))
        print(f"{name:52}{known:8.1f}{ceilings[0]:16.2f}{ceilings[1]:16.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path, nargs="?", help="JSON list of settings")
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--validation", type=int, default=3_000)
    parser.add_argument("--split", type=Path, help="counts images and their views exactly")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--reference", action="store_true", help="print known ceilings, and exit")
    arguments = parser.parse_args()
    if arguments.reference:
        show_reference()
        return
    if arguments.settings is None:
        parser.error("give SETTINGS.json or --reference")
    files = None
    if arguments.split:
        parts = read_split(arguments.split, ("train", "validation"))
        files = tuple(parts.loc[parts["part"] == "train", "file"])
        arguments.images = len(files)
        arguments.validation = len(parts) - len(files)
    settings = json.loads(arguments.settings.read_text())
    trials = [Trial.of(setting, arguments.epochs) for setting in settings]
    sizes = Sizes(arguments.images, arguments.validation, arguments.image_size, arguments.width)
    found = floor(trials, sizes, arguments.threads, files)
    show(found)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
