"""Conclusions about settings from replicates: means over seeds with intervals, and which settings differ."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import inf
from typing import Any, Final

import numpy as np

from analysis.findings.per_image import Floats, shares_of_images
from analysis.frames import results
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.frames.snapshot.rights import rights_of, validation_labels
from analysis.levels import ALPHA, NEGLIGIBLE
from analysis.statistics import (
    UNBOUNDED,
    Difference,
    Labels,
    Mean,
    Superiority,
    between,
    holm,
    mean_of,
    superiority,
)
from analysis.wording import (
    counted,
    is_rate,
    metric_value,
    number,
    percent,
    points,
    setting,
)
from sweep.search.ranking import Standing, replicates, single_winner
from trainable.metric import Metric

MEANINGFUL: Final = 0.75
"""The probability of coming out ahead from which a difference counts as meaningful (Bouthillier et al. 2021, γ)."""
ROUNDED: Final = 1e-4
"""How far a value from predictions may differ from the recorded one, which was summed elsewhere; assumed."""


@dataclass(frozen=True)
class Versus:
    """The setting with the best mean compared with another one."""

    difference: Difference
    """Of the means, signed so that higher is better; p is for this pair alone, the interval allows for all pairs."""
    p_holm: float
    """Corrected for all pairs of settings, because the best one was not known in advance."""
    visible: float
    """The difference that this many runs and images detect with 80 % power."""
    ahead: Superiority
    """A run of the first against one of the other on these images; one that did not learn loses to all that did."""

    @property
    def is_meaningful(self) -> bool:
        """Significantly better, over other images too, and ahead in MEANINGFUL of cases or more; interval above 0.5."""
        known = self.p_holm < ALPHA and self.ahead.interval.low > 0.5
        return known and self.ahead.share >= MEANINGFUL


@dataclass(frozen=True)
class Replicated:
    """A setting that was trained again with other seeds."""

    setting: str
    trial_ids: tuple[str, ...]
    """Its replicates that learned."""
    not_learned: tuple[str, ...]
    """Its replicates that collapsed, diverged, or are flat."""
    mean: Mean | None
    """Of the metric at the best epochs of those that learned; None for fewer than two."""
    versus: Versus | None
    """None for the first setting, and for one without a mean."""


@dataclass(frozen=True)
class Replication:
    """Every setting with two replicates or more, best mean first, those without a mean last."""

    metric: Metric
    each: tuple[Replicated, ...]
    single: str | None
    """The setting of the best single trial of the search."""
    images: int
    """Validation images that standard errors cover; 0 if predictions are not on record and errors cover trials only."""

    def said(self) -> Iterator[str]:
        """Sentences about settings, which only replicates can support."""
        known = [each for each in self.each if each.mean is not None]
        for other in known[1:]:
            yield self._compared(known[0], other)
            yield self._again(known[0], other)
        for each in self.each:
            if each.not_learned:
                count, runs = len(each.not_learned), len(each.not_learned) + len(each.trial_ids)
                yield (
                    f"{each.setting}: {count} of {counted(runs, 'replicate')} did not learn "
                    f"({', '.join(each.not_learned)}); counted here, but left out of the mean"
                )
        if known and self.single is not None and self.single != known[0].setting:
            yield f"the best single trial of the search had a different setting: {self.single}"
        if known:
            seeds = counted(len(known[0].trial_ids), "new seed")
            yield (
                f"the setting with the highest mean was trained with {seeds}; split and augmentation draws were held "
                "fixed, so this says nothing about other splits"
            )
            if not self.images:
                yield (
                    "predictions of these trials are not on record, so intervals and p-values hold for these "
                    "validation images only"
                )

    def _compared(self, best: Replicated, other: Replicated) -> str:
        assert other.versus is not None
        versus = other.versus
        low, high = versus.difference.interval.low, versus.difference.interval.high
        ends = f"{self._step(low)} to {self._step(high)}"
        by = f"{self._step(versus.difference.difference)} (95 % confidence interval {ends})"
        if versus.p_holm < ALPHA:
            return f"{best.setting} beats {other.setting} by {by}, p = {versus.p_holm:.2g} after Holm's correction"
        if self.metric is not Metric.VAL_LOSS and low >= -NEGLIGIBLE and high <= NEGLIGIBLE:
            return f"{best.setting} and {other.setting} do not differ by more than {self._size(NEGLIGIBLE)}: {by}"
        return (
            f"{best.setting} and {other.setting} do not differ significantly: {by}; this many seeds and images detect "
            f"a difference of {self._size(versus.visible)} with 80 % power"
        )

    def _again(self, best: Replicated, other: Replicated) -> str:
        assert other.versus is not None
        ahead, meaning = other.versus.ahead, f"{percent(MEANINGFUL, 0)} that count as meaningful"
        low, high = ahead.interval.low, ahead.interval.high
        if high < MEANINGFUL:
            what = f"below the {meaning} (Bouthillier et al. 2021)"
        elif low <= 0.5:
            what = "with so few seeds, this may be due to chance"
        elif other.versus.p_holm >= ALPHA:
            what = (
                "other images could reverse this, since over them the difference is not significant"
            )
        elif other.versus.is_meaningful:
            what = f"more than chance, and at least the {meaning} (Bouthillier et al. 2021)"
        else:
            what = f"whether this reaches the {meaning} is not known (Bouthillier et al. 2021)"
        return (
            f"when both are trained again with new seeds, {best.setting} comes out ahead of {other.setting} on these "
            f"images in {percent(ahead.share, 0)} of cases (95 % confidence interval {percent(low, 0)} to "
            f"{percent(high, 0)}, {ahead.pairs} pairs of trials): {what}"
        )

    def _step(self, difference: float) -> str:
        return points(difference) if is_rate(self.metric) else number(difference)

    def _size(self, difference: float) -> str:
        """Without a sign."""
        return f"{difference * 100:.1f} points" if is_rate(self.metric) else number(difference)

    def value(self, value: float) -> str:
        """A value of the metric in words."""
        return metric_value(self.metric, value)

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "metric": self.metric.value, "said": list(self.said())}


def compare_replicates(run: Source) -> Replication:
    """The settings of the run that were replicated; empty if there are no replicates.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    metric, selection = read.config.metric, select(read)
    ranked = selection.ranked
    groups = sorted(
        replicates(ranked, selection.flat).values(),
        key=lambda runs: (not runs.decide, -runs.mean if runs.decide else 0.0),
    )
    single = single_winner(ranked)
    if not groups:
        return Replication(metric, (), None, 0)
    frame = results.trials(read)
    names = [name for name in results.varied(frame) if name != "seed"]
    said = {row["trial_id"]: setting(row, names) for row in results.to_records(frame)}
    settings = [said[(runs.learned + runs.not_learned)[0].trial_id] for runs in groups]
    deciding = [runs for runs in groups if runs.decide]
    values = _values(read, [runs.learned for runs in deciding])
    scores = [
        [r.score for r in runs.learned] + [-inf for _ in runs.not_learned] for runs in deciding
    ]
    versus = against_first(metric, values, scores)
    each = []
    for n, runs in enumerate(groups):
        mean = mean_of(values[n], _ends(metric)) if runs.decide else None
        learned, others = (
            tuple(sorted(one.trial_id for one in found))
            for found in (runs.learned, runs.not_learned)
        )
        against = versus[n - 1] if runs.decide and n else None
        each.append(Replicated(settings[n], learned, others, mean, against))
    images = values[0].shape[1] if values and values[0].shape[1] > 1 else 0
    return Replication(metric, tuple(each), said[single.trial_id] if single else None, images)


def against_first(
    metric: Metric, values: Sequence[Floats], scores: Sequence[Sequence[float]]
) -> list[Versus]:
    """The first setting, which has the best mean, against each other one; Holm and intervals allow for all pairs.

    values: by setting (runs, images), what each image contributes to a run that learned; or (runs, 1). scores: by
    setting those of all its runs, higher is better, -inf for one that did not learn.
    """
    low, high = _ends(metric)
    signed = [metric.score(1.0) * found for found in values]
    places = list(combinations(range(len(values)), 2))
    pairs = {
        (a, b): between(signed[a], signed[b], (low - high, high - low), len(places))
        for a, b in places
    }
    adjusted = dict(zip(pairs, holm([each.p for each, _ in pairs.values()]), strict=True))
    return [
        Versus(pairs[0, n][0], adjusted[0, n], pairs[0, n][1], superiority(scores[0], scores[n]))
        for n in range(1, len(values))
    ]


def _ends(metric: Metric) -> tuple[float, float]:
    """The range of the metric's values."""
    return (0.0, UNBOUNDED[1]) if metric is Metric.VAL_LOSS else (0.0, 1.0)


def _values(run: Snapshot, groups: Sequence[Sequence[Standing]]) -> list[Floats]:
    """By group (trials, images): what each image contributes to the value; if not known, the values as (trials, 1)."""
    labels = validation_labels(run) if groups else np.empty(0, np.int64)
    found = [[_of_images(run, one, labels) for one in group] for group in groups]
    if all(values is not None for group in found for values in group):
        return [np.stack([v for v in group if v is not None]) for group in found]
    return [np.array([[one.value] for one in group]) for group in groups]


def _of_images(run: Snapshot, one: Standing, labels: Labels) -> Floats | None:
    trial, epoch = run.by_id[one.trial_id], one.best.epoch
    found: Floats | None = None
    if trial.record.has_predictions(epoch):
        predicted = trial.record.predictions(epoch, ["label", "logit"])
        mine = predicted["label"].to_numpy(np.int64)
        if np.array_equal(mine, labels):
            found = shares_of_images(one.metric, mine, predicted["logit"].to_numpy(np.float64))
    elif one.metric in (Metric.VAL_ACCURACY, Metric.VAL_BALANCED_ACCURACY):
        right = rights_of(trial, len(labels))
        if right is not None:
            as_logits = np.where(right[epoch - 1] == (labels == 1), 1.0, -1.0)
            found = shares_of_images(one.metric, labels, as_logits)
    if found is None or not abs(found.mean() - one.value) < ROUNDED:
        return None
    return found
