"""By how much the winner's validation value is too high, because it was chosen on the images that it is scored on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from analysis.frames.select import Selection
from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.frames.snapshot.rights import right_at, rights_of, validation_labels
from analysis.statistics import BOOTSTRAPS, Interval, Labels, Numbers, Right, wilson_of_proportion
from analysis.wording import counted, metric_name, percent
from sweep.search.ranking import replicates
from trainable.errors import RequestError
from trainable.metric import Metric

LEAST_DRAWS: Final = 200  # however many models there are; 0.5 s for 10,000 (docs/log.md)
WORK: Final = 6_000_000_000
"""Models × images × draws: a second or two. Beyond it there are fewer draws."""
MOST_MODELS: Final = 20_000
"""Those with the best values, where there are more: 60 MB at 3,000 images; assumed."""
ROWS: Final = 1_000
"""Models that are numbers, not bits, at a time: 12 MB at 3,000 images; assumed."""
CELLS: Final = 2_000_000
"""Draws × images, or models × draws, at a time: 8 MB; assumed."""
OUT_OF_REACH: Final = 5.0
"""Standard deviations behind the winner from which on a draw that puts a model before it does not come: were it normal,
less than one in a million does."""

Draws = np.ndarray[Any, np.dtype[np.float32]]


# ---------------------------------------------------------------- from arrays


@dataclass(frozen=True)
class Models:
    """What a winner was chosen among, on the same images."""

    right: Right
    """(models, images): did this epoch of a trial get the image right?"""
    trial: Numbers
    """(models,): number of the trial, from 0, ascending."""
    setting: Numbers | None = None
    """(trials,): number of its setting, where the setting with the best mean of its trials' best epochs wins, and in it
    the best trial; None where the best of all wins."""


@dataclass(frozen=True)
class Excess:
    """The value of the best of many models, and what it is without the luck of being chosen."""

    printed: float
    """On the images that it was chosen on, in 0…1."""
    excess: float
    """By how much that is too high; never below 0."""
    corrected: float
    interval: Interval
    """Of the winner's value on other images like these: about `corrected`, widened for the choice."""
    draws: int


def excess_of_best(
    models: Models, printed: float, labels: Labels | None = None, seed: int = 0
) -> Excess:
    """What the best of `models` would reach on images that it was not chosen on.

    Images are drawn with replacement, as many as there are; the winner is chosen on the draw by the rule of `models`
    and scored on the images not drawn (out of bag: Efron and Tibshirani 1997, who do so for one model). The mean over
    draws estimates the winner's value; `printed`, its value as chosen, less that is the excess. A draw has 63 % of the
    images, so it chooses a little worse than all of them do. The value is accuracy, or with labels (images,) of 0 and 1
    balanced accuracy.

    The interval is Wilson's for the variance V + (excess / 2)², V that of the corrected value on so many images:
    half the excess stands for the spread of luck, and of the true values of those that might have been chosen.
    Simulated with true values known, it holds the winner's in 95 to 100 % (benchmarks/winner.py).
    """
    scores = _scores(models, labels, np.random.default_rng(seed))
    excess = max(0.0, printed - float(np.mean(scores))) if len(scores) else 0.0
    corrected = printed - excess
    images = models.right.shape[1]
    variance = corrected * (1 - corrected) / _effective(images, labels) + (excess / 2) ** 2
    interval = wilson_of_proportion(corrected, variance, images)
    return Excess(printed, excess, corrected, interval, len(scores))


def _effective(images: int, labels: Labels | None) -> float:
    """Images that an accuracy of this variance has: of a balanced one 4 / (1/p + 1/n), of equal errors in both."""
    if labels is None:
        return images
    positives = int(labels.sum())
    return 4 / (1 / max(positives, 1) + 1 / max(images - positives, 1))


def _scores(models: Models, labels: Labels | None, random: np.random.Generator) -> Numbers:
    """(draws,): the value out of bag of what was chosen on each draw; draws that lack a class are left out."""
    count, images = models.right.shape
    wanted = int(np.clip(WORK // max(count * images, 1), LEAST_DRAWS, BOOTSTRAPS))
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
    """(draws, images): what an image that counts so many times adds; whole numbers for accuracy, so that ties stay."""
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
    """The winner's value without the luck of being chosen, as far as the record tells."""

    metric: Metric
    excess: Excess | None
    """None where the metric is not one of right and wrong, or no model's images are on record."""
    trials: int
    """That the winner was chosen among, by whatever end."""
    models: int
    """Epochs of them that were compared."""
    best_epochs_only: int
    """Trials whose best epoch alone is on record image by image."""
    unknown: int
    """Trials of which no epoch is."""
    out_of_reach: int
    """Epochs so far behind that they can't win a draw, which were left out."""

    @property
    def interval(self) -> Interval | None:
        """Of the winner's accuracy; None where accuracy did not decide, or nothing is known."""
        return self.excess.interval if self.excess and self.metric is Metric.VAL_ACCURACY else None

    def said(self) -> Iterator[str]:
        """In sentences."""
        name = metric_name(self.metric)
        if self.excess is None:
            what = (
                f"right and wrong say nothing of {name}"
                if self.metric not in (Metric.VAL_ACCURACY, Metric.VAL_BALANCED_ACCURACY)
                else "no model's validation images are on record"
            )
            yield (
                f"the winner's {name} is too high for having been chosen among {counted(self.trials, 'trial')}; "
                f"by how much can't be told: {what}"
            )
            return
        found = self.excess
        low, high = percent(found.interval.low), percent(found.interval.high)
        yield (
            f"the winner's {name} of {percent(found.printed)} is too high by about {found.excess * 100:.2f} points, "
            f"since it is the best of {counted(self.trials, 'trial')} and all their epochs: on other images like these "
            f"expect {percent(found.corrected)} (95 % interval {low} to {high}; {found.draws:,} bootstrap draws of "
            "images, scored out of bag)"
        )
        if self.best_epochs_only or self.unknown:
            parts = [
                f"of {counted(self.best_epochs_only, 'trial')} only the best epoch is on record image by image"
                if self.best_epochs_only
                else "",
                f"of {counted(self.unknown, 'trial')} none" if self.unknown else "",
            ]
            yield f"{' and '.join(filter(None, parts))}, so the real excess is larger"


def chosen_among(run: Snapshot, selection: Selection) -> Chosen | None:
    """The excess of the run's winner; None while there is no winner.

    Single runs: every epoch of every trial of the search was a candidate, pruned ones too. Replicates: every epoch of
    those that learned, of settings with two or more of them.

    Raises:
        RequestError: split.parquet is damaged.
    """
    winner, metric = selection.winner, selection.metric
    if winner is None:
        return None
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
    """The trials that the winner was chosen among, by setting where replicates decided."""
    assert selection.winner is not None
    if selection.winner.origin == "replicate":
        return [
            [run.by_id[each.trial_id] for each in runs.learned]
            for runs in replicates(selection.ranked, selection.flat).values()
            if runs.decide
        ]
    return [[t for t in run.trials if t.asked.origin == "search" and len(t.epochs)]]


# beside numbers of epochs, none of which is negative
BEST_ONLY: Final = -1
UNKNOWN: Final = -2


def _epochs(
    trial: ReadTrial, metric: Metric, images: int, floor: float | None
) -> tuple[Right | None, int]:
    """(epochs, images) of those not below `floor`; with it how many were below, or what is not on record."""
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
    except RequestError:  # what a damaged file held isn't known, and the rest still tells
        return None, UNKNOWN
    return (only[None, :], BEST_ONLY) if len(only) == images else (None, UNKNOWN)


def _floor(trials: Sequence[ReadTrial], metric: Metric, printed: float, labels: Labels) -> float:
    """The lowest value from which a model may win a draw.

    Two models of values a and b differ on at most (1 - a) + (1 - b) of the images, so on a draw their difference has
    at most the standard deviation sqrt of that over the images (over twice the smaller class for balanced accuracy).
    """
    images = len(labels)
    if metric is Metric.VAL_BALANCED_ACCURACY:
        images = max(1, 2 * min(int(labels.sum()), images - int(labels.sum())))
    values = np.sort(np.concatenate([t.epochs.column(metric.value) for t in trials]))[::-1]
    spread = np.sqrt(((1 - values) + (1 - printed)) / images)
    reaching = values[values >= printed - OUT_OF_REACH * spread]
    return float(reaching[min(len(reaching), MOST_MODELS) - 1]) if len(reaching) else printed
