"""The columns of every frame: name, type, meaning, unit. docs/reference/frames.md is made from it.

python -m analysis.frames.columns > docs/reference/frames.md
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, get_args

from sweep.search.asha import Verdict
from trainable.config import HEADS, TrialConfig
from trainable.records.rows import Origin, Status

TEXT, WHOLE, REAL, TIME = "string", "Int64", "float64", "datetime64[us, UTC]"


class Column(NamedTuple):
    """What a column holds. Whatever is not known, or does not act in a trial, is missing."""

    dtype: str
    meaning: str
    unit: str = ""


def _one_of(words: Iterable[str]) -> str:
    """As the code lists them."""
    *others, last = words
    return f"{', '.join(others)}, or {last}"


def _values(setting: str) -> str:
    """Those that TrialConfig knows of a setting."""
    return _one_of(get_args(TrialConfig.model_fields[setting].annotation))


_WHICH: Final = {
    "trial_id": Column(TEXT, "the trial: a hash of the settings that act in it"),
    "number": Column(WHOLE, "of the suggestion, from 0"),
}
_WHAT_BECAME: Final = {
    "status": Column(TEXT, _one_of(Status)),
    "reason": Column(TEXT, "why it ended so, in words"),
    "origin": Column(TEXT, _one_of(get_args(Origin))),
}
SETTINGS: Final = {
    "config/strategy": Column(TEXT, f"which layers train: {_values('strategy')}"),
    "config/augmentation": Column(TEXT, _values("augmentation")),
    "config/lr": Column(REAL, "learning rate of the head"),
    "config/backbone_lr_ratio": Column(
        REAL, "learning rate of trained convolutions", "share of lr"
    ),
    "config/optimizer": Column(TEXT, _values("optimizer")),
    "config/momentum": Column(REAL, "of SGD"),
    "config/weight_decay": Column(REAL, "pull of the weights towards 0"),
    "config/head": Column(TEXT, _one_of([*HEADS, "hidden sizes"])),
    "config/dropout": Column(REAL, "in the head", "share of units"),
    "config/batch_size": Column(WHOLE, "of a step", "images"),
    "config/class_weight": Column(TEXT, _values("class_weight")),
    "config/schedule": Column(TEXT, _values("schedule")),
    "config/warmup_epochs": Column(REAL, "the rate rises from 0", "epochs"),
    "config/schedule_epochs": Column(WHOLE, "length of the cosine", "epochs"),
    "config/seed": Column(WHOLE, "draws initialisation, batch order and dropout"),
    "config/views": Column(WHOLE, "pool that flip_jitter draws from", "views of an image"),
    "config/augmentation_seed": Column(WHOLE, "draws the views"),
}
_RATES: Final = {
    "train_loss": Column(REAL, "binary cross-entropy on the training images", "nats"),
    "train_accuracy": Column(REAL, "on the training images as the epoch saw them", "share, 0 to 1"),
    "val_loss": Column(REAL, "binary cross-entropy on the validation images", "nats"),
    "val_accuracy": Column(REAL, "on the validation images, threshold 0.5", "share, 0 to 1"),
    "val_balanced_accuracy": Column(REAL, "mean of the two classes' recalls", "share, 0 to 1"),
    "val_auc": Column(REAL, "area under the ROC curve", "0 to 1"),
}
_FROZEN: Final = {
    "frozen_images": Column(WHOLE, "sent through frozen layers by this trial", "images"),
    "frozen_multiply_adds": Column(WHOLE, "done for them", "multiply-adds"),
    "frozen_seconds": Column(REAL, "spent on them", "seconds"),
    "saved_multiply_adds": Column(
        WHOLE, "that the plain path would have done in addition", "multiply-adds"
    ),
    "shared_images": Column(WHOLE, "whose frozen features came from the store", "images"),
    "waited_seconds": Column(REAL, "for features that another trial was computing", "seconds"),
}
TRIALS: Final[Mapping[str, Column]] = {
    **_WHICH,
    **_WHAT_BECAME,
    **SETTINGS,
    "best_epoch": Column(WHOLE, "the best validation epoch: losses and rates are of it"),
    **_RATES,
    "epochs": Column(WHOLE, "on record", "epochs"),
    "seconds": Column(REAL, "of all epochs on record", "seconds"),
    "gpu_memory_bytes": Column(WHOLE, "peak; 0 on a CPU", "bytes"),
    **_FROZEN,
    "saved_seconds": Column(
        REAL, "saved multiply-adds at the run's pace of frozen layers, where it has one", "seconds"
    ),
    "skipped_steps": Column(
        WHOLE, "of all epochs, in float16, whose gradients were not finite", "steps"
    ),
    "attempt": Column(WHOLE, "how often the trial was opened to run"),
    "host": Column(TEXT, "where it ran last"),
    "device": Column(TEXT, "on what it ran last"),
    "slot": Column(TEXT, "which of the places for trials it had"),
    "started": Column(TIME, "first opened", "UTC"),
    "ended": Column(TIME, "ended", "UTC"),
}
EPOCHS: Final[Mapping[str, Column]] = {
    **_WHICH,
    "epoch": Column(WHOLE, "from 1"),
    **_RATES,
    "lr": Column(REAL, "learning rate of the head at the last step"),
    "seconds": Column(REAL, "of the epoch, validation included", "seconds"),
    "images_per_second": Column(REAL, "training images over all its seconds", "images a second"),
    "gpu_memory_bytes": Column(WHOLE, "peak; 0 on a CPU", "bytes"),
    "ended_at": Column(TIME, "when its row was made", "UTC"),
    **_FROZEN,
    "skipped_steps": Column(WHOLE, "in float16, whose gradients were not finite", "steps"),
}
PREDICTIONS: Final[Mapping[str, Column]] = {
    "trial_id": _WHICH["trial_id"],
    "epoch": Column(WHOLE, "the trial's best validation epoch"),
    "file": Column(TEXT, "validation image, relative to the image folder"),
    "label": Column(WHOLE, "0 or 1; 1 is the positive class"),
    "logit": Column(REAL, "what the model says; above 0 it predicts 1"),
    "probability": Column(REAL, "sigmoid of the logit", "0 to 1"),
}
DECISIONS: Final[Mapping[str, Column]] = {
    "sequence": Column(WHOLE, "from 1, in the order in which they were taken"),
    "trial_id": _WHICH["trial_id"],
    "epoch": Column(WHOLE, "of the rung"),
    "rung_of": Column(TEXT, "whom the trial was compared with: all, or those of this strategy"),
    "value": Column(REAL, "best value of the metric until then"),
    "cutoff": Column(REAL, "that it had to reach; missing for the first trial there"),
    "verdict": Column(TEXT, _one_of(get_args(Verdict))),
}
RUNS: Final[Mapping[str, Column]] = {
    "run": Column(TEXT, "the run folder, as given"),
    "name": Column(TEXT, "of the sweep"),
    "target": Column(TEXT, "the attribute learnt"),
    "metric": Column(TEXT, "what decided"),
    "method": Column(TEXT, "of the search"),
    "finished_sweep": Column("boolean", "has the sweep finished?"),
    "trials": Column(WHOLE, "on record", "trials"),
    "finished": Column(WHOLE, "ran all their epochs", "trials"),
    "pruned": Column(WHOLE, "stopped by ASHA", "trials"),
    "diverged": Column(WHOLE, "a loss that is not finite", "trials"),
    "collapsed": Column(WHOLE, "one class predicted", "trials"),
    "failed": Column(WHOLE, "an exception, after retries", "trials"),
    "epochs": Column(WHOLE, "of all trials", "epochs"),
    "seconds": Column(REAL, "of all epochs, repeated ones too", "seconds"),
    "device_hours": Column(REAL, "the same times devices a trial", "hours"),
    "saved_seconds": TRIALS["saved_seconds"],
    "validation_images": Column(WHOLE, "that decided", "images"),
    "winner": Column(TEXT, "the trial that won, by validation"),
    "winner_ground": Column(TEXT, "what decided: single runs, or replicates"),
    **SETTINGS,
    "best_epoch": Column(WHOLE, "of the winner: losses and rates are of it"),
    **_RATES,
    "val_excess": Column(
        REAL, "by how much val_accuracy is too high for having been chosen", "share, 0 to 1"
    ),
    "val_low": Column(
        REAL,
        "95 % interval of the accuracy without that; Wilson's where that isn't known, lower end",
        "share, 0 to 1",
    ),
    "val_high": Column(REAL, "upper end", "share, 0 to 1"),
    "test_images": Column(WHOLE, "of the newest opening of the test set", "images"),
    "test_accuracy": Column(REAL, "there", "share, 0 to 1"),
    "test_low": Column(REAL, "95 % Wilson interval, lower end", "share, 0 to 1"),
    "test_high": Column(REAL, "upper end", "share, 0 to 1"),
    "times_test_opened": Column(WHOLE, "a test that was opened often is a test no more", "times"),
}


def dtypes(columns: Mapping[str, Column]) -> dict[str, str]:
    """Name → pandas dtype."""
    return {name: column.dtype for name, column in columns.items()}


FRAMES: Final = {
    "trials(run)": ("One row a trial, in the order of suggestion.", TRIALS),
    "epochs(run)": ("One row a finished epoch.", EPOCHS),
    "predictions(run)": ("One row a trial and validation image, at the best epoch.", PREDICTIONS),
    "decisions(run)": ("One row a decision of ASHA.", DECISIONS),
    "compare(runs)": ("One row a run: what it cost and who won.", RUNS),
}


def as_markdown() -> str:
    """docs/reference/frames.md."""
    lines = [
        "# The frames",
        "",
        "`analysis.frames.results` makes them from a run folder, also while the run is under way.",
        "`analysis results RUN` writes the first two as Parquet and CSV into the run's `results/`, and",
        "`results.read_frame(path)` reads either back exactly. Each call takes a run's folder, which it reads, or what",
        "`results.read(run)` gave: then frames, winner and decisions of a run under way are of the same moment.",
        "Settings are in columns `config/…`; a value that is not known, or has no effect in a trial, is missing.",
    ]
    for call, (meaning, columns) in FRAMES.items():
        lines += [
            "",
            f"## `{call}`",
            meaning,
            "",
            "| column | type | meaning | unit |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{name}` | {column.dtype} | {column.meaning} | {column.unit} |"
            for name, column in columns.items()
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
