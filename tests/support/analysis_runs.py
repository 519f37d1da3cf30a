"""Run folders as a sweep leaves them, made by real training on tiny images, without Ray.

python tests/support/analysis_runs.py FOLDER [TRIALS]    makes one with every status, to look at a report of it
"""

import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from sweep.request.config import check_config, dump_config
from sweep.request.space import SearchSpace
from tests.support.faces import write_faces
from tests.support.manifests import edit_manifest, put_manifest, session
from trainable.config import DataConfig, RunSettings, SplitConfig, TrialConfig
from trainable.data import add_digests, make_split, open_table, open_training_data
from trainable.fit import fit
from trainable.network.model import load_backbone
from trainable.records.files import now, sha256_of, write_json
from trainable.records.manifest import (
    Configuration,
    Digests,
    Granted,
    Images,
    Overlap,
    SessionEnd,
)
from trainable.records.rows import Outcome, Status, StatusRecord
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

NO_OVERLAP = Overlap(
    same=0,
    near=0,
    pairs_across_parts=(),
    persons_across_parts=None,
    test_images_of_known_persons=None,
)
WIDTH = 0.05  # of VGG-16's channels: a step takes milliseconds
EPOCHS = 3
SPACE: dict[str, Any] = {
    "strategy": ["head", "block5"],
    "lr": {"loguniform": [1e-4, 0.1]},
    "optimizer": ["adam", "sgd"],
    "momentum": {"when": {"optimizer": "sgd"}, "uniform": [0.8, 0.99]},
    "augmentation": ["none", "flip"],
    "head": "linear",
    "batch_size": 8,
}


@dataclass(frozen=True)
class Made:
    """A trial to make: its settings, and an end other than its own after so many epochs."""

    settings: Mapping[str, Any]
    status: Status | None = None
    epochs: int = EPOCHS
    reason: str = ""


GOOD = Made({"strategy": "block5", "lr": 3e-3})
POOR = Made({"strategy": "head", "lr": 1e-4})
SGD = Made({"strategy": "head", "lr": 1e-3, "optimizer": "sgd", "momentum": 0.9})
PRUNED = Made({"strategy": "head", "lr": 3e-4}, Status.PRUNED, 1, "0.5 at epoch 1 is below 0.75")
FAILED = Made({"strategy": "block5", "lr": 2e-4}, Status.FAILED, 2, "OSError: disk full")
DIVERGED = Made({"strategy": "block5", "lr": 1e6, "optimizer": "sgd", "momentum": 0.99})
PENDING = Made({"strategy": "block5", "lr": 5e-4}, Status.PENDING, 0)


def make_run(
    root: Path,
    trials: Sequence[Made],
    *,
    name: str = "smiling",
    target: str = "Smiling",
    images: Path | None = None,
    image_size: int = 32,
    width: float = WIDTH,
    epochs: int = EPOCHS,
    metric: str = "val_accuracy",
    how: str | None = "finished",
) -> Path:
    """A run folder in `root` with these trials on record; forty images are drawn there where none are given."""
    images = images or write_faces(root, 40).images
    config = check_config(
        {
            "name": name,
            "storage": root,
            "data": {
                "images": images,
                "target": target,
                "image_size": image_size,
                "split": {"validation": 0.2, "test": 0.2},
            },
            "model": {"weights": "none", "width": width},
            "trial": SPACE | {"epochs": epochs},
            "search": {"method": "random", "trials": max(len(trials), 1)},
            "metric": metric,
        },
        {},
        "analysis_runs.py",
    )
    table = open_table(DataConfig(images=images, target=target))
    run = RunFolder(config.folder)
    (run.path / "trials").mkdir(parents=True)
    split = make_split(table, SplitConfig(validation=0.2, test=0.2))
    add_digests(split, table.images).to_parquet(run.split, index=False)
    run.config.write_text(dump_config(config), encoding="utf-8")
    write_json(run.session, {"number": 1})
    settings = RunSettings(
        folder=run.path,
        images=table.images,
        image_size=image_size,
        weights="none",
        width=width,
        epochs=epochs,
        metric=config.metric,
    )
    backbone = load_backbone("none", width)
    ended = how if how is None else SessionEnd(how)
    assert table.table is not None
    put_manifest(
        run,
        configurations=(Configuration.of(dump_config(config), ["sweep", "run", "smiling.yaml"]),),
        digests=Digests(
            table=sha256_of(table.table),
            images=hashlib.sha256(b"images").hexdigest(),
            split=sha256_of(run.split),
            weights=backbone.digest(),
        ),
        target=target,
        classes=table.classes,
        images=Images(count=len(table.rows), overlap=NO_OVERLAP),
        image_folder=table.images,
        settings=settings,
        resources=Granted(gpus_per_trial=0, cpus_per_trial=1, concurrent=2),
        sharing={"off": "made for a test"},
        sessions=(session(1, ended),),
    )
    data = open_training_data(run.split, settings.images, image_size)
    for number, made in enumerate(trials):
        trial = complete(config.space, made.settings)
        record = TrialRecord.create(run, trial, number, 1)
        started = now()
        training = fit(trial, settings, data, backbone, record)
        if made.status is None:
            outcome = _exhaust(training)
        else:
            list(islice(training, made.epochs))
            training.close()
            outcome = Outcome(made.status, made.reason)
        write_outcome(record, outcome, started)
    return run.path


def complete(space: SearchSpace, settings: Mapping[str, Any]) -> TrialConfig:
    """The settings with the space's fixed ones."""
    return TrialConfig(**{**dict(space.fixed), **settings})


def _exhaust(training: Any) -> Outcome:
    while True:
        try:
            next(training)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def write_outcome(record: TrialRecord, outcome: Outcome, started: str) -> None:
    """The status as a trial's own actor, or the driver, writes it."""
    ended = outcome.status.has_ended
    record.write_status(
        StatusRecord(
            outcome.status,
            outcome.reason,
            attempt=1,
            host="here",
            device="cpu, 1 threads",
            started=started,
            ended=now() if ended else "",
            seconds=sum(row.seconds for row in record.rows()),
        )
    )


@cache
def template(base: Path) -> Path:
    """A finished run with trials of many ends in the tests' folder `base`, made once; tests work on copies."""
    root = base / "analysis-runs"
    root.mkdir()
    return make_run(root, [POOR, GOOD, SGD, PRUNED, FAILED, DIVERGED])


def copy_of(run: Path, to: Path) -> Path:
    """The run moved to another place, as people do."""
    return Path(shutil.copytree(run, to))


def set_status(run: Path, trial_id: str, status: Status) -> None:
    """Write another status over that of a trial."""
    record = RunFolder(run).trial(trial_id)
    write_outcome(record, Outcome(status), now())


def set_how(run: Path, how: str | None) -> None:
    """Write down another end of the last session."""
    edit_manifest(RunFolder(run), lambda facts: facts["sessions"][-1].update(how=how))


def every_status(trials: int) -> list[Made]:
    """Settings drawn from SPACE; among them trials of every end."""
    space = check_config(
        {
            "name": "x",
            "data": {"images": "x", "target": "x"},
            "trial": SPACE,
            "search": {"trials": trials},
        },
        {},
        "",
    ).space
    draw = torch.Generator().manual_seed(7)
    ends = {
        3: (Status.PRUNED, 1, "0.5021 at epoch 1 is below 0.5507"),
        5: (Status.COLLAPSED, 3, "one class predicted for every validation image in epochs 2 to 3"),
        6: (Status.FAILED, 2, "OSError: [Errno 28] No space left on device"),
        8: (Status.PRUNED, 3, "0.5312 at epoch 3 is below 0.6102"),
        10: (Status.INTERRUPTED, 2, "session 1 ended"),
    }
    made = []
    for number in range(trials):
        units = torch.rand(len(space.dimensions), generator=draw).tolist()
        status, epochs, reason = ends.get(number % 12, (None, EPOCHS, ""))
        made.append(Made(space.at(units), status, epochs, reason))
    return made


if __name__ == "__main__":
    where, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12
    given = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    where.mkdir(parents=True, exist_ok=True)
    size: dict[str, Any] = {"image_size": 64, "width": 0.25} if given else {}
    print(make_run(where, every_status(count), images=given, epochs=8 if given else 3, **size))
