"""`sweep check`: read and verify every record, digest and reference of a run; nothing is changed.

Records are read by the same code as elsewhere, so whatever it refuses is a fault with its remedy. In addition, every
reference must lead to something.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from rich.console import Console

from sweep.request.open_run import (
    Run,
    config_of,
    refuse_another_split,
    refuse_another_text,
    run_folder,
)
from sweep.request.prepare import check_unchanged
from sweep.search.asha import Decision
from sweep.search.ranking import Standing, best_row, standing, to_keep
from sweep.session.hold import read_hold
from trainable.data import read_split
from trainable.data.examine import Begin, no_progress
from trainable.errors import RequestError
from trainable.metric import is_right
from trainable.records.files import is_time, read_json, read_json_lines, sha256_of
from trainable.records.manifest import REMEDY, read_manifest
from trainable.records.paths import readable
from trainable.records.right import agrees, epoch_bytes, read_right
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.state import load_state
from trainable.records.trial_folder import TrialRecord

UNUSED = f"{REMEDY}, or delete it: conclusions about the trial then hold for these images only"
Found = TypeVar("Found")


@dataclass
class Checked:
    """What was found in a run folder."""

    folder: Path
    faults: list[str] = field(default_factory=list)
    """What is wrong, each with its remedy."""
    remarks: list[str] = field(default_factory=list)
    """What is not a fault, but worth knowing."""
    looked_at: dict[str, int] = field(default_factory=dict)
    """How many of each kind of thing were verified."""

    def count(self, what: str, number: int = 1) -> None:
        self.looked_at[what] = self.looked_at.get(what, 0) + number

    def attempt(self, read: Callable[[], Found]) -> Found | None:
        """What `read` returns; if it refuses, that is a fault."""
        try:
            return read()
        except RequestError as error:
            self.faults.append(str(error))
            return None

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "faults": self.faults,
            "remarks": self.remarks,
            "looked_at": self.looked_at,
        }


def check_run(path: Path, begin: Begin = no_progress) -> Checked:
    """Read and verify everything in the run folder `path`, and what the run began with: images, table, weights.

    Raises:
        RequestError: not a run folder.
    """
    folder, found = run_folder(path), Checked(path)
    hold = read_hold(folder)
    if hold is not None and hold.living is not False:
        found.remarks.append(
            f"{hold.holder} holds the run: what it is writing may look like a fault; check again when it is done"
        )
    run = found.attempt(lambda: _opened(folder, found))
    records = _records(folder, found)
    if run is None:
        return found
    found.count("sessions", len(run.manifest.sessions))
    images = found.attempt(lambda: _validation_images(run))
    standings: list[Standing] = []
    for record, rows in records:
        standings += _check_trial(run, record, rows, images, found)
    _check_kept(run, standings, found)
    known = {record.trial_id for record, _ in records}
    _check_decisions(run, known, found)
    _check_driver_files(run, known, found)
    _check_test(run, found)
    if images is not None:
        found.remarks += found.attempt(lambda: check_unchanged(run, begin)) or []
        found.count("images", run.manifest.images.count)
    return found


def _opened(folder: RunFolder, found: Checked) -> Run:
    """As open_run, but with each fault on its own."""
    manifest = read_manifest(folder)
    found.attempt(lambda: refuse_another_text(folder, manifest))
    if not folder.config.exists():
        found.remarks.append(
            f"{folder.config} is missing; the next command that trains writes it again"
        )
    return Run(folder, manifest, config_of(folder, manifest))


def _validation_images(run: Run) -> list[str]:
    """Their names in the split's order.

    Raises:
        RequestError: the split is not the one that was recorded.
    """
    refuse_another_split(run.folder, run.manifest)
    with readable(run.folder.split, REMEDY):
        return list(read_split(run.folder.split, ("validation",))["file"])


# ---------------------------------------------------------------- trials


def _records(folder: RunFolder, found: Checked) -> list[tuple[TrialRecord, list[Row]]]:
    """Trials whose settings, status and rows can be read, with their rows."""
    whole = []
    for path in sorted((folder.path / "trials").glob("*")):
        record = folder.trial(path.name)
        if not (path / "config.json").exists():
            found.remarks.append(
                f"{path} has no config.json: the driver died while creating it; it will be created again"
            )
            continue
        found.count("trials")
        asked = found.attempt(lambda record=record: record.asked)  # type: ignore[misc]
        status = found.attempt(record.status)
        rows = found.attempt(record.rows)
        if asked is not None and status is not None and rows is not None:
            found.count("epochs", len(rows))
            whole.append((record, rows))
    return whole


def _check_trial(
    run: Run, record: TrialRecord, rows: Sequence[Row], images: Sequence[str] | None, found: Checked
) -> Iterator[Standing]:
    """Check that everything the trial's records refer to exists. Yields its standing, if it has one."""
    status = record.status()
    if not record.has_status:
        found.remarks.append(f"{record.folder} has no status.json: the trial counts as interrupted")
    if status.status is Status.FINISHED and not rows:
        found.faults.append(
            f"{record.folder} is finished and must have epochs, but epochs.jsonl has none; {REMEDY}, or delete "
            "status.json to train the trial again"
        )
    if len(rows) > run.config.epochs:
        found.faults.append(
            f"{record.folder / 'epochs.jsonl'} must have at most {run.config.epochs} epochs, as configured, "
            f"but it has {len(rows)}; {REMEDY}"
        )
    best = best_row(rows, run.config.metric)
    for path in sorted(record.folder.glob("best-*.json")):
        found.attempt(lambda path=path: _check_best(record, path, images, found))  # type: ignore[misc]
    if best is not None and status.status in (Status.FINISHED, Status.PRUNED):
        wanted = record.folder / f"best-{best.epoch}.json"
        if not wanted.exists() and status.status is Status.FINISHED:
            found.faults.append(
                f"{wanted} must exist, since epoch {best.epoch} is the best of the finished trial, but it is missing; "
                f"{REMEDY}"
            )
    if images is not None and record.right.exists():
        found.attempt(lambda: _check_right(record, rows, len(images), found))
    found.attempt(lambda: read_json_lines(record.lost))
    if record.last.exists():
        found.attempt(lambda: _check_last(record, rows, found))
    for path in record.folder.glob(".*.tmp"):
        found.remarks.append(
            f"{path} was left behind by a writer that was killed; it will be deleted"
        )
    ranked = standing(record, run.config.metric)
    if ranked is not None:
        yield ranked


def _check_best(
    record: TrialRecord, path: Path, images: Sequence[str] | None, found: Checked
) -> None:
    """Check weights against their digest, predictions against the split, right images against predictions.

    Raises:
        RequestError: they are not what was written.
    """
    epoch = path.stem.removeprefix("best-")
    facts = read_json(path)
    weights = path.with_suffix(".safetensors")
    if weights.exists():
        found.count("weights")
        if sha256_of(weights) != facts.get("sha256"):
            raise RequestError(
                f"the weights {weights} must have the recorded SHA-256 {facts.get('sha256')}, but they do "
                f"not: the file was changed or damaged; {REMEDY}"
            )
    if not epoch.isdecimal() or not record.has_predictions(int(epoch)):
        raise RequestError(
            f"{path} must have its predictions {path.stem}.parquet beside it, but they are missing; {REMEDY}"
        )
    predictions = record.predictions(int(epoch))
    found.count("predictions", len(predictions))
    if images is not None and list(predictions.get("file", pd.Series())) != images:
        raise RequestError(
            f"{path.with_suffix('.parquet')} must name the {len(images)} validation images in the split's order, "
            f"but its {len(predictions)} names differ; {REMEDY}"
        )
    right = read_right(record.right, int(epoch), len(predictions))
    predicted = is_right(predictions["logit"], predictions["label"])
    if right is not None and not np.array_equal(right[-1], predicted):
        raise RequestError(
            f"{record.right} must have the same right images in epoch {epoch} as {path.stem}.parquet, but "
            f"they differ; {UNUSED}"
        )


def _check_right(record: TrialRecord, rows: Sequence[Row], images: int, found: Checked) -> None:
    """Check which images were right against the rows.

    Bytes after the recorded epochs belong to an epoch that is running, or whose writer was killed; a finished trial
    has none.

    Raises:
        RequestError: they belong to other epochs or images.
    """
    path, each = record.right, epoch_bytes(images)
    right, size, whole = read_right(path, len(rows), images), path.stat().st_size, each * len(rows)
    if size < whole or (size > whole and record.status().status is Status.FINISHED):
        raise RequestError(
            f"{path} must have {each} bytes for each of {len(rows)} epochs of {images} validation images, "
            f"but it has {size} in total; {UNUSED}"
        )
    if right is None or not agrees(right, [row.val_accuracy for row in rows]):
        raise RequestError(
            f"{path} must have as many right images in each epoch as epochs.jsonl, but it does not; {UNUSED}"
        )
    found.count("epochs with their images", len(rows))


def _check_last(record: TrialRecord, rows: Sequence[Row], found: Checked) -> None:
    """Raise RequestError if no trial could continue from last.pt."""
    found.count("states")
    remedy = "put the old one back, or delete it, and the trial starts again if it has to continue"
    try:
        state = load_state(record.last)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RequestError(f"{record.last} can't be read: {_first_line(error)}; {remedy}") from None
    epoch, best = state.get("epoch", 0), state.get("best_epoch")
    if epoch > len(rows):
        raise RequestError(
            f"{record.last} must be from an epoch on record, but it is from epoch {epoch} of {len(rows)}; {remedy}"
        )
    if not (record.folder / f"best-{best}.json").exists():
        raise RequestError(
            f"{record.last} refers to the best epoch {best}, but best-{best}.json is missing; {remedy}"
        )


def _check_kept(run: Run, standings: Sequence[Standing], found: Checked) -> None:
    """Check that kept trials have their weights."""
    kept = to_keep(standings, run.config.keep.best)
    for each in standings:
        record = run.folder.trial(each.trial_id)
        best = record.folder / f"best-{each.best.epoch}"
        if (
            each.trial_id in kept
            and each.status is Status.FINISHED
            and best.with_suffix(".json").exists()
        ):
            weights = best.with_suffix(".safetensors")
            if not weights.exists():
                found.faults.append(
                    f"{weights} must exist, since the trial is among the best {run.config.keep.best}, but it is "
                    f"missing; {REMEDY}"
                )


# ---------------------------------------------------------------- decisions and the test


def _check_decisions(run: Run, known: set[str], found: Checked) -> None:
    """Check that each of ASHA's decisions is about a recorded trial, and that they are numbered in order."""
    rungs = run.folder.rungs

    def read() -> list[Decision]:
        with readable(rungs, REMEDY):
            return [Decision.from_json(facts) for facts in read_json_lines(rungs)]

    decisions = found.attempt(read) or []
    found.count("decisions", len(decisions))
    for number, decision in enumerate(decisions, start=1):
        if decision.sequence != number:
            found.faults.append(
                f"line {number} of {rungs} must be decision {number}, but it is {decision.sequence}; {REMEDY}"
            )
            break
    for trial_id in sorted({decision.trial_id for decision in decisions} - known):
        found.faults.append(
            f"{rungs} has a decision on trial {trial_id}, which must be in {rungs.parent / 'trials'}, but it is not; "
            "put its folder back"
        )


def _check_driver_files(run: Run, known: set[str], found: Checked) -> None:
    """Check what drivers wrote for trials: the newest session's number, and what it takes to keep weights."""
    folder = run.folder
    numbers = [session.number for session in run.manifest.sessions]
    if numbers != sorted(set(numbers)):
        found.faults.append(
            f"{folder.manifest} must have sessions in the order of their numbers, but it has {numbers}; {REMEDY}"
        )
    if numbers:
        facts = found.attempt(lambda: read_json(folder.session))
        number = None if facts is None else facts.get("number")
        # a higher one is from a driver that died before it was in the manifest
        if facts is not None and not (isinstance(number, int) and number >= numbers[-1]):
            found.faults.append(
                f"{folder.session} must name session {numbers[-1]} or a later one, but it names {number}; {REMEDY}"
            )
    if folder.bar.exists():
        key = (found.attempt(lambda: read_json(folder.bar)) or {}).get("key")
        if not isinstance(key, list) or len(key) != 4 or key[-1] not in known:
            found.faults.append(
                f"{folder.bar} must hold the key of a trial on record, but it holds {key}; delete it: the next session "
                "writes it again"
            )


def _check_test(run: Run, found: Checked) -> None:
    """Check that the files of the newest opening have the digests of its entry in test.json."""
    folder = run.folder
    if not folder.test.exists():
        return
    facts = found.attempt(lambda: read_json(folder.test)) or {}
    openings = [each for each in facts.get("ledger", ()) if isinstance(each, Mapping)]
    found.count("test openings", len(openings))
    timed = [each for each in openings if each.get("opened") and is_time(each["opened"])]
    if facts and len(timed) != facts.get("times_opened"):
        found.faults.append(
            f"{folder.test} must have as many openings as it counts ({facts.get('times_opened')}), each with its time, "
            f"but it has {len(timed)}; {REMEDY}"
        )
    result: Mapping[str, Any] = facts.get("result") or {}
    for path, name in (
        (folder.test_predictions, "predictions_sha256"),
        (folder.test_mistakes, "mistakes_sha256"),
    ):
        recorded = result.get(name)
        if recorded is None:
            continue
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != recorded:
            found.faults.append(
                f"{path} must have the SHA-256 {recorded} that the test's opening recorded, "
                f"but it {'has another' if content else 'is missing'}; {REMEDY}"
            )


def show_checked(found: Checked, console: Console) -> None:
    """Print what `check_run` found."""
    for line in found.remarks:
        console.print(line, style="yellow", soft_wrap=True)
    for line in found.faults:
        console.print(f"fault: {line}", style="red", soft_wrap=True)
    looked = ", ".join(
        f"{number:,} {what.removesuffix('s') if number == 1 else what}"
        for what, number in found.looked_at.items()
    )
    count = len(found.faults)
    said = "no fault" if not count else "1 fault" if count == 1 else f"{count} faults"
    console.print(f"{found.folder}: {said}; checked {looked}", soft_wrap=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
