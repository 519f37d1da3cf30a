"""How numbers, times and settings are written, in the terminal and in the report."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from trainable.metric import Metric

NO_VALUE = "–"
NARROW = "\u202f"  # a narrow no-break space, between a number and its unit
MINUS = "\u2212"
SECONDARY = ("seed", "augmentation_seed")  # settings that tell a reader little about a trial


def percent(share: float | None, digits: int = 2) -> str:
    """A share in 0…1 as a percentage."""
    return NO_VALUE if share is None or pd.isna(share) else f"{share * 100:.{digits}f}{NARROW}%"


def number(value: float | None, digits: int = 4) -> str:
    """A number with a fixed count of decimals."""
    return NO_VALUE if value is None or pd.isna(value) else f"{value:.{digits}f}"


def is_rate(metric: Metric) -> bool:
    """Is the metric a share of images, and therefore written in percent?"""
    return metric in (Metric.VAL_ACCURACY, Metric.VAL_BALANCED_ACCURACY)


def metric_value(metric: Metric, value: float | None) -> str:
    """A value of the metric as it is written: rates in percent, AUC and loss as plain numbers."""
    return percent(value) if is_rate(metric) else number(value)


def metric_name(metric: Metric) -> str:
    """The metric in words."""
    return {
        Metric.VAL_ACCURACY: "validation accuracy",
        Metric.VAL_BALANCED_ACCURACY: "validation balanced accuracy",
        Metric.VAL_AUC: "validation ROC AUC",
        Metric.VAL_LOSS: "validation loss",
    }[metric]


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{share * 100:+.2f}".replace("-", MINUS) + f"{NARROW}points"


def moment(iso: str | None) -> str:
    """An ISO 8601 time, written as 22 Nov 2026, 14:33 UTC."""
    if not iso:
        return NO_VALUE
    time = datetime.fromisoformat(iso)
    return f"{time.day} {time:%b %Y, %H:%M} {time.tzname() or ''}".strip()


def times(count: int) -> str:
    """once, twice, 3 times."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def counted(count: int, noun: str) -> str:
    """1 trial, 2 trials."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def right_alone(first: str, only_first: int, second: str, only_second: int) -> str:
    """How many images only one of two models gets right, for each of them."""
    return f"{counted(only_first, 'image')} that only {first} gets right, {only_second:,} that only {second} does"


def positive_said(target: str, classes: Sequence[str] | None) -> str:
    """The positive class: the attribute's name, with its value unless that is 1 or True."""
    positive = classes[1] if classes else "1"
    return target if positive in ("1", "True") else f"{target} = {positive}"


def setting_value(value: Any) -> str:
    """A setting's value; a number with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def setting(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The settings `names` of a row of the trial frame, on one line, without those that have no effect there.

    An audit has the settings of another trial, so it is marked as an audit.
    """
    known = {name: row[f"config/{name}"] for name in names}
    said = ", ".join(
        f"{name} {setting_value(value)}" for name, value in known.items() if not pd.isna(value)
    )
    return f"{said} (audit)" if row.get("origin") == "audit" else said
