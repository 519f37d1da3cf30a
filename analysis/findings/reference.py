"""The published figures of the two source reports, next to those of a run that contains their settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from analysis.frames import results
from analysis.frames.snapshot import Snapshot, Source
from analysis.statistics import wilson
from trainable.data import read_split
from trainable.records.rows import Status


@dataclass(frozen=True)
class Published:
    """One setting of a report: its figures as shares of images; None where the report gives none."""

    report: str
    target: str
    settings: dict[str, Any]
    validation: float | None
    """Of the best epoch."""
    test: float | None
    repeated: tuple[float, ...] = ()
    """Test accuracies of the same setting in other public projects."""


_S: Final = {"augmentation": "flip_jitter", "head": "mlp", "batch_size": 32, "optimizer": "adam"}
_M: Final = {"augmentation": "flip", "head": "pretrained", "batch_size": 64, "optimizer": "adam"}
REPORTS: Final = (
    Published("S", "Smiling", {"strategy": "head", "lr": 1e-4, **_S}, 0.8600, None),
    Published("S", "Smiling", {"strategy": "block5", "lr": 1e-4, **_S}, 0.9303, 0.9097),
    Published("M", "Male", {"strategy": "head", "lr": 1e-3, **_M}, None, 0.9480, (0.9370, 0.9397)),
    Published("M", "Male", {"strategy": "head", "lr": 1e-4, **_M}, None, 0.9510, (0.9473, 0.9393)),
    Published(
        "M", "Male", {"strategy": "block5", "lr": 1e-3, **_M}, None, 0.5773, (0.9363, 0.9650)
    ),
    Published(
        "M", "Male", {"strategy": "block5", "lr": 1e-4, **_M}, None, 0.9637, (0.9623, 0.9587)
    ),
)
DTYPES: Final = {
    "report": "string",
    "strategy": "string",
    "lr": "float64",
    "their_validation": "float64",
    "their_test": "float64",
    "repeated": "string",
    "trial_id": "string",
    "status": "string",
    "our_validation": "float64",
    "low": "float64",
    "high": "float64",
    "our_test": "float64",
    "difference": "float64",
    "difference_of": "string",
    "majority": "float64",
}


def beside_reports(run: Source) -> pd.DataFrame:
    """One row per trial with a report's setting: the report's figures, repetitions by others, and ours with interval.

    `difference` is ours minus theirs on the same part of the data, which `difference_of` names: validation if they give
    such a figure, else test if the test set was opened for that trial. Both are missing if there is no common part: the
    difference between a validation value, which chose its epoch, and a test value means nothing. `majority` is the
    accuracy of always predicting the larger class on our validation images. No row if nothing matches.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    return pd.DataFrame(list(_rows(Snapshot.of(run))), columns=list(DTYPES)).astype(DTYPES)


def _rows(run: Snapshot) -> Iterator[dict[str, Any]]:
    target = run.config.data.target
    split = read_split(run.folder.split, ("validation",))
    images = len(split)
    positive = split["label"].mean()
    tested = {o.winner.trial_id: o.result.accuracy for o in run.openings if o.result is not None}
    for trial in results.to_records(results.trials(run)):
        for known in REPORTS:
            if known.target != target or not _is_of(trial, known):
                continue
            ours = trial["val_accuracy"]
            interval = wilson(round(ours * images), images) if ours is not None else None
            our_test = tested.get(trial["trial_id"])
            difference, of = _difference(known, ours, our_test)
            yield {
                "report": known.report,
                "strategy": known.settings["strategy"],
                "lr": known.settings["lr"],
                "their_validation": known.validation,
                "their_test": known.test,
                "repeated": ", ".join(f"{value:.2%}" for value in known.repeated) or None,
                "trial_id": trial["trial_id"],
                "status": trial["status"],
                "our_validation": ours,
                "low": interval and interval.low,
                "high": interval and interval.high,
                "our_test": our_test,
                "difference": difference,
                "difference_of": of,
                "majority": max(positive, 1 - positive),
            }


def _difference(
    known: Published, validation: float | None, test: float | None
) -> tuple[float | None, str | None]:
    """Ours minus theirs, on the same part of the data; validation first."""
    pairs = (("validation", validation, known.validation), ("test", test, known.test))
    for part, ours, theirs in pairs:
        if ours is not None and theirs is not None:
            return ours - theirs, part
    return None, None


def _is_of(trial: dict[str, Any], known: Published) -> bool:
    """Does the trial have the report's settings, and was it neither pruned nor failed nor still pending?"""
    same = all(trial[f"config/{name}"] == value for name, value in known.settings.items())
    return same and trial["status"] not in (Status.PRUNED, Status.PENDING, Status.FAILED)
