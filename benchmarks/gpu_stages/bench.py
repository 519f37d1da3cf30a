"""Trials without Ray on the first drawn faces: what the experiments have in common."""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd
import torch
from torch import Tensor

from trainable.captured_steps import Noise
from trainable.config import RunSettings, Sharing, TrialConfig
from trainable.data import LabelledImages, TrainingData
from trainable.fit import fit
from trainable.frozen.reference import ResidentFeatures
from trainable.frozen.shared import Shared
from trainable.hardware.device import device_of
from trainable.network.model import CUTS, Backbone, load_backbone
from trainable.records.rows import RESULT_COLUMNS, Row
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

Kind = Literal["off", "resident", "disk"]
"""Frozen layers for every batch; features held in the device's memory; features read from the store."""
KINDS: Final[tuple[Kind, ...]] = ("off", "resident", "disk")
KEPT: Final = frozenset(
    {"0 fixed"} | {f"{cut} {f}" for cut in (24, 31) for f in ("fixed", "epoch")}
)
ALL_DIGITS: Final = 17.0  # of float64: exactly the same number
_numbers = count(1)


@dataclass(frozen=True)
class Bench:
    """Images, backbone, and the base settings of trials on them."""

    run: RunSettings
    data: TrainingData
    backbone: Backbone

    def but(self, **changed: Any) -> "Bench":
        """The same bench with other settings of the run."""
        return replace(self, run=self.run.model_copy(update=changed))

    def sharing(self, kind: Kind, store: Path | None = None) -> "Bench":
        """The same bench with features shared as `kind` says, in a new store if none is given."""
        if kind == "off":
            return self.but(sharing=None)
        sharing = Sharing(kept=KEPT, resident=kind == "resident")
        return self.but(sharing=sharing, store=store or self.new_store())

    def new_store(self) -> Path:
        """A folder for an empty store."""
        return self.run.folder / f"store-{next(_numbers)}"

    def shared(self) -> Shared | None:
        """A new handle on the store, as a process holds it."""
        return Shared(self.run, self.data, self.backbone) if self.run.sharing else None

    def record(self) -> TrialRecord:
        """An empty record of a new trial."""
        record = RunFolder(self.run.folder).trial(f"trial-{next(_numbers)}")
        record.folder.mkdir(parents=True)
        return record

    def rows(
        self, config: TrialConfig, record: TrialRecord | None = None, by: Shared | None = None
    ) -> list[Row]:
        """Every row of a trial."""
        by = by or self.shared()
        return list(fit(config, self.run, self.data, self.backbone, record, by))


def make_bench(
    faces: Path,
    table: Path,
    folder: Path,
    device: str,
    training: int,
    validation: int,
    image_size: int,
    width: float,
    decoders: int = 1,
    **settings: Any,
) -> Bench:
    """The first `training` of the images in `table` (file name, -1 or 1) for training, the next for validation.

    Random weights; no guard against collapse; `decoders` processes to decode, or threads if that is 1.
    """
    rows = pd.read_csv(table).iloc[: training + validation]
    files = list(rows.iloc[:, 0])
    with ThreadPoolExecutor() as pool:
        digests = list(
            pool.map(lambda f: hashlib.sha256((faces / f).read_bytes()).hexdigest(), files)
        )
    labels = torch.tensor((rows.iloc[:, 1] > 0).to_numpy(), dtype=torch.float32)

    def part(some: slice) -> LabelledImages:
        return LabelledImages(
            faces, tuple(files[some]), labels[some], image_size, tuple(digests[some])
        )

    folder.mkdir(parents=True, exist_ok=True)
    facts = {"epochs": 3, "weights": "none", **settings}
    run = RunSettings(
        folder=folder,
        images=faces,
        image_size=image_size,
        width=width,
        collapse_epochs=None,
        device=device,
        **facts,
    )
    data = TrainingData(part(slice(0, training)), part(slice(training, None)))
    data.begin_decoders(decoders, folder)
    return Bench(run, data, load_backbone(run.weights, width))


def results(rows: Sequence[Row]) -> list[float]:
    """The numbers of a trial that must repeat, in one list."""
    return [float(getattr(row, name)) for row in rows for name in RESULT_COLUMNS]


def losses(rows: Sequence[Row]) -> list[float]:
    """Training losses by epoch: the first figures to show a difference."""
    return [row.train_loss for row in rows]


def digits(some: Sequence[float], others: Sequence[float]) -> float:
    """How many decimal digits two lists of numbers have in common; `ALL_DIGITS` if they are identical.

    None in common if their lengths differ, or if a value is not finite.
    """
    if len(some) != len(others) or not all(map(math.isfinite, [*some, *others])):
        return 0.0
    worst = max(
        (abs(a - b) / max(abs(a), abs(b), 1e-300) for a, b in zip(some, others, strict=True)),
        default=0.0,
    )
    return ALL_DIGITS if worst == 0 else round(-math.log10(worst), 1)


# ---------------------------------------------------------------- features without images


def random_features(
    config: TrialConfig, run: RunSettings, images: int, rows: int = 1024
) -> tuple[Noise, Tensor]:
    """For steps whose images do not matter: random features at this strategy's cut, and labels (images,).

    `images` share `rows` different features.
    """
    pools = 5 if config.strategy == "head" else 4
    side, channels = run.image_size // 2**pools, max(1, round(512 * run.width))
    assert CUTS[config.strategy] in (24, 31)
    torch.manual_seed(0)
    place = device_of(run.device).torch
    table = torch.rand(min(rows, images), side, side, channels, device=place)
    labels = (torch.rand(images) > 0.5).float()
    where = torch.arange(images, device=place) % len(table)
    return Noise(ResidentFeatures(table.to(getattr(torch, run.precision)), where)), labels


def reserved_bytes(device: str) -> int:
    """GPU memory that this process holds, in use or not; 0 on a CPU."""
    return int(torch.cuda.memory_reserved()) if device == "cuda" else 0
