"""The records of one trial: rows, status, best weights, state to resume from.

Every replacement is atomic (trainable.records.files); whatever refers to a file is written after it.
torch and pandas are imported where they are needed, so that commands that only read rows and statuses start quickly.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.files import (
    append_json,
    current_disk,
    make_folders,
    now,
    parse_json,
    parse_json_lines,
    read_bytes,
    read_json,
    replaced,
    settle_file,
    whole_lines,
    write_atomically,
    write_json,
)
from trainable.records.paths import RunPaths, readable
from trainable.records.right import append_right
from trainable.records.rows import Asked, Best, Origin, Row, Status, StatusRecord, key_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from trainable.records.right import Right
    from trainable.write_behind import Behind

LOG = logging.getLogger(__name__)
NOTE_SECONDS: Final = (
    5.0  # a person who looks again sees another note, and a shared disk is spared; assumed
)


@dataclass
class TrialRecord:
    """The files of one trial.

    With a session number, each write first checks that no later session has taken over the run.
    """

    folder: Path
    session: int | None = None
    behind: "Behind | None" = field(default=None, compare=False, repr=False)
    """Where the trial can leave what it has to write at its end, so that the next one can train meanwhile."""
    _asked: Asked | None = field(init=False, default=None, repr=False)
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
    def lost(self) -> Path:
        """Epochs that had to be repeated, one line each time."""
        return self.folder / "lost.jsonl"

    @property
    def right(self) -> Path:
        """Which validation images were right in each epoch; see right.py. Trials of older versions lack it."""
        return self.folder / "right.bits"

    @property
    def _rows(self) -> Path:
        return self.folder / "epochs.jsonl"

    def _best(self, epoch: int, suffix: str) -> Path:
        return self.folder / f"best-{epoch}.{suffix}"

    def _may_write(self) -> None:
        if self.session is not None:
            RunPaths(self.folder.parent.parent).refuse_stale(self.session)

    # what was asked, and how it ended

    @staticmethod
    def create(
        run: RunPaths,
        settings: TrialConfig,
        number: int,
        session: int | None,
        origin: Origin = "search",
    ) -> "TrialRecord":
        """Create the record of a new trial as `pending`. config.json is written last: with it the trial exists."""
        asked = Asked(settings, number, origin)
        record = TrialRecord(run.path / "trials" / asked.trial_id, session)
        make_folders(record.folder)
        record.write_status(StatusRecord(Status.PENDING))
        write_json(record.folder / "config.json", asked.to_json())
        return record

    def is_there(self) -> bool:
        """Does the trial have a config.json? With that, it exists."""
        try:
            self._asked = self._read_asked()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @property
    def asked(self) -> Asked:
        """config.json, read once: it never changes."""
        if self._asked is None:
            try:
                self._asked = self._read_asked()
            except FileNotFoundError:
                raise RequestError(
                    f"there is no file {self.folder / 'config.json'}; {self._remedy()}"
                ) from None
        return self._asked

    def _read_asked(self) -> Asked:
        path = os.path.join(self.folder, "config.json")
        content = read_bytes(path)
        with readable(path, self._remedy()):
            asked = Asked.from_json(parse_json(content, path))
            if asked.trial_id != self.trial_id:
                raise ValueError(f"its settings are those of {asked.trial_id}")
        return asked

    def _remedy(self) -> str:
        return f"put the old one back, or delete {self.folder}: the search will create it again"

    @property
    def has_status(self) -> bool:
        return (self.folder / "status.json").exists()

    def status(self) -> StatusRecord:
        """status.json; without it, the trial counts as interrupted."""
        path = os.path.join(self.folder, "status.json")
        with readable(path, "delete it, and the trial counts as interrupted"):
            try:
                content = read_bytes(path)
            except FileNotFoundError:
                return StatusRecord(Status.INTERRUPTED, "its status.json was gone")
            return StatusRecord.from_json(parse_json(content, path))

    def write_status(self, status: StatusRecord) -> None:
        self._may_write()
        write_json(self.folder / "status.json", asdict(status))

    def end(self, status: Status, reason: str = "", ended: str = "") -> None:
        """Write how the trial ended, and when; by default now."""
        seconds = sum(row.seconds for row in self.rows())
        self.write_status(
            replace(
                self.status(), status=status, reason=reason, ended=ended or now(), seconds=seconds
            )
        )

    def say(self, text: str) -> None:
        """Write a line to the trial's log, which is never read back, so a full disk does not matter."""
        with suppress(OSError), self.log.open("a") as log:
            log.write(f"{now()} {text}\n")

    def note(self, text: str) -> None:
        """Note in the status what a long step is doing, at most every `NOTE_SECONDS`; "" removes the note."""
        if text == self._noted or (text and time.monotonic() < self._note_again):
            return
        if self.has_status:  # training without a sweep has none
            self.write_status(replace(self.status(), reason=text))
        self._noted, self._note_again = text, time.monotonic() + NOTE_SECONDS

    def last_written(self) -> tuple[int, ...]:
        """When rows, status and half-written files last changed, in nanoseconds of the file system's clock; 0 if there
        are none."""
        found = []
        for path in (self._rows, self.folder / "status.json", *self.folder.glob(".*.tmp")):
            try:
                found.append(path.stat().st_mtime_ns)
            except FileNotFoundError:
                found.append(0)
        return tuple(found)

    # epochs

    def rows(self) -> list[Row]:
        """One row per finished epoch, in order."""
        return self.parse_rows(self.read_rows())

    def read_rows(self) -> bytes:
        """The whole lines of epochs.jsonl, as raw bytes."""
        return whole_lines(os.path.join(self.folder, "epochs.jsonl"))

    def parse_rows(self, lines: bytes) -> list[Row]:
        """The rows in what `read_rows` returned."""
        with self.readable_rows():
            rows = [Row.from_json(facts) for facts in parse_json_lines(lines, self._rows)]
            for number, row in enumerate(rows, start=1):
                if row.epoch != number:
                    raise ValueError(f"line {number} is from epoch {row.epoch}")
        return rows

    def readable_rows(self) -> AbstractContextManager[None]:
        """Turn any error in a row into one line that names epochs.jsonl and the remedy."""
        return readable(self._rows, "delete it, and the trial starts again")

    def settle_rows(self) -> None:
        """Sync the rows before another process than their writer acts on them."""
        self._may_write()
        settle_file(self._rows)

    def append(self, row: Row, right: "Right | None" = None) -> None:
        """Add a finished epoch, and before it which validation images were right: (images,), if known."""
        self._may_write()
        if right is not None:
            append_right(self.right, row.epoch, right)
        append_json(self._rows, row.to_json())

    def cut(self, epoch: int) -> list[Row]:
        """Drop the rows after `epoch`, and return them; what they cost is kept in lost.jsonl."""
        rows = self.rows()
        if cut := rows[epoch:]:
            self._may_write()
            seconds = sum(row.seconds for row in cut)
            append_json(self.lost, {"epochs": len(cut), "seconds": seconds, "at": now()})
            lines = [json.dumps(row.to_json(), allow_nan=False) + "\n" for row in rows[:epoch]]
            write_atomically(self._rows, "".join(lines).encode())
        return rows[epoch:]

    # weights and state

    def save_best(
        self, best: Best, files: tuple[str, ...], labels: "Tensor", weights: bool = True
    ) -> None:
        """Write the best epoch's weights if wanted, its predictions, then the JSON that names both."""
        import pandas as pd

        from trainable.records.state import save_weights

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
                f"the weights {path} are missing: only the best trials keep theirs"
            ) from None
        if hashlib.sha256(weights).hexdigest() != facts.get("sha256"):
            raise RequestError(
                f"the weights {path} must have the recorded SHA-256 {facts.get('sha256')}, but they do not: "
                "the file was changed or damaged"
            )
        logits = torch.tensor(self.predictions(row.epoch)["logit"].to_numpy())
        return Best(row, safetensors.torch.load(weights), logits)

    def weights_digest(self, epoch: int) -> str:
        """SHA-256 of the weights kept for `epoch`, as recorded when they were written."""
        return str(read_json(self._best(epoch, "json"))["sha256"])

    def has_predictions(self, epoch: int) -> bool:
        return self._best(epoch, "parquet").exists()

    def predictions(self, epoch: int, columns: list[str] | None = None) -> "pd.DataFrame":
        """Validation predictions of the best epoch: file, label, logit, or some of these columns.

        Raises:
            RequestError: the file is missing or damaged.
        """
        import pandas as pd

        path = self._best(epoch, "parquet")
        try:
            return pd.read_parquet(path, columns=columns)
        except (OSError, ValueError) as error:
            raise RequestError(
                f"{path} must hold validation predictions, but it can't be read: {error}"
            ) from None

    def is_wanted(self, best: Row, metric: Metric) -> bool:
        """Could this trial, ended with this best epoch, be among those whose weights are kept? See RunPaths.bar."""
        try:
            origin = self.asked.origin
            if origin != "search":  # the best replicate is kept whatever its rank, an audit never
                return origin == "replicate"
            bar = read_json(RunPaths(self.folder.parent.parent).bar)["key"]
        except RequestError:  # fewer have finished than are kept, or no sweep ranks this one
            return True
        return key_of(metric, best, self.trial_id) <= tuple(bar)

    def save_last(self, state: Mapping[str, Any], best_epoch: int) -> None:
        """Replace last.pt, then delete older best epochs. `state` must be loadable with weights_only."""
        from trainable.records.state import save_state

        self._may_write()
        with replaced(self.last) as aside:
            save_state(state, aside)
        self.forget_best_but(best_epoch)

    def forget_best_but(self, epoch: int | None) -> None:
        """Delete what was written for best epochs other than `epoch`."""
        self._may_write()
        found = sorted(self.folder.glob("best-*"))
        others = [path for path in found if path.stem != f"best-{epoch}"]
        for path in others:
            current_disk().unlink(path)
        if others:  # once the trial has ended, they are never looked for again
            current_disk().sync(self.folder)

    def forget_unfinished(self) -> None:
        """Delete what a killed writer left behind: half a state can be a gigabyte."""
        self._may_write()
        for path in self.folder.glob(".*.tmp"):
            current_disk().unlink(path)

    def load_last(self) -> dict[str, Any] | None:
        """What save_last wrote; None if nothing was written or the file is damaged (logged)."""
        from trainable.records.state import load_state

        try:
            return load_state(self.last)
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises many kinds for a damaged file
            LOG.warning("%s can't be read (%s): the trial starts again", self.last, error)
            return None

    def forget_weights(self) -> None:
        """Delete weights and state, but not predictions or rows. The driver calls this for trials beyond the best k."""
        self._may_write()
        for path in (self.last, *self.folder.glob("best-*.safetensors")):
            current_disk().unlink(path)
