"""Everything that can be refused before Ray starts: table, images, split, weights. Nothing is written to the run."""

from dataclasses import dataclass
from pathlib import Path

from sweep.request.config import SweepConfig
from sweep.request.open_run import Run
from sweep.request.refusals import check_resources
from trainable.config import TrialConfig
from trainable.data import PARTS, read_split
from trainable.data.examine import Begin, Examined, examine, no_progress, open_data
from trainable.data.inspection import inspect_images
from trainable.errors import RequestError
from trainable.hardware.cache import default_folder
from trainable.network.model import PRETRAINED_HEAD, Backbone, build_model, fitted, load_backbone
from trainable.network.weights import check_source, read_weights, refuse_infinite, refuse_unfit
from trainable.records.files import sha256_of


@dataclass(frozen=True)
class Prepared:
    """What a run is made from."""

    data: Examined
    backbone: Backbone
    warnings: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """How the weights were read, if that needs saying."""


def prepare(config: SweepConfig, begin: Begin = no_progress) -> Prepared:
    """Read and check everything the trials need; `begin(text, total)` gives a progress callback.

    Raises:
        RequestError: in one line, what is wrong.
    """
    check_resources(config)
    check_source(config.model.weights, config.model.width)
    opened = open_data(config.data)  # before half a gigabyte of weights is fetched
    backbone, remarks = new_backbone(config)
    data = examine(config.data, begin, opened)
    return Prepared(data, backbone, (*data.warnings(), *_warnings(config)), remarks)


def new_backbone(config: SweepConfig) -> tuple[Backbone, tuple[str, ...]]:
    """The backbone of a new run, and how its file was read.

    Raises:
        RequestError: as in load_backbone; also weights that are not finite, which would make every trial diverge.
    """
    model = config.model
    remarks: tuple[str, ...] = ()
    if model.weights == "none":
        backbone = load_backbone("none", model.width)
    else:
        weights = read_weights(model.weights, model.width)
        backbone, remarks = fitted(weights, model.width), weights.said()
        refuse_unfit(weights)
    check_heads(config, backbone)
    if "pretrained" in config.values_of("head"):
        check_classifier(config, backbone)
    return backbone, remarks


def check_unchanged(run: Run, begin: Begin = no_progress) -> list[str]:
    """Check that images and weights are unchanged; return a line for each change that does not matter.

    Raises:
        RequestError: an image or the weights have changed.
    """
    check_images(run, begin)
    check_weights(run)
    table = run.manifest.table
    if table and not is_its_table(run, table):
        return [
            f"{table} has changed or is missing: the run keeps the labels that it began with; if it only moved, say "
            "where it is now by `sweep resume RUN data.table=PLACE`"
        ]
    return []


def check_images(run: Run, begin: Begin = no_progress) -> None:
    """Check that every image is unchanged.

    Raises:
        RequestError: one has changed or is missing.
    """
    images = run.manifest.image_folder
    rows = read_split(run.folder.split, PARTS)
    looked = inspect_images(
        images, list(rows["file"]), default_folder(), begin("checking images", len(rows))
    )
    changed = rows.loc[(looked.images["sha256"] != rows["sha256"]).to_numpy(), "file"]
    if len(changed):
        raise RequestError(
            f"every image must stay as it was when the run began, but {images / changed.iloc[0]} has changed or "
            f"is missing{f' (and {len(changed) - 1:,} more)' if len(changed) > 1 else ''}; "
            "put the old one back, say where the images are now (`sweep resume RUN data.images=PLACE`), or start "
            "another run"
        )


def check_weights(run: Run) -> None:
    """Check that the weights are unchanged.

    Raises:
        RequestError: they have changed, or can't be read.
    """
    model = run.config.model
    if load_backbone(model.weights, model.width).digest() != run.manifest.digests.weights:
        raise RequestError(
            f"the weights {model.weights} must stay as they were when the run began, but they have changed; "
            "put the old ones back, say where they are now (`sweep resume RUN model.weights=PLACE`), or start another "
            "run"
        )


def is_its_table(run: Run, table: Path) -> bool:
    """Is `table` the file that the run began with?"""
    return table.is_file() and sha256_of(table) == run.manifest.digests.table


def check_heads(config: SweepConfig, backbone: Backbone) -> None:
    """Check that every head of the space can be built on these weights.

    Raises:
        RequestError: `head: pretrained` on weights without a classifier.
    """
    if "pretrained" in config.values_of("head"):
        build_model(TrialConfig(strategy="head", head="pretrained"), backbone)


def check_classifier(config: SweepConfig, backbone: Backbone) -> None:
    """Check that VGG's own classifier is finite; torchvision has weights whose convolutions alone are.

    Raises:
        RequestError: it is not finite.
    """
    for name, tensor in backbone.classifier.items():
        if name in PRETRAINED_HEAD:
            refuse_infinite(f"classifier.{name}", tensor, config.model.weights)


def _warnings(config: SweepConfig) -> list[str]:
    found = []
    if config.model.weights == "none" and config.values_of("strategy") != ["full"]:
        found.append(
            "model.weights is none: a frozen backbone of random weights learns next to nothing"
        )
    if config.asha and not config.asha.rungs(config.epochs):
        found.append(
            f"ASHA compares nothing: its grace period of {config.asha.grace_period} "
            f"leaves no rung before epoch {config.epochs}"
        )
    strategies = config.values_of("strategy")
    if config.asha and config.asha.rungs_of == "strategy" and len(strategies) == 1:
        found.append(
            f"asha.rungs_of: strategy changes nothing: every trial has the strategy {strategies[0]}"
        )
    return found
