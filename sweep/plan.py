"""What a sweep will do and need, known without Ray: trials, rungs, split, model sizes, disk."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from rich.table import Table
from rich.text import Text

from sweep.config import SweepConfig
from sweep.devices import gpus_of, precision_on
from sweep.packing import PROBE_SECONDS, Probe, tried
from sweep.prepare import Prepared
from sweep.rates import measure_rates
from sweep.sharing import cuts_of, decide_for, expected_epochs
from trainable.command import PlainConsole, duration
from trainable.config import RunSettings, Strategy, TrialConfig
from trainable.cpus import usable_cpus
from trainable.data import LabelledImages, balance
from trainable.device import device_of, has_gpu
from trainable.model import CUTS, Backbone, build_model, multiply_adds

BYTES_PER_PARAMETER = {  # best weights, and in last.pt the weights now and the optimizer's moments, in float32
    "adam": 4 * 4,
    "adamw": 4 * 4,
    "sgd": 3 * 4,
}


@dataclass(frozen=True)
class ModelSize:
    """One strategy with one head."""

    strategy: Strategy
    head: str
    trained_parameters: int
    frozen_multiply_adds: int
    """Convolutions of the frozen prefix for one image."""
    trained_multiply_adds: int
    """Convolutions of the trained suffix and the head for one image, forward."""


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
        multiply_adds(config.model.width, side, cut, 31) + head,
    )


def trial_bytes(config: SweepConfig, sizes: Iterable[ModelSize]) -> int:
    """Disk that the largest trial takes while it runs, and afterwards if it is kept."""
    largest = max(size.trained_parameters for size in sizes)
    optimizers = map(str, config.values_of("optimizer"))
    return largest * max(BYTES_PER_PARAMETER[optimizer] for optimizer in optimizers)


def show_plan(config: SweepConfig, prepared: Prepared, console: PlainConsole) -> None:
    """Print the plan."""
    sizes = model_sizes(config, prepared.backbone)
    rungs = config.asha.rungs(config.epochs) if config.asha else []
    console.print(Text(config.name, "bold"), f" →  {config.folder}", soft_wrap=True)
    console.print(
        f"{config.trials} trials of at most {config.epochs} epochs by {config.search.method}, "
        f"judged by {config.metric}; "
        + (
            f"ASHA compares them after epochs {', '.join(map(str, rungs))}"
            if rungs
            else "no pruning"
        ),
    )
    show_split(prepared, console)
    table = Table("strategy", "head", "trained parameters", "frozen work", "trained work", box=None)
    for size in sizes:
        both = size.frozen_multiply_adds + size.trained_multiply_adds
        table.add_row(
            size.strategy,
            size.head,
            f"{size.trained_parameters:,}",
            f"{size.frozen_multiply_adds / both:.0%}",
            f"{size.trained_multiply_adds / 1e6:,.0f} M multiply-adds an image",
        )
    console.print(table)
    console.print(_sharing(config, prepared), soft_wrap=True)
    console.print(
        f"disk: up to {trial_bytes(config, sizes) / 1e9:.2f} GB of weights and state for each trial that runs, "
        f"and for the best {config.keep.best} that are kept",
        soft_wrap=True,
    )


def _sharing(config: SweepConfig, prepared: Prepared) -> str:
    """What would be kept, were the trials to run on this machine, and on a GPU how long they would take."""
    parts = prepared.data.split["part"].value_counts()
    images = int(parts["train"]), int(parts["validation"])
    machine = device_of("cuda" if has_gpu() and config.resources.gpus_per_trial != 0 else "cpu")
    gpus = gpus_of([machine.facts() | {"hosts": ["this machine"]}])
    precision = precision_on(gpus, config.resources.precision) if gpus else "float32"
    cpus = usable_cpus()
    asked = config.resources.cpus_per_trial
    beside = 1 if gpus else min(cpus, config.trials)
    threads = max(1, cpus // beside) if asked == "auto" else asked
    where = f"measured on this machine's {machine.name() if gpus else 'CPU'}"
    lines, frozen = [], 0.0
    if config.sharing == "off":
        lines.append("sharing: off")
    else:
        try:
            rates = measure_rates(
                prepared.backbone,
                cuts_of(config),
                _training_images(config, prepared),
                threads,
                machine.kind,
                precision,
                config.store.limit,
            )
        except OSError as error:
            return f"sharing: none, since the store can't be used: {error}"
        decision = decide_for(config, rates, *images, half=precision != "float32")
        lines.append(f"{decision.said()} ({where})")
        frozen = decision.seconds_shared
    if gpus and config.sharing == "on":  # on a CPU, some steps of the largest head take too long
        run = RunSettings(
            folder=config.folder,
            images=prepared.data.table.images,
            image_size=config.data.image_size,
            weights=config.model.weights,
            width=config.model.width,
            epochs=config.epochs,
            device="cuda",
            precision=precision,
            tf32=False,
            threads=threads,
        )
        rate = Probe(run, tried(config)).rate(PROBE_SECONDS)
        seconds = predicted_seconds(config, images[0], frozen, rate)
        lines.append(
            f"predicted: about {duration(seconds)} in all, one trial at a time in {precision}, without CUDA graphs, "
            f"validation and writing ({where})"
        )
    return "\n".join(lines)


def predicted_seconds(config: SweepConfig, training: int, frozen: float, rate: float) -> float:
    """Of all trials one after another: frozen work, and as many images as they train on at `rate` a second."""
    return frozen + config.trials * expected_epochs(config) * training / rate


def _training_images(config: SweepConfig, prepared: Prepared) -> LabelledImages:
    """As a trial would open them, without labels."""
    rows = prepared.data.split.query("part == 'train'")
    return LabelledImages(
        folder=prepared.data.table.images,
        files=tuple(rows["file"]),
        labels=torch.zeros(len(rows)),
        image_size=config.data.image_size,
        digests=tuple(rows["sha256"]),
    )


def show_split(prepared: Prepared, console: PlainConsole) -> None:
    """Print what was understood of the data, counts and balance of the split, and every warning."""
    for line in prepared.data.understood():
        console.print(line, soft_wrap=True)
    negative, positive = prepared.data.table.classes
    target = prepared.data.table.target
    table = Table(
        "part", f"{target} {negative}", f"{target} {positive}", "images", "share", box=None
    )
    for part, row in balance(prepared.data.split).iterrows():
        table.add_row(
            str(part),
            f"{int(row['negative']):,}",
            f"{int(row['positive']):,}",
            f"{int(row['images']):,}",
            f"{row['positive_share']:.2%}",
        )
    console.print(table)
    for warning in prepared.warnings:
        console.warn(warning)
