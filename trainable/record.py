"""The records of a run and of one trial: paths, rows, statuses, best weights, state to resume from.

Every replacement is atomic (trainable.files); what refers to a file is written after it.
torch and pandas are imported where they are needed: commands that only read rows and statuses start without them.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from trainable.config import RequestError, TrialConfig
from trainable.files import (
    append_json,
    read_json,
    read_json_lines,
    replaced,
    sync_folder,
    write_atomically,
    write_json,
)
from trainable.metric import Metric

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

FORMAT_VERSION: Final = 1
LOG = logging.getLogger(__name__)
NOTE_SECONDS: Final = 5.0
Origin = Literal["search", "replicate", "audit"]


class Status(StrEnum):
    """What became of a trial. A divergence or collapse is an outcome; `failed` is an exception."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    COLLAPSED = "collapsed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def has_ended(self) -> bool:
        """Nothing more happens to this trial unless somebody asks for it."""
        return self not in (Status.PENDING, Status.RUNNING, Status.INTERRUPTED)


class StaleSession(Exception):
    """Another driver has taken over the run folder since this trial began: it must not write any more."""


# ---------------------------------------------------------------- the run folder


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run; see docs/run-folder.md."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def split(self) -> Path:
        return self.path / "split.parquet"

    @property
    def rungs(self) -> Path:
        return self.path / "rungs.jsonl"

    @property
    def bar(self) -> Path:
        """The key of the last of the trials whose weights stay: who ends behind it need not write any."""
        return self.path / "bar.json"

    @property
    def session(self) -> Path:
        return self.path / "session.json"

    @property
    def lock(self) -> Path:
        return self.path / ".driver.lock"

    @property
    def log(self) -> Path:
        return self.path / "sweep.log"

    @property
    def ray(self) -> Path:
        return self.path / "ray"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def test(self) -> Path:
        return self.path / "test.json"

    @property
    def test_predictions(self) -> Path:
        return self.path / "test_predictions.parquet"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def trial(self, trial_id: str, session: int | None = None) -> "TrialRecord":
        return TrialRecord(self.path / "trials" / trial_id, session)

    def trials(self) -> list["TrialRecord"]:
        """Every trial on record, in the order of suggestion."""
        found = [TrialRecord(path.parent) for path in self.path.glob("trials/*/config.json")]
        return sorted(found, key=lambda record: (record.origin.number, record.trial_id))

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            RequestError: no run folder, or one of a newer format.
        """
        manifest = read_json(self.manifest)
        version = manifest.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise RequestError(
                f"{self.manifest} must have format_version {FORMAT_VERSION} or older, but it has {version}; "
                "use the version of this project that made it"
            )
        return manifest


# ---------------------------------------------------------------- one trial


@dataclass(frozen=True)
class Row:
    """One finished epoch. The first group must repeat exactly on a CPU; the second is measured."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_auc: float
    lr: float
    """Learning rate of the head at the epoch's last step."""
    seconds: float
    images_per_second: float
    """Training images over the whole epoch's seconds."""
    gpu_memory_bytes: int
    """Peak of the epoch; 0 on the CPU."""
    ended_at: str
    frozen_images: int = 0
    """Images that this trial sent through frozen layers."""
    frozen_multiply_adds: int = 0
    frozen_seconds: float = 0.0
    saved_multiply_adds: int = 0
    """Of frozen layers without sharing, less those done; what is filled for later epochs may make it negative."""
    shared_images: int = 0
    """Images whose frozen features were read from the store instead."""
    waited_seconds: float = 0.0
    """For frozen features that other trials were computing."""
    collapsed: bool = False
    """The guard ends the trial with this epoch. Not written: the status says it."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "collapsed"}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Row":
        return Row(**{column.name: facts[column.name] for column in fields(Row)[:-1]})


RESULT_COLUMNS: Final = tuple(column.name for column in fields(Row)[:8])


def is_better(metric: Metric, row: Row, best: Row | None) -> bool:
    """Does `row` beat `best`: by the metric, then by lower validation loss? An earlier epoch keeps a tie."""
    if best is None:
        return True
    key, best_key = (
        (metric.score(getattr(each, metric.value)), -each.val_loss) for each in (row, best)
    )
    return key > best_key


def frozen_work(rows: Iterable[Row]) -> dict[str, float]:
    """What epochs took from frozen layers, and what sharing saved, in sums; seconds saved at the rate measured here."""
    names = [
        c.name
        for c in fields(Row)
        if c.name.startswith(("frozen_", "saved_", "shared_", "waited_"))
    ]
    sums = dict.fromkeys(names, 0.0)
    for row in rows:
        for name in names:
            sums[name] += getattr(row, name)
    done = sums["frozen_multiply_adds"]
    sums["saved_seconds"] = (
        sums["saved_multiply_adds"] * sums["frozen_seconds"] / done if done else 0.0
    )
    return sums


def key_of(metric: Metric, best: Row, trial_id: str) -> tuple[float, float, int, str]:
    """By which trials are ranked, smaller first: score, then validation loss, earlier epoch, smaller id."""
    return -metric.score(getattr(best, metric.value)), best.val_loss, best.epoch, trial_id


@dataclass(frozen=True)
class OriginRecord:
    """What a trial was asked to be: config.json."""

    settings: TrialConfig
    number: int
    """Of the suggestion, from 0."""
    origin: Origin = "search"


@dataclass(frozen=True)
class StatusRecord:
    """status.json."""

    status: Status
    reason: str = ""
    attempt: int = 0
    """How often the trial was opened to run."""
    host: str = ""
    device: str = ""
    slot: str = ""
    pid: int = 0
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    """Of all epochs on record."""


@dataclass(frozen=True)
class Outcome:
    """How a trial's training ended by itself."""

    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Best:
    """The best validation epoch so far: its row, trained parameters and validation predictions."""

    row: Row
    weights: "dict[str, Tensor]"
    logits: "Tensor"  # (validation images,) float32, in the split's order


@dataclass
class TrialRecord:
    """The files of one trial.

    With a session number, each write first makes sure that no later session has taken over the run.
    """

    folder: Path
    session: int | None = None
    _origin: OriginRecord | None = field(init=False, default=None, repr=False)
    _noted: str = field(init=False, default="", repr=False)
    _note_again: float = field(init=False, default=-math.inf, repr=False)

    @property
    def trial_id(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def _rows(self) -> Path:
        return self.folder / "epochs.jsonl"

    def _best(self, epoch: int, suffix: str) -> Path:
        return self.folder / f"best-{epoch}.{suffix}"

    def _may_write(self) -> None:
        if self.session is None:
            return
        newest = read_json(RunFolder(self.folder.parent.parent).session)["number"]
        if newest != self.session:
            raise StaleSession(f"session {newest} has taken over from session {self.session}")

    # what was asked, and what became of it

    @staticmethod
    def create(
        run: RunFolder, settings: TrialConfig, number: int, session: int, origin: Origin = "search"
    ) -> "TrialRecord":
        """Open the record of a new trial as `pending`. config.json comes last: with it the trial exists."""
        record = run.trial(settings.trial_id, session)
        record.folder.mkdir(parents=True, exist_ok=True)
        record.write_status(StatusRecord(Status.PENDING))
        write_json(
            record.folder / "config.json",
            {
                "trial_id": settings.trial_id,
                "number": number,
                "origin": origin,
                "settings": settings.model_dump(),
            },
        )
        sync_folder(record.folder.parent)
        return record

    @property
    def origin(self) -> OriginRecord:
        """config.json, read once: it never changes."""
        if self._origin is None:
            facts = read_json(self.folder / "config.json")
            self._origin = OriginRecord(
                TrialConfig(**facts["settings"]), facts["number"], facts["origin"]
            )
        return self._origin

    def status(self) -> StatusRecord:
        facts = read_json(self.folder / "status.json")
        return StatusRecord(**{**facts, "status": Status(facts["status"])})

    def write_status(self, status: StatusRecord) -> None:
        self._may_write()
        write_json(self.folder / "status.json", asdict(status))

    def note(self, text: str) -> None:
        """Say in the status what a long step is doing, at most every `NOTE_SECONDS`; "" takes it back."""
        if text == self._noted or (text and time.monotonic() < self._note_again):
            return
        if (self.folder / "status.json").exists():  # whoever trains without a sweep writes none
            self.write_status(replace(self.status(), reason=text))
        self._noted, self._note_again = text, time.monotonic() + NOTE_SECONDS

    # epochs

    def rows(self) -> list[Row]:
        """One row per finished epoch, in order."""
        return [Row.from_json(facts) for facts in read_json_lines(self._rows)]

    def append(self, row: Row) -> None:
        self._may_write()
        append_json(self._rows, row.to_json())

    def cut(self, epoch: int) -> list[Row]:
        """Drop the rows after `epoch`, and return them."""
        rows = self.rows()
        if rows[epoch:]:
            self._may_write()
            lines = [json.dumps(row.to_json(), allow_nan=False) + "\n" for row in rows[:epoch]]
            write_atomically(self._rows, "".join(lines).encode())
        return rows[epoch:]

    # weights and state

    def save_best(
        self, best: Best, files: tuple[str, ...], labels: "Tensor", weights: bool = True
    ) -> None:
        """Write the best epoch's weights where they are wanted, its predictions, then the JSON that names both."""
        import pandas as pd

        from trainable.state import save_weights

        self._may_write()
        epoch = best.row.epoch
        if self._best(epoch, "json").exists():
            return
        digest = None
        if weights:
            with replaced(self._best(epoch, "safetensors")) as aside:
                digest = save_weights(best.weights, aside)
        predictions = BytesIO()
        pd.DataFrame(
            {"file": files, "label": labels.int().numpy(), "logit": best.logits.numpy()}
        ).to_parquet(predictions)
        write_atomically(self._best(epoch, "parquet"), predictions.getvalue())
        write_json(
            self._best(epoch, "json"),
            best.row.to_json() | {"sha256": digest},
        )

    def load_best(self, row: Row) -> Best:
        """The best epoch as it was written, weights checked against their digest.

        Raises:
            RequestError: a file is missing, damaged, or not the one that was written.
        """
        import safetensors.torch
        import torch

        facts = read_json(self._best(row.epoch, "json"))
        path = self._best(row.epoch, "safetensors")
        try:
            weights = path.read_bytes()
        except FileNotFoundError:
            raise RequestError(
                f"the weights {path} are gone: only the best trials keep theirs"
            ) from None
        if hashlib.sha256(weights).hexdigest() != facts.get("sha256"):
            raise RequestError(
                f"the weights {path} must have the SHA-256 {facts.get('sha256')} that was recorded, but they do not: "
                "the file was changed or damaged"
            )
        logits = torch.tensor(self.predictions(row.epoch)["logit"].to_numpy())
        return Best(row, safetensors.torch.load(weights), logits)

    def weights_digest(self, epoch: int) -> str:
        """SHA-256 of the weights kept for `epoch`, as recorded when they were written."""
        return str(read_json(self._best(epoch, "json"))["sha256"])

    def has_predictions(self, epoch: int) -> bool:
        return self._best(epoch, "parquet").exists()

    def predictions(self, epoch: int) -> "pd.DataFrame":
        """Validation predictions of the best epoch: file, label, logit.

        Raises:
            RequestError: the file is missing or damaged.
        """
        import pandas as pd

        path = self._best(epoch, "parquet")
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise RequestError(
                f"{path} must hold validation predictions, but reading it says: {error}"
            ) from None

    def is_wanted(self, best: Row, metric: Metric) -> bool:
        """Might this trial, ended with this best epoch, be among those whose weights stay? See RunFolder.bar."""
        try:
            bar = read_json(RunFolder(self.folder.parent.parent).bar)["key"]
        except RequestError:  # fewer have finished than are kept
            return True
        return key_of(metric, best, self.trial_id) <= tuple(bar)

    def save_last(self, state: Mapping[str, Any], best_epoch: int) -> None:
        """Replace last.pt, then delete older best epochs. `state` must be loadable with weights_only."""
        from trainable.state import save_state

        self._may_write()
        with replaced(self.last) as aside:
            save_state(state, aside)
        self.forget_best_but(best_epoch)

    def forget_best_but(self, epoch: int | None) -> None:
        """Delete what was written for best epochs other than `epoch`."""
        self._may_write()
        for path in self.folder.glob("best-*"):
            if path.stem != f"best-{epoch}":
                path.unlink()

    def forget_unfinished(self) -> None:
        """Delete what a writer left aside when it was killed: half a state may be a gigabyte."""
        self._may_write()
        for path in self.folder.glob(".*.tmp"):
            path.unlink()

    def load_last(self) -> dict[str, Any] | None:
        """What save_last wrote; None where nothing was written or the file is damaged (logged)."""
        from trainable.state import load_state

        try:
            return load_state(self.last)
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises many kinds for a damaged file
            LOG.warning("%s can't be read (%s): the trial starts again", self.last, error)
            return None

    def forget_weights(self) -> None:
        """Delete weights and state, not predictions or rows. The driver calls this for trials beyond the best k."""
        self._may_write()
        self.last.unlink(missing_ok=True)
        for path in self.folder.glob("best-*.safetensors"):
            path.unlink()
