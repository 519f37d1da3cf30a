"""Everything that can be refused before Ray starts: table, images, split, weights. Nothing is written to the run."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from sweep.config import SweepConfig
from trainable.audit import Audit, audit
from trainable.config import RequestError, TrialConfig
from trainable.data import FaceTable, make_split, open_table, split_warnings
from trainable.model import Backbone, build_model, load_backbone
from trainable.store import default_folder

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Prepared:
    """What a run is made from."""

    table: FaceTable
    audit: Audit
    split: pd.DataFrame
    backbone: Backbone
    warnings: tuple[str, ...]


def prepare(
    config: SweepConfig,
    begin: Callable[[str, int], Progress] = lambda text, total: lambda count: None,
) -> Prepared:
    """Read and check everything the trials need; `begin(text, total)` gives a progress callback.

    Raises:
        RequestError: with one line that names what is wrong.
    """
    backbone = load_backbone(config.model.weights, config.model.width)
    check_heads(config, backbone)
    table = open_table(config.data)
    split = make_split(table, config.data.split)
    files = list(table.rows["file"])
    looked = audit(
        table.images, files, default_folder(), begin("looking at every image", len(files))
    )
    if looked.problems and config.data.unreadable == "refuse":
        file, problem = looked.problems[0]
        others = f" (and {len(looked.problems) - 1:,} more)" if len(looked.problems) > 1 else ""
        raise RequestError(
            f"every image must be readable, but {table.images / file} {problem}{others}; "
            f"replace it, or data.unreadable=drop goes on without it"
        )
    if looked.problems:
        table = table.without({file for file, _ in looked.problems})
        split, looked = make_split(table, config.data.split), looked.sound
    split["sha256"] = looked.images["sha256"].to_numpy()
    return Prepared(table, looked, split, backbone, tuple(_warnings(config, table, looked, split)))


def check_heads(config: SweepConfig, backbone: Backbone) -> None:
    """Can every head of the space be built on these weights?

    Raises:
        RequestError: `head: pretrained` on weights without a classifier.
    """
    if "pretrained" in config.values_of("head"):
        build_model(TrialConfig(strategy="head", head="pretrained"), backbone)


def _warnings(
    config: SweepConfig, table: FaceTable, looked: Audit, split: pd.DataFrame
) -> list[str]:
    found = split_warnings(split)
    for files, what in (
        (table.dropped, "rows without an image"),
        (table.unreadable, "images that can't be decoded"),
    ):
        if files:
            shown = ", ".join(files[:5]) + (", …" if len(files) > 5 else "")
            found.append(f"{len(files):,} {what} are left out: {shown}")
    if looked.duplicates:
        found.append(
            f"{looked.duplicates:,} images have the same bytes as another: "
            "pictures may stand in two parts of the split"
        )
    if config.model.weights == "none" and config.values_of("strategy") != ["full"]:
        found.append(
            "model.weights is none: a frozen backbone of random weights learns next to nothing"
        )
    if config.asha and not config.asha.rungs(config.epochs):
        found.append(
            f"ASHA compares nothing: its grace period of {config.asha.grace_period} "
            f"leaves no rung before epoch {config.epochs}"
        )
    return found
