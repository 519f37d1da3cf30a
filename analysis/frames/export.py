"""Exports records to the files of other tools: TensorBoard's events. Nothing is read back from them."""

import math
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.frames import results
from analysis.frames.columns import SETTINGS
from analysis.frames.snapshot import Snapshot, Source
from trainable.errors import RequestError
from trainable.records.rows import RATE_COLUMNS

CURVES: Final = (*RATE_COLUMNS, "lr", "images_per_second")


def to_tensorboard(run: Source, folder: Path) -> int:
    """Write each trial's curves and settings into its own subfolder of `folder`; returns the number of trials.

    Scalars are recorded at their epoch, with the time when it ended. The hparams tab shows each trial's settings with
    the values of its best epoch.

    Raises:
        RequestError: there is no run folder, a record is damaged, or `folder` is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(
            f"--tensorboard must be a new or empty folder, but {folder} is neither; give another one"
        )
    read = Snapshot.of(run)
    trials, epochs = results.trials(read), results.epochs(read)
    lines = dict(list(epochs.groupby("trial_id", sort=False)))
    for row in results.to_records(trials):
        _write(folder / row["trial_id"], row, lines.get(row["trial_id"]))
    return len(trials)


def _write(folder: Path, row: dict[str, Any], epochs: pd.DataFrame | None) -> None:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    with SummaryWriter(str(folder), write_to_disk=True) as writer:
        for line in results.to_records(epochs) if epochs is not None else []:
            ended = pd.Timestamp(line["ended_at"]).timestamp() if line["ended_at"] else None
            for name in CURVES:
                if line[name] is not None and math.isfinite(line[name]):
                    writer.add_scalar(_tag(name), line[name], line["epoch"], walltime=ended)
        settings = {
            name.removeprefix("config/"): row[name] for name in SETTINGS if row[name] is not None
        }
        reached = {name: row[name] for name in RATE_COLUMNS if row[name] is not None}
        for summary in hparams(
            settings, {f"best/{name}": value for name, value in reached.items()}
        ):
            writer.file_writer.add_summary(summary)
        for name, value in reached.items():
            writer.add_scalar(f"best/{name}", value, row["best_epoch"])


def _tag(name: str) -> str:
    """The scalar's tag: training and validation curves of one kind form one group."""
    part, _, kind = name.partition("_")
    return f"{kind}/{part}" if part in ("train", "val") else name
