"""What is recorded about a trial: a row per epoch, what was asked, how it ended, the best epoch."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.files import is_time

if TYPE_CHECKING:
    from torch import Tensor

Origin = Literal["search", "replicate", "audit"]
"""Why a trial exists. A replicate has the settings of a trial of the search with another seed, an audit exactly those
of a pruned one. Only trials of the search enter the study and the rungs."""


class Status(StrEnum):
    """The state of a trial. A divergence or collapse is an outcome; `failed` means an exception."""

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
        """Nothing more happens to this trial unless it is asked for."""
        return self not in (Status.PENDING, Status.RUNNING, Status.INTERRUPTED)

    def is_over(self, done: int, epochs: int) -> bool:
        """Is nothing left to do after `done` epochs? A finished trial may have been given more since."""
        return self.has_ended and not (self is Status.FINISHED and done < epochs)


BROKEN: Final = (Status.DIVERGED, Status.COLLAPSED)
"""Ends of a training that broke down."""


@dataclass(frozen=True)
class Row:
    """One finished epoch. The first group must repeat exactly on a CPU; the second is measured.

    A new measure goes where it belongs by its meaning, and into `ADDED` with its value for rows that lack it. How its
    name begins says what is done with it: `train_` and `val_` are losses and rates and must repeat exactly; `frozen_`,
    `saved_`, `shared_` and `waited_` are summed over a trial's epochs.
    """

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
    """Peak in the epoch; 0 on the CPU."""
    ended_at: str
    frozen_images: int = 0
    """Images that this trial sent through frozen layers."""
    frozen_multiply_adds: int = 0
    frozen_seconds: float = 0.0
    saved_multiply_adds: int = 0
    """Of frozen layers without sharing, minus those done; negative if chunks were filled for later epochs."""
    shared_images: int = 0
    """Images whose frozen features were read, from disk or memory, also just after this trial put them there."""
    waited_seconds: float = 0.0
    """Waiting for frozen features that other trials were computing."""
    skipped_steps: int = 0
    """Steps whose float16 gradients were not finite: they had no effect, and the loss scale was lowered."""
    collapsed: bool = field(default=False, kw_only=True)
    """The guard ends the trial with this epoch. Not written: the status shows it."""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ROW_COLUMNS}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Row":
        """The row from `to_json`.

        Raises:
            KeyError, ValueError: a column is missing or not a number, or `ended_at` is not a time.
        """
        known = {**ADDED, **facts}
        values = {name: known[name] for name in ROW_COLUMNS}
        for name, value in values.items():
            if name != "ended_at" and (
                isinstance(value, bool) or not isinstance(value, int | float)
            ):
                raise ValueError(f"{name} is {value!r}")
        if not is_time(values["ended_at"]):
            raise ValueError(f"ended_at is {values['ended_at']!r}")
        return Row(**values)


ROW_COLUMNS: Final = tuple(column.name for column in fields(Row) if column.name != "collapsed")
ADDED: Final[Mapping[str, float]] = {"skipped_steps": 0}
"""Columns that the oldest rows lack, with their value there: no step was skipped."""
RATE_COLUMNS: Final = tuple(name for name in ROW_COLUMNS if name.startswith(("train_", "val_")))
"""Losses and rates on the two parts."""
RESULT_COLUMNS: Final = ("epoch", *RATE_COLUMNS, "lr")
"""What must repeat exactly on a CPU."""


def is_better(metric: Metric, row: Row, best: Row | None) -> bool:
    """Does `row` beat `best`: by the metric, then by lower validation loss? An earlier epoch keeps a tie."""
    if best is None:
        return True
    key, best_key = (
        (metric.score(getattr(each, metric.value)), -each.val_loss) for each in (row, best)
    )
    return key > best_key


FROZEN_COLUMNS: Final = tuple(
    name for name in ROW_COLUMNS if name.startswith(("frozen_", "saved_", "shared_", "waited_"))
)


def frozen_work(rows: Iterable[Row]) -> dict[str, Any]:
    """Sums over epochs of the frozen layers' cost and of what sharing saved, with `with_saved_seconds`."""
    sums = dict.fromkeys(FROZEN_COLUMNS, 0.0)
    for row in rows:
        for name in FROZEN_COLUMNS:
            sums[name] += getattr(row, name)
    return with_saved_seconds(sums)


def with_saved_seconds(sums: Mapping[str, float]) -> dict[str, Any]:
    """Sums of FROZEN_COLUMNS over a run, and the seconds saved at the pace measured there."""
    return {**sums, "saved_seconds": seconds_saved(sums["saved_multiply_adds"], sums)}


def seconds_saved(multiply_adds: float, work: Mapping[str, float]) -> float | None:
    """The seconds that these multiply-adds of frozen layers take, at the pace measured in `work`: sums over a run.

    One pace for all trials of a run, so that their savings add up to the run's. None if nothing was computed and the
    pace is unknown: everything was already in the store.
    """
    if not multiply_adds:
        return 0.0
    done = work["frozen_multiply_adds"]
    return multiply_adds * work["frozen_seconds"] / done if done else None


def key_of(metric: Metric, best: Row, trial_id: str) -> tuple[float, float, int, str]:
    """The key for ranking trials, smaller first: score, then validation loss, earlier epoch, smaller id."""
    return -metric.score(getattr(best, metric.value)), best.val_loss, best.epoch, trial_id


def trial_id_of(settings: TrialConfig, origin: Origin) -> str:
    """The trial's id, which is also the name of its folder: the id of its settings.

    An audit has the settings of the trial that it audits, so it needs an id of its own: the first 12 hex digits of the
    SHA-256 of "audit of <that trial's id>".
    """
    if origin == "audit":
        return hashlib.sha256(f"audit of {settings.trial_id}".encode()).hexdigest()[:12]
    return settings.trial_id


@dataclass(frozen=True)
class Asked:
    """What a trial was asked to be: config.json."""

    settings: TrialConfig
    number: int
    """Number of the suggestion, from 0."""
    origin: Origin = "search"

    @property
    def trial_id(self) -> str:
        return trial_id_of(self.settings, self.origin)

    @property
    def audits(self) -> str | None:
        """Id of the pruned trial that this one audits; None if it is not an audit."""
        return self.settings.trial_id if self.origin == "audit" else None

    def to_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "trial_id": self.trial_id,
            "number": self.number,
            "origin": self.origin,
        }
        if self.audits is not None:
            facts["audits"] = self.audits
        return facts | {"settings": self.settings.model_dump()}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Asked":
        """Raise KeyError, TypeError or ValueError if something is missing or wrong."""
        number, origin = facts["number"], facts["origin"]
        if not isinstance(number, int) or origin not in get_args(Origin):
            raise ValueError(f"number and origin are {number!r} and {origin!r}")
        asked = Asked(TrialConfig(**facts["settings"]), number, origin)
        if facts.get("audits") != asked.audits:
            raise ValueError(f"audits is {facts.get('audits')!r} and not {asked.audits!r}")
        return asked


@dataclass(frozen=True)
class StatusRecord:
    """status.json."""

    status: Status
    reason: str = ""
    attempt: int = 0
    """How often the trial was started."""
    failures: int = 0
    """How often it died or raised an exception and was retried, over all sessions."""
    host: str = ""
    device: str = ""
    slot: str = ""
    pid: int = 0
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    """Of all recorded epochs."""
    eager: str = ""
    """Why its training steps are no longer captured as a CUDA graph, if a capture failed."""

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "StatusRecord":
        """Raise KeyError, TypeError or ValueError if something is missing or wrong."""
        record = StatusRecord(**{**facts, "status": Status(facts["status"])})
        for name, kind in _STATUS_KINDS:
            value = getattr(record, name)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(f"{name} is {value!r}")
        for name in ("started", "ended"):
            if not is_time(getattr(record, name)):
                raise ValueError(f"{name} is {getattr(record, name)!r}")
        return record


_STATUS_KINDS: Final = tuple(
    (each.name, type(each.default)) for each in fields(StatusRecord) if each.name != "status"
)


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
