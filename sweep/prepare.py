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
    if "pretrained" in config.values_of("head"):
        build_model(TrialConfig(strategy="head", head="pretrained"), backbone)
    table = open_table(config.data)
    split = make_split(table, config.data.split)
    files = list(table.rows["file"])
    looked = audit(
        table.images, files, default_folder(), begin("looking at every image", len(files))
    )
    if looked.problems:
        file, problem = looked.problems[0]
        others = f" (and {len(looked.problems) - 1:,} more)" if len(looked.problems) > 1 else ""
        raise RequestError(
            f"every image must be readable, but {table.images / file} {problem}{others}; "
            f"replace it, or take its row out of {table.table}"
        )
    split["sha256"] = looked.images["sha256"].to_numpy()
    return Prepared(table, looked, split, backbone, tuple(_warnings(config, table, looked, split)))


def _warnings(
    config: SweepConfig, table: FaceTable, looked: Audit, split: pd.DataFrame
) -> list[str]:
    found = split_warnings(split)
    if table.dropped:
        shown = ", ".join(table.dropped[:5]) + (", …" if len(table.dropped) > 5 else "")
        found.append(f"{len(table.dropped):,} rows without an image are left out: {shown}")
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
