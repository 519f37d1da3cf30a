"""What a sweep will do and need, known before it starts: data, trials, rungs, split, model sizes, memory, disk."""

import shutil

import torch
from rich.table import Table
from rich.text import Text

from sweep.frozen.policy import cuts_of, decide_for, expected_epochs
from sweep.frozen.rates import RateProbe, measure_rates
from sweep.request.config import SweepConfig
from sweep.request.prepare import Prepared
from sweep.request.refusals import nearest
from sweep.resources.devices import gpus_of, precision_on
from sweep.resources.machine import Machine
from sweep.resources.needs import ModelSize, memory_bytes, model_sizes, trial_bytes
from sweep.resources.packing import PROBE_SECONDS, Probe, largest, tried
from trainable.config import RunSettings
from trainable.data import LabelledImages, balance
from trainable.hardware.cpus import usable_cpus
from trainable.hardware.device import device_of, has_gpu
from trainable.show.terminal import PlainConsole
from trainable.show.wording import duration


def show_plan(
    config: SweepConfig, prepared: Prepared, machine: Machine, console: PlainConsole
) -> None:
    """Print the plan."""
    sizes = model_sizes(config, prepared.backbone)
    console.print(Text(config.name, "bold"), f" →  {config.folder}", soft_wrap=True)
    console.print(
        f"{config.trials} trials of at most {config.epochs} epochs by {config.search.method}, "
        f"judged by {config.metric}; {_pruning(config)}"
    )
    show_data(prepared, console)
    table = Table("strategy", "head", "trained parameters", "frozen work", "trained work", box=None)
    for size in sizes:
        both = size.frozen_multiply_adds + size.trained_multiply_adds
        table.add_row(
            size.strategy,
            size.head,
            f"{size.trained_parameters:,}",
            f"{size.frozen_multiply_adds / both:.0%}",
            f"{size.trained_multiply_adds / 1e6:,.0f} M multiply-adds per image",
        )
    console.print(table)
    console.print(_sharing(config, prepared), soft_wrap=True)
    console.print(said_of_trials(machine), soft_wrap=True)
    for line, enough in (
        _memory(config, prepared, machine, sizes),
        _disk(config, machine, sizes),
    ):
        if enough:
            console.print(line, soft_wrap=True)
        else:
            console.warn(line)
    for warning in machine.warnings:
        console.warn(warning)


def _pruning(config: SweepConfig) -> str:
    """When trials are compared, and with which others."""
    asha = config.asha
    rungs = asha.rungs(config.epochs) if asha else []
    if asha is None or not rungs:
        return "no pruning"
    whom = "those of each strategy" if asha.rungs_of == "strategy" else "them"
    return f"ASHA compares {whom} after epochs {', '.join(map(str, rungs))}"


def said_of_trials(machine: Machine) -> str:
    """How many trials run at a time, and on what."""
    granted = machine.granted
    gpu = f"{granted.gpus:g} GPU and " if granted.gpus else ""
    return f"{granted.concurrent} trials at a time, each with {gpu}{granted.cpus} CPU"


def _memory(
    config: SweepConfig, prepared: Prepared, machine: Machine, sizes: list[ModelSize]
) -> tuple[str, bool]:
    """The memory that trials need, and whether it is free."""
    each = memory_bytes(config, sizes, prepared.backbone, largest(config, "batch_size"))
    granted = machine.granted
    needed = f"memory: up to {each / 1e9:.2f} GB for a trial's tensors (computed, not measured)"
    if not machine.is_here:
        return f"{needed}, on its {'GPU' if granted.gpus else 'node'}", True
    free = device_of("cuda" if granted.gpus else "cpu").free_bytes()
    beside = max(1, round(1 / granted.gpus)) if granted.gpus else granted.concurrent
    where = (
        "on a GPU, which also holds features as far as there is room" if granted.gpus else "here"
    )
    said = f"{needed}; {beside} side by side {beside * each / 1e9:.2f} of {free / 1e9:.1f} GB free {where}"
    return said, beside * each <= free


def _disk(config: SweepConfig, machine: Machine, sizes: list[ModelSize]) -> tuple[str, bool]:
    """The disk space that weights and states need, and whether it is free."""
    each, kept = trial_bytes(config, sizes), min(config.keep.best, config.trials)
    count = min(machine.granted.concurrent + kept, config.trials)
    free = shutil.disk_usage(nearest(config.storage)).free
    said = (
        f"disk: up to {count * each / 1e9:.2f} GB of weights and states ({each / 1e9:.2f} GB for each running trial, "
        f"and for each of the best {kept}, which are kept) of {free / 1e9:.1f} GB free at {config.storage}"
    )
    return said, count * each <= free


def _sharing(config: SweepConfig, prepared: Prepared) -> str:
    """What would be kept if the trials ran on this machine, and on a GPU how long they would take."""
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
            probe = RateProbe(
                cuts=tuple(cuts_of(config)),
                images=_training_images(config, prepared),
                threads=threads,
                device=machine.kind,
                precision=precision,
                limit_bytes=config.store.limit,
            )
            rates = measure_rates(prepared.backbone, probe)
        except OSError as error:
            return f"sharing: none, since the store can't be used: {error}"
        plan = decide_for(config, rates, *images, half=precision != "float32")
        lines.append(f"{plan.said()} ({where})")
        frozen = plan.seconds_shared
    if gpus and config.sharing == "on":  # on a CPU, a few steps of the largest head take too long
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
            f"predicted: about {duration(seconds)} in total, one trial at a time in {precision}, without CUDA graphs, "
            f"validation and writing ({where})"
        )
    return "\n".join(lines)


def predicted_seconds(config: SweepConfig, training: int, frozen: float, rate: float) -> float:
    """Seconds of all trials one after another: frozen work, and the images that they train on at `rate` per second."""
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


def show_data(prepared: Prepared, console: PlainConsole) -> None:
    """Print how data and weights were read, counts and balance of the split, and every warning."""
    for line in (*prepared.data.understood(), *prepared.remarks):
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
