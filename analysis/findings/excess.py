"""Selection bias: how much too high the winner's validation value is, as it was chosen on the images that score it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from analysis.frames.select import Selection
from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.frames.snapshot.rights import right_at, rights_of, validation_labels
from analysis.statistics import Interval, Labels, Numbers, Right, wilson_of_proportion
from analysis.wording import counted, metric_name, percent
from sweep.search.ranking import replicates
from trainable.errors import RequestError
from trainable.metric import Metric

MOST_DRAWS: Final = 2_000  # 0.5 s for 120 models and 3,000 images (docs/log.md)
LEAST_DRAWS: Final = 200  # however many models there are; 0.5 s for 10,000 (docs/log.md)
WORK: Final = 6_000_000_000
"""Models × images × draws: a second or two. Where it would be more, there are fewer draws."""
MOST_MODELS: Final = 20_000
"""If there are more, those with the best values are kept: 60 MB at 3,000 images; assumed."""
ROWS: Final = 1_000
"""Models expanded from bits to numbers at a time: 12 MB at 3,000 images; assumed."""
CELLS: Final = 2_000_000
"""Draws × images, or models × draws, held at a time: 8 MB; assumed."""
OUT_OF_REACH: Final = 5.0
"""Standard deviations behind the winner beyond which no draw is expected to put a model first: under a normal
distribution, fewer than one draw in a million would."""

Draws = np.ndarray[Any, np.dtype[np.float32]]


# ---------------------------------------------------------------- from arrays


@dataclass(frozen=True)
class Models:
    """The candidates that a winner was chosen from, on the same images."""

    right: Right
    """(models, images): did this epoch of a trial get the image right?"""
    trial: Numbers
    """(models,): number of the trial, from 0, ascending."""
    setting: Numbers | None = None
    """(trials,): number of its setting, if the setting with the best mean of its trials' best epochs wins, and in it
    the best trial; None if the best of all models wins."""


@dataclass(frozen=True)
class Excess:
    """The value of the best of many models, and its value corrected for selection."""

    printed: float
    """On the images that it was chosen on, in 0…1."""
    excess: float
    """How much too high that is; never below 0."""
    corrected: float
    interval: Interval
    """Of the winner's value on other images like these: around `corrected`, widened for the selection."""
    draws: int


def excess_of_best(
    models: Models, printed: float, labels: Labels | None = None, seed: int = 0
) -> Excess:
    """What the best of `models` would reach on images that it was not chosen on.

    Images are drawn with replacement, as many as there are; the winner is chosen on the draw by the rule of `models`
    and scored on the images not drawn (out of bag: Efron and Tibshirani 1997, who do so for one model). The mean over
    draws estimates the winner's value; the excess is `printed`, its value as chosen, minus that mean. A draw contains
    63 % of the images, so it chooses slightly worse than all images do. The value is accuracy, or balanced accuracy if
    labels (images,) of 0 and 1 are given.

    The interval is Wilson's for the variance V + (excess / 2)², V that of the corrected value on this many images:
    half the excess stands for the spread of chance, and of the true values of models that could have been chosen.
    In simulations with known true values it covers the winner's in 95 to 100 % (benchmarks/winner.py).
    """
    scores = _scores(models, labels, np.random.default_rng(seed))
    excess = max(0.0, printed - float(np.mean(scores))) if len(scores) else 0.0
    corrected = printed - excess
    images = models.right.shape[1]
    variance = corrected * (1 - corrected) / _effective(images, labels) + (excess / 2) ** 2
    interval = wilson_of_proportion(corrected, variance, images)
    return Excess(printed, excess, corrected, interval, len(scores))


def _effective(images: int, labels: Labels | None) -> float:
    """Effective number of images; for balanced accuracy 4 / (1/p + 1/n), assuming equal error rates in both classes."""
    if labels is None:
        return images
    positives = int(labels.sum())
    return 4 / (1 / max(positives, 1) + 1 / max(images - positives, 1))


def _scores(models: Models, labels: Labels | None, random: np.random.Generator) -> Numbers:
    """(draws,): the out-of-bag value of the model chosen on each draw; draws that lack a class are left out."""
    count, images = models.right.shape
    wanted = int(np.clip(WORK // max(count * images, 1), LEAST_DRAWS, MOST_DRAWS))
    at_once = max(1, CELLS // max(count, images))
    found = []
    for start in range(0, wanted, at_once):
        rows = min(at_once, wanted - start)
        drawn = random.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)
        out = times == 0
        inside, outside = _weights(times, labels), _weights(out, labels)
        chosen = _chosen(models, _values(models.right, inside))
        values = np.einsum("di,di->d", models.right[chosen], outside, dtype=np.float64)
        full = (inside.sum(axis=1) > 0) & (outside.sum(axis=1) > 0)
        if labels is not None:
            for value in (0, 1):
                full &= times[:, labels == value].any(axis=1) & out[:, labels == value].any(axis=1)
            found.append(values[full])
        else:
            found.append((values / np.maximum(out.sum(axis=1), 1))[full])
    return np.concatenate(found)


def _weights(times: Numbers, labels: Labels | None) -> Draws:
    """(draws, images): what an image drawn so many times adds; whole numbers for accuracy, so that ties stay ties."""
    weights = times.astype(np.float32)
    if labels is not None:
        for value in (0, 1):
            of_class = labels == value
            total = weights[:, of_class].sum(axis=1, keepdims=True)
            weights[:, of_class] /= 2 * np.maximum(total, 1)
    return weights


def _values(right: Right, weights: Draws) -> Draws:
    """(models, draws)."""
    blocks = range(0, len(right), ROWS)
    return np.concatenate(
        [right[at : at + ROWS].astype(np.float32) @ weights.T for at in blocks], axis=0
    )


def _chosen(models: Models, values: Draws) -> Numbers:
    """(draws,): the model that wins each draw; the first of equals."""
    if models.setting is None:
        first: Numbers = values.argmax(axis=0)
        return first
    starts = np.flatnonzero(np.diff(models.trial, prepend=-1))
    of_trial = np.maximum.reduceat(values, starts, axis=0)
    settings = np.arange(models.setting.max() + 1)
    member = models.setting[None, :] == settings[:, None]
    means = (member / member.sum(axis=1, keepdims=True)) @ of_trial
    best = means.argmax(axis=0)
    trial = np.where(models.setting[:, None] == best, of_trial, -1).argmax(axis=0)
    epoch: Numbers = np.where(models.trial[:, None] == trial, values, -1).argmax(axis=0)
    return epoch


# ---------------------------------------------------------------- from a run


@dataclass(frozen=True)
class Chosen:
    """The winner's value corrected for selection, as far as the records allow."""

    metric: Metric
    excess: Excess | None
    """None if the metric is not a rate of right predictions, or no model's results per image are on record."""
    trials: int
    """That the winner was chosen among, however they ended."""
    models: int
    """Their epochs that were compared."""
    best_epochs_only: int
    """Trials of which only the best epoch's results per image are on record."""
    unknown: int
    """Trials of which no epoch's are."""
    out_of_reach: int
    """Epochs that were left out because they are too far behind to win a draw."""

    @property
    def interval(self) -> Interval | None:
        """Of the winner's accuracy; None if accuracy did not decide, or nothing is known."""
        return self.excess.interval if self.excess and self.metric is Metric.VAL_ACCURACY else None

    def said(self) -> Iterator[str]:
        """In sentences."""
        name = metric_name(self.metric)
        if self.excess is None:
            what = (
                f"{name} can't be computed from right and wrong predictions alone"
                if self.metric not in (Metric.VAL_ACCURACY, Metric.VAL_BALANCED_ACCURACY)
                else "no model's results per validation image are on record"
            )
            yield (
                f"the winner's {name} is optimistic, because it was chosen among {counted(self.trials, 'trial')}; "
                f"by how much is not known: {what}"
            )
            return
        found = self.excess
        low, high = percent(found.interval.low), percent(found.interval.high)
        yield (
            f"the winner's {name} of {percent(found.printed)} is too high by about {found.excess * 100:.2f} points, "
            f"because it is the best of {counted(self.trials, 'trial')} and all their epochs: on other images like "
            f"these, expect {percent(found.corrected)} (95 % confidence interval {low} to {high}; {found.draws:,} "
            "bootstrap samples of the images, scored out of bag)"
        )
        if self.best_epochs_only or self.unknown:
            parts = [
                f"for {counted(self.best_epochs_only, 'trial')} only the best epoch's results per image are on record"
                if self.best_epochs_only
                else "",
                f"for {counted(self.unknown, 'trial')} no results per image are on record"
                if self.unknown
                else "",
            ]
            yield f"{' and '.join(filter(None, parts))}, so the true excess is larger"


def chosen_among(run: Snapshot, selection: Selection) -> Chosen:
    """The excess of the run's winner, which there must be.

    Single runs: every epoch of every trial of the search was a candidate, including pruned trials. Replicates: every
    epoch of those that learned, of settings with at least two of them.

    Raises:
        RequestError: split.parquet is damaged.
    """
    winner, metric = selection.winner, selection.metric
    assert winner is not None
    groups = _candidates(run, selection)
    trials = [trial for group in groups for trial in group]
    if metric not in (Metric.VAL_ACCURACY, Metric.VAL_BALANCED_ACCURACY):
        return Chosen(metric, None, len(trials), 0, 0, 0, 0)
    labels = validation_labels(run)
    balanced = labels if metric is Metric.VAL_BALANCED_ACCURACY else None
    by_replicates = winner.origin == "replicate"
    floor = None if by_replicates else _floor(trials, metric, winner.value, labels)
    read = [_epochs(trial, metric, len(labels), floor) for trial in trials]
    known = [(n, right) for n, (right, _) in enumerate(read) if right is not None and len(right)]
    ends = [end for _, end in read]
    left_out = sum(end for end in ends if end > 0)
    partly, unknown = ends.count(BEST_ONLY), ends.count(UNKNOWN)
    if not known:
        return Chosen(metric, None, len(trials), 0, partly, unknown, left_out)
    right = np.concatenate([found for _, found in known])
    trial = np.repeat(np.arange(len(known)), [len(found) for _, found in known])
    of_group = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    kept = of_group[[n for n, _ in known]]
    setting = np.unique(kept, return_inverse=True)[1] if by_replicates else None
    found = excess_of_best(Models(right, trial, setting), winner.value, balanced)
    return Chosen(metric, found, len(trials), len(right), partly, unknown, left_out)


def _candidates(run: Snapshot, selection: Selection) -> list[list[ReadTrial]]:
    """The trials that the winner was chosen among, grouped by setting if replicates decided."""
    assert selection.winner is not None
    if selection.winner.origin == "replicate":
        return [
            [run.by_id[each.trial_id] for each in runs.learned]
            for runs in replicates(selection.ranked, selection.flat).values()
            if runs.decide
        ]
    return [[t for t in run.trials if t.asked.origin == "search" and len(t.epochs)]]


# returned in place of a number of epochs, which is never negative
BEST_ONLY: Final = -1
UNKNOWN: Final = -2


def _epochs(
    trial: ReadTrial, metric: Metric, images: int, floor: float | None
) -> tuple[Right | None, int]:
    """(epochs, images) of the epochs not below `floor`, and how many were below it, or what is not on record."""
    values = np.asarray(trial.epochs.column(metric.value))
    in_reach = np.ones(len(values), bool) if floor is None else values >= floor
    if not in_reach.any():
        return None, len(values)
    right = rights_of(trial, images)
    if right is not None:
        return right[in_reach], int((~in_reach).sum())
    best = trial.best(metric)
    if best is None or not trial.record.has_predictions(best.epoch):
        return None, UNKNOWN
    try:
        only = right_at(trial, best.epoch)
    except RequestError:  # a damaged file counts as unknown; the other trials are still used
        return None, UNKNOWN
    return (only[None, :], BEST_ONLY) if len(only) == images else (None, UNKNOWN)


def _floor(trials: Sequence[ReadTrial], metric: Metric, printed: float, labels: Labels) -> float:
    """The lowest value with which a model can still win a draw.

    Two models of values a and b differ on at most (1 - a) + (1 - b) of the images, so the standard deviation of their
    difference on a draw is at most the square root of that divided by the number of images (for balanced accuracy,
    by twice the size of the smaller class).
    """
    images = len(labels)
    if metric is Metric.VAL_BALANCED_ACCURACY:
        images = max(1, 2 * min(int(labels.sum()), images - int(labels.sum())))
    values = np.sort(np.concatenate([t.epochs.column(metric.value) for t in trials]))[::-1]
    spread = np.sqrt(((1 - values) + (1 - printed)) / images)
    reaching = values[values >= printed - OUT_OF_REACH * spread]
    return float(reaching[min(len(reaching), MOST_MODELS) - 1]) if len(reaching) else printed
