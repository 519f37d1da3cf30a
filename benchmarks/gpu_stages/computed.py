"""Totals of sweeps that were not run entirely: computed from measurements, with every term of the sum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import mean, median
from typing import Any, Final

Kind = tuple[str, str]
"""Strategy and augmentation."""
MIXED: Final = ("head", "block5")


@dataclass(frozen=True)
class Case:
    """A sweep: how many trials of each kind."""

    name: str
    trials: Mapping[Kind, int]
    epochs: int
    head: str = ""
    """If it is not the job's."""


CASES: Final = (
    Case(
        "12 trials × 10 epochs",
        dict.fromkeys(product(MIXED, ("none", "flip", "flip_jitter")), 2),
        10,
    ),
    Case("8 trials × 10 epochs", dict.fromkeys(product(MIXED, ("none", "flip")), 2), 10),
    Case("24 trials of 512-64 × 10 epochs", {("head", "flip"): 24}, 10, "512-64"),
)


@dataclass(frozen=True)
class Measured:
    """The terms of the sums, in seconds."""

    start: float
    """From the command to the first trial."""
    fill: Mapping[str, float]
    """Extra time of a first epoch over a steady one: block5's from pixels, the head's from the start of block 5."""
    first: Mapping[Kind, float]
    """A steady epoch of the first trial of a kind."""
    again: Mapping[Kind, float]
    """An epoch of every other trial of that kind."""
    turnover: float
    """Time of a trial outside epochs: building, writing, turnover to the next."""
    warming: float
    """Extra time of a trial's first epoch with all features present: warm-up, capture."""
    end: float


def total(case: Case, measured: Measured) -> dict[str, float]:
    """The terms of a sweep's wall time, one trial at a time, and their sum under `seconds`.

    A jittered epoch's views are computed by the first trial of a strategy and reused by the others.

    Raises:
        KeyError: something was not measured.
    """
    terms = {"start": measured.start, "end": measured.end}
    terms["fill block5"] = measured.fill["block5"]  # computing the head's features passes block 5
    if any(strategy == "head" for strategy, _ in case.trials):
        terms["fill head"] = measured.fill["head"]
    for kind, trials in case.trials.items():
        later = (trials - 1) * measured.again[kind]
        terms[f"epochs {' '.join(kind)}"] = case.epochs * (measured.first[kind] + later)
    terms["turnovers"] = measured.turnover * sum(case.trials.values())
    terms["warm-up and captures"] = measured.warming * sum(case.trials.values())
    return {**terms, "seconds": sum(terms.values())}


def plain_total(
    case: Case, start: float, epoch_seconds: Mapping[str, float], concurrent: int
) -> dict[str, float]:
    """The same for the plain script, `concurrent` trials at a time: it does the same work for every kind of trial."""
    trial_epoch = mean(epoch_seconds.values()) / concurrent
    epochs = case.epochs * sum(case.trials.values())
    return {
        "start": start,
        "epochs": epochs * trial_epoch,
        "trial_epoch": trial_epoch,
        "seconds": start + epochs * trial_epoch,
    }


def turnover_seconds(trials: Sequence[Mapping[str, Any]]) -> float:
    """Mean seconds of a trial outside epochs, including the gap to the next trial of its slot.

    A trial has slot, started, ended and epoch_seconds.
    """
    inside = [each["ended"] - each["started"] - sum(each["epoch_seconds"]) for each in trials]
    between = []
    for slot in {each["slot"] for each in trials}:
        here = sorted((e for e in trials if e["slot"] == slot), key=lambda each: each["started"])
        between += [later["started"] - each["ended"] for each, later in pairwise(here)]
    return float(mean(inside) + (mean(between) if between else 0.0))


def warming_seconds(trials: Sequence[Mapping[str, Any]]) -> float:
    """Mean extra seconds of a trial's first epoch, for trials whose strategy another trial has run before."""
    seen: set[str] = set()
    found = []
    for each in sorted(trials, key=lambda each: each["started"]):
        first, *others = each["epoch_seconds"]
        if each["setting"]["strategy"] in seen:
            found.append(first - median(others))
        seen.add(each["setting"]["strategy"])
    return float(mean(found))


def steady(epochs: Mapping[str, Any], name: str) -> float:
    """Seconds of an epoch: the median without the first, which fills, warms up and captures.

    Raises:
        KeyError: it was not measured, or failed.
    """
    found = epochs.get(name)
    if not isinstance(found, Mapping):
        raise KeyError(f"epochs {name}")
    return float(median(found["epoch_seconds"][1:]))


def measured_by(stages: Mapping[str, Mapping[str, Any]], head: str) -> Measured:
    """The measurements of the stages, for trials with this head ("" for the job's).

    Raises:
        KeyError: a stage found too little.
    """
    epochs, fill, sweep = (stages[name]["figures"] for name in ("epochs", "fill", "sweep"))
    of_head = f" {head}" if head else ""
    first: dict[Kind, float] = {}
    again: dict[Kind, float] = {}
    kinds = [("head", "flip")] if head else list(product(MIXED, ("none", "flip")))
    for kind in kinds:
        first[kind] = again[kind] = steady(epochs, " ".join(kind) + of_head)
    for strategy in () if head else MIXED:
        for turn, found in (("first", first), ("again", again)):
            name = f"{strategy} flip_jitter {turn}"
            if isinstance(epochs.get(name), Mapping):
                found[strategy, "flip_jitter"] = steady(epochs, name)
    return Measured(
        start=sweep["start_seconds"],
        fill={strategy: fill[f"fill {strategy}"]["fill_seconds"] for strategy in MIXED},
        first=first,
        again=again,
        turnover=sweep["turnover_seconds"],
        warming=sweep["warming_seconds"],
        end=sweep["end_seconds"],
    )


def computed(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each case's total, the plain script's, and their ratio; or what is missing to compute them."""
    found: dict[str, Any] = {
        "note": "computed from measured parts, not run: each total is the sum of its terms, in seconds"
    }
    for case in CASES:
        facts: dict[str, Any] = {}
        try:
            facts["ours"] = total(case, measured_by(stages, case.head))
        except (KeyError, TypeError) as error:
            facts["ours_lacks"] = str(error)
        try:
            plain = stages["plain"]["figures"]
            seconds = {name: times[-1] for name, times in plain["epoch_seconds"].items()}
            facts["plain"] = plain_total(case, plain["start_seconds"], seconds, plain["concurrent"])
        except (KeyError, TypeError) as error:
            facts["plain_lacks"] = str(error)
        if "ours" in facts and "plain" in facts:
            ratio = facts["plain"]["seconds"] / facts["ours"]["seconds"]
            facts["ratio"] = ratio if math.isfinite(ratio) else None
        found[case.name] = facts
    return found
