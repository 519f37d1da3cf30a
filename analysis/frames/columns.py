"""The columns of every frame: name, type, meaning, unit. docs/reference/frames.md is made from this module."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, get_args

from sweep.search.asha import Verdict
from trainable.config import HEADS, TrialConfig
from trainable.records.rows import Origin, Status

TEXT, WHOLE, REAL, TIME = "string", "Int64", "float64", "datetime64[us, UTC]"


class Column(NamedTuple):
    """What a column holds. A value that is not known, or has no effect in a trial, is missing."""

    dtype: str
    meaning: str
    unit: str = ""


def _one_of(words: Iterable[str]) -> str:
    """The words as a list in prose, in the order of the code."""
    *others, last = words
    return f"{', '.join(others)}, or {last}"


def _values(setting: str) -> str:
    """The values that TrialConfig allows for a setting."""
    return _one_of(get_args(TrialConfig.model_fields[setting].annotation))


_WHICH: Final = {
    "trial_id": Column(TEXT, "the trial: a hash of the settings that have an effect in it"),
    "number": Column(WHOLE, "number of the suggestion, from 0"),
}
_WHAT_BECAME: Final = {
    "status": Column(TEXT, _one_of(Status)),
    "reason": Column(TEXT, "why it ended this way, in words"),
    "origin": Column(TEXT, _one_of(get_args(Origin))),
}
SETTINGS: Final = {
    "config/strategy": Column(TEXT, f"which layers train: {_values('strategy')}"),
    "config/augmentation": Column(TEXT, _values("augmentation")),
    "config/lr": Column(REAL, "learning rate of the head"),
    "config/backbone_lr_ratio": Column(
        REAL, "learning rate of the trained convolutions", "share of lr"
    ),
    "config/optimizer": Column(TEXT, _values("optimizer")),
    "config/momentum": Column(REAL, "momentum of SGD"),
    "config/weight_decay": Column(REAL, "decay of the weights towards 0"),
    "config/head": Column(TEXT, _one_of([*HEADS, "hidden sizes"])),
    "config/dropout": Column(REAL, "dropout in the head", "share of units"),
    "config/batch_size": Column(WHOLE, "size of a training batch", "images"),
    "config/class_weight": Column(TEXT, _values("class_weight")),
    "config/schedule": Column(TEXT, _values("schedule")),
    "config/warmup_epochs": Column(
        REAL, "length of the rise of the learning rate from 0", "epochs"
    ),
    "config/schedule_epochs": Column(WHOLE, "length of the cosine schedule", "epochs"),
    "config/seed": Column(WHOLE, "seed of initialisation, batch order and dropout"),
    "config/views": Column(WHOLE, "pool that flip_jitter draws from", "views per image"),
    "config/augmentation_seed": Column(WHOLE, "seed of the views"),
}
_RATES: Final = {
    "train_loss": Column(
        REAL,
        "binary cross-entropy on the training images, during the epoch; weighted by `class_weight`",
        "nats",
    ),
    "train_accuracy": Column(REAL, "on the training images, during the epoch", "share, 0 to 1"),
    "val_loss": Column(
        REAL, "binary cross-entropy on the validation images, never weighted", "nats"
    ),
    "val_accuracy": Column(REAL, "on the validation images, threshold 0.5", "share, 0 to 1"),
    "val_balanced_accuracy": Column(REAL, "mean of the recalls of both classes", "share, 0 to 1"),
    "val_auc": Column(REAL, "area under the ROC curve", "0 to 1"),
}
_FROZEN: Final = {
    "frozen_images": Column(WHOLE, "images that this trial sent through frozen layers", "images"),
    "frozen_multiply_adds": Column(WHOLE, "work done for these images", "multiply-adds"),
    "frozen_seconds": Column(REAL, "time spent on them", "seconds"),
    "saved_multiply_adds": Column(
        WHOLE, "work that the path without sharing would have done in addition", "multiply-adds"
    ),
    "shared_images": Column(
        WHOLE,
        "images whose frozen features were read from disk or memory, also just after they were put there",
        "images",
    ),
    "waited_seconds": Column(
        REAL, "time waited for features that another trial was computing", "seconds"
    ),
}
TRIALS: Final[Mapping[str, Column]] = {
    **_WHICH,
    **_WHAT_BECAME,
    **SETTINGS,
    "best_epoch": Column(WHOLE, "the best epoch by validation; losses and rates are from it"),
    **_RATES,
    "epochs": Column(WHOLE, "recorded epochs", "epochs"),
    "seconds": Column(REAL, "duration of all recorded epochs", "seconds"),
    "gpu_memory_bytes": Column(WHOLE, "peak GPU memory; 0 on a CPU", "bytes"),
    **_FROZEN,
    "saved_seconds": Column(
        REAL,
        "time for the saved work at the run's pace of frozen layers, if that was measured",
        "seconds",
    ),
    "skipped_steps": Column(
        WHOLE,
        "steps skipped in all epochs, in float16, because gradients were not finite",
        "steps",
    ),
    "attempt": Column(WHOLE, "how often the trial was started"),
    "host": Column(TEXT, "the machine that it last ran on"),
    "device": Column(TEXT, "the device that it last ran on"),
    "slot": Column(TEXT, "the slot for trials that it had"),
    "started": Column(TIME, "when it first started", "UTC"),
    "ended": Column(TIME, "when it ended", "UTC"),
}
EPOCHS: Final[Mapping[str, Column]] = {
    **_WHICH,
    "epoch": Column(WHOLE, "number of the epoch, from 1"),
    **_RATES,
    "lr": Column(REAL, "learning rate of the head at the last step"),
    "seconds": Column(REAL, "duration of the epoch, including validation", "seconds"),
    "images_per_second": Column(
        REAL, "training images divided by the epoch's seconds", "images per second"
    ),
    "gpu_memory_bytes": Column(WHOLE, "peak GPU memory; 0 on a CPU", "bytes"),
    "ended_at": Column(TIME, "when its row was made", "UTC"),
    **_FROZEN,
    "skipped_steps": Column(
        WHOLE, "steps skipped in float16 because gradients were not finite", "steps"
    ),
}
PREDICTIONS: Final[Mapping[str, Column]] = {
    "trial_id": _WHICH["trial_id"],
    "epoch": Column(WHOLE, "the trial's best epoch by validation"),
    "file": Column(TEXT, "path of the validation image, relative to the image folder"),
    "label": Column(WHOLE, "0 or 1; 1 is the positive class"),
    "logit": Column(REAL, "output of the model; above 0 it predicts class 1"),
    "probability": Column(REAL, "sigmoid of the logit", "0 to 1"),
}
DECISIONS: Final[Mapping[str, Column]] = {
    "sequence": Column(WHOLE, "number of the decision, from 1, in the order taken"),
    "trial_id": _WHICH["trial_id"],
    "epoch": Column(WHOLE, "epoch of the rung"),
    "rung_of": Column(TEXT, "the trials it was compared with: all, or those of this strategy"),
    "value": Column(REAL, "best value of the metric so far"),
    "cutoff": Column(REAL, "value that it had to reach; missing for the first trial at a rung"),
    "verdict": Column(TEXT, _one_of(get_args(Verdict))),
}
RUNS: Final[Mapping[str, Column]] = {
    "run": Column(TEXT, "the run folder, as given"),
    "name": Column(TEXT, "name of the sweep"),
    "target": Column(TEXT, "the attribute to be learnt"),
    "metric": Column(TEXT, "the metric that decided"),
    "method": Column(TEXT, "method of the search"),
    "finished_sweep": Column("boolean", "has the sweep finished?"),
    "trials": Column(WHOLE, "recorded trials", "trials"),
    "finished": Column(WHOLE, "trials that ran all their epochs", "trials"),
    "pruned": Column(WHOLE, "trials stopped by ASHA", "trials"),
    "diverged": Column(WHOLE, "trials with a loss that is not finite", "trials"),
    "collapsed": Column(WHOLE, "trials that predicted one class only", "trials"),
    "failed": Column(WHOLE, "trials that raised an exception, after retries", "trials"),
    "epochs": Column(WHOLE, "recorded epochs of all trials, without repeated ones", "epochs"),
    "seconds": Column(REAL, "duration of all epochs, including repeated ones", "seconds"),
    "device_hours": Column(REAL, "the same, times devices per trial", "hours"),
    "saved_seconds": TRIALS["saved_seconds"],
    "validation_images": Column(WHOLE, "validation images that decided", "images"),
    "winner": Column(TEXT, "the trial that won, by validation"),
    "winner_ground": Column(TEXT, "what decided: single runs, or replicates"),
    **SETTINGS,
    "best_epoch": Column(WHOLE, "the winner's best epoch; losses and rates are from it"),
    **_RATES,
    "val_excess": Column(
        REAL, "how much too high val_accuracy is because of the selection", "share, 0 to 1"
    ),
    "val_low": Column(
        REAL,
        "95 % confidence interval of the accuracy corrected for selection, lower end; "
        "if that is not known, Wilson's",
        "share, 0 to 1",
    ),
    "val_high": Column(REAL, "upper end of the same interval", "share, 0 to 1"),
    "test_images": Column(WHOLE, "test images of the newest opening of the test set", "images"),
    "test_accuracy": Column(REAL, "accuracy at that opening", "share, 0 to 1"),
    "test_low": Column(REAL, "95 % Wilson interval of it, lower end", "share, 0 to 1"),
    "test_high": Column(REAL, "upper end of the same interval", "share, 0 to 1"),
    "times_test_opened": Column(
        WHOLE,
        "how often the test set was opened: more than once, and it is no longer held out",
        "times",
    ),
}


def dtypes(columns: Mapping[str, Column]) -> dict[str, str]:
    """Name → pandas dtype."""
    return {name: column.dtype for name, column in columns.items()}


FRAMES: Final = {
    "trials(run)": ("One row per trial, in the order of suggestion.", TRIALS),
    "epochs(run)": ("One row per finished epoch.", EPOCHS),
    "predictions(run)": ("One row per trial and validation image, at the best epoch.", PREDICTIONS),
    "decisions(run)": ("One row per decision of ASHA.", DECISIONS),
    "compare(runs)": ("One row per run: its cost and its winner.", RUNS),
}


def as_markdown() -> str:
    """docs/reference/frames.md."""
    lines = [
        "# The frames",
        "",
        "`analysis.frames.results` makes them from a run folder, also while the run is under way. `compare`, the last,",
        "is over several runs, and is in `analysis.findings.runs`.",
        "`analysis results RUN` writes the first two as Parquet and CSV into the run's `results/`;",
        "`results.read_frame(path)` reads either back exactly. Each call takes a run's folder, which it reads, or the",
        "result of `results.read(run)`: then the run is read once, and frames, winner and decisions of a run that is",
        "under way are all of the same moment.",
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
