"""What ASHA stopped, how far each strategy got, and what audits of the stopped trials show."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from analysis.frames.learned import is_flat, validation_classes
from analysis.frames.select import select
from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.frames.snapshot.rights import right_at
from analysis.levels import ALPHA
from analysis.statistics import Interval, mcnemar, wilson
from analysis.wording import counted, percent, points
from sweep.search.ranking import BY_THEMSELVES, Standing
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.rows import Row, Status

HALF_A_POINT: Final = 0.005
"""A smaller lead does not count, whatever a test says; assumed."""
ENOUGH: Final = 6
"""Audits of a strategy that are enough for a conclusion; if fewer trials were pruned, all of them. This number was
simulated (docs/log.md)."""


@dataclass(frozen=True)
class PrunedStrategy:
    """What became of the search's trials of one strategy."""

    strategy: str
    trials: int
    stopped: Mapping[int, int]
    """Epoch → trials that ASHA stopped there."""
    finished: int
    """Ran to the end and learned."""
    flat: int
    """Ran to the end without learning anything; see `analysis.frames.learned.is_flat`."""
    others: Mapping[str, int]
    """Status → trials, of all other statuses."""
    audits: int
    """Pruned trials that were added to the run again, to run to the end."""
    ended: int
    """Audits that came to an end of their own: finished, diverged or collapsed."""
    better: int
    """Audits that ended better than the best trial of the search; see Audit."""
    interval: Interval | None
    """Of that share among the strategy's pruned trials (Wilson, limited to what trials without an audit leave open);
    None if none or all of them were audited."""

    @property
    def pruned(self) -> int:
        return sum(self.stopped.values())

    @property
    def is_known(self) -> bool:
        """Has any trial shown how the strategy ends, or can one still do so?"""
        still = any(not Status(status).has_ended for status in self.others)
        return self.finished > 0 or self.ended > 0 or still or not self.pruned

    def said(self) -> Iterator[str]:
        """In sentences."""
        stopped = [f"{count} at epoch {epoch}" for epoch, count in sorted(self.stopped.items())]
        parts = [f"ASHA stopped {' and '.join(stopped) or 'none'}"]
        parts.append(f"{self.finished or 'none'} ran to the end and learned")
        if self.flat:
            parts.append(f"{self.flat} ran to the end without learning")
        parts += [f"{count} {status}" for status, count in self.others.items()]
        yield f"of {counted(self.trials, f'{self.strategy} trial')}, {', '.join(parts)}"
        if self.ended:
            yield (
                f"of {counted(self.pruned, f'pruned {self.strategy} trial')}, {self.ended} ran to the end in audits, "
                f"{self.better or 'none'} of them better than the best trial of the search{self._share()}"
            )

    def _share(self) -> str:
        if self.interval is None:
            return ""
        low, high = percent(self.interval.low, 0), percent(self.interval.high, 0)
        return f" (95 % confidence interval of the share among all pruned trials: {low} to {high})"


@dataclass(frozen=True)
class Audit:
    """How pruned trials ended that were run to the end; within each strategy they were drawn at random.

    An audit is better than the best trial of the search if it finished with a value that is better by half a point or
    more (of the metric; of accuracy if that is a loss), and if McNemar's test of both best epochs' predictions is
    significant. Without predictions, half a point alone decides.
    """

    pruned: int
    ended: int
    """Audits that came to an end of their own: finished, diverged or collapsed."""
    missing: int
    """Audits that did not: still to come, or failed."""
    better: Mapping[str, float]
    """Pruned trials whose audit ended better → by how much, as a share."""
    ahead: int
    """Further audits with a better value, but not by enough."""


@dataclass(frozen=True)
class Pruning:
    """What was pruned of each strategy, in the order of suggestion, and what the audits show."""

    strategies: tuple[PrunedStrategy, ...]
    audit: Audit | None
    """None if no trial was audited, or none of the search has finished."""

    def said(self) -> Iterator[str]:
        """What was seen, in sentences; none if no trial was pruned."""
        if not any(each.pruned for each in self.strategies):
            return
        for each in self.strategies:
            yield from each.said()
        if self.audit is not None and self.audit.ahead:
            yield (
                f"{counted(self.audit.ahead, 'audited trial')} ended ahead of the best trial of the search, but by "
                "less than half a point, or by too little to be significant on these images"
            )
        if self.audit is not None and self.audit.missing:
            yield f"{counted(self.audit.missing, 'audit')} without a result: still to come, or failed"
        if not any(each.audits for each in self.strategies) and all(
            each.is_known for each in self.strategies
        ):
            yield (
                "no pruned trial was run to the end, so ASHA may have stopped a better one: "
                f"{self._command()} checks a sample"
            )

    def warnings(self) -> Iterator[str]:
        """What a reader must know before trusting a comparison, in sentences."""
        for each in self.strategies:
            if not each.is_known:
                tells = (
                    "its audits will show it"
                    if each.audits
                    else f"{self._command()} runs pruned trials to the end to find out"
                )
                yield (
                    f"no {each.strategy} trial that learned ran to the end, so it is not known how {each.strategy} "
                    f"would have ended: {tells}"
                )
        if self.audit is not None and self.audit.better:
            named = ", ".join(f"{each}, {points(by)}" for each, by in self.audit.better.items())
            yield (
                f"ASHA stopped trials that end better than the best trial of the search ({named}): asha.grace_period "
                "looks too short; use a larger one in the next run"
            )

    def _command(self) -> str:
        """The command that audits enough trials of each strategy for a conclusion."""
        count = wanted(
            {each.strategy: each.pruned for each in self.strategies},
            {each.strategy: each.audits for each in self.strategies},
        )
        return f"`sweep extend RUN --audit {count}`"


def wanted(pruned: Mapping[str, int], audited: Mapping[str, int]) -> int:
    """How many more audits give each strategy ENOUGH, or as many as it can have; both arguments by strategy.

    `sweep extend --audit` draws from the strategy with the fewest audits, so this number is sufficient.
    """
    return sum(max(0, min(ENOUGH, count) - audited.get(each, 0)) for each, count in pruned.items())


def pruning_of(run: Snapshot) -> Pruning:
    """What ASHA stopped in the run.

    Raises:
        RequestError: the split is missing or damaged.
    """
    search = [trial for trial in run.trials if trial.asked.origin == "search"]
    audits = {trial.asked.audits: trial for trial in run.trials if trial.asked.audits is not None}
    best = select(run).single
    audit = _audit(run, search, audits, best) if audits and best is not None else None
    better = audit.better if audit is not None else {}
    by_strategy: dict[str, list[ReadTrial]] = {}
    for trial in search:
        by_strategy.setdefault(trial.asked.settings.strategy, []).append(trial)
    classes = validation_classes(run)
    strategies = (
        _pruned(strategy, trials, run.config.metric, classes, audits, better)
        for strategy, trials in by_strategy.items()
    )
    return Pruning(tuple(strategies), audit)


def _pruned(
    strategy: str,
    trials: Sequence[ReadTrial],
    metric: Metric,
    classes: tuple[int, int],
    audits: Mapping[str, ReadTrial],
    better: Mapping[str, float],
) -> PrunedStrategy:
    statuses = Counter(trial.status().status for trial in trials)
    ended = [each for each in trials if each.status().status is Status.FINISHED]
    flat = sum(_is_flat(each, metric, classes) for each in ended)
    pruned = [each for each in trials if each.status().status is Status.PRUNED]
    audited = [audits[each.trial_id] for each in pruned if each.trial_id in audits]
    told = sum(each.status().status in BY_THEMSELVES for each in audited)
    found = sum(each.trial_id in better for each in pruned)
    return PrunedStrategy(
        strategy,
        len(trials),
        dict(sorted(Counter(len(each.epochs) for each in pruned).items())),
        len(ended) - flat,
        flat,
        {
            status.value: statuses[status]
            for status in Status
            if statuses[status] and status not in (Status.FINISHED, Status.PRUNED)
        },
        len(audited),
        told,
        found,
        _share(found, told, len(pruned)),
    )


def _share(better: int, ended: int, pruned: int) -> Interval | None:
    """Of the share of all `pruned` that would end better, from the audits that `ended`; None if nothing to estimate."""
    if not 0 < ended < pruned:
        return None
    found, open_ = wilson(better, ended), pruned - ended
    return replace(
        found,
        low=max(found.low, better / pruned),
        high=min(found.high, (better + open_) / pruned),
    )


def _is_flat(trial: ReadTrial, metric: Metric, classes: tuple[int, int]) -> bool:
    best = trial.best(metric)
    return best is None or is_flat(best.val_auc, *classes)


def _audit(
    run: Snapshot,
    search: Sequence[ReadTrial],
    audits: Mapping[str, ReadTrial],
    best: Standing,
) -> Audit:
    metric = run.config.metric
    ended = [each for each in audits.values() if each.status().status in BY_THEMSELVES]
    finished = [each for each in ended if each.status().status is Status.FINISHED]
    leads = [_lead(each.best(metric), best, metric) for each in finished]
    p_values = [
        _p(run, each, best) if lead > 0 else 1.0 for each, lead in zip(finished, leads, strict=True)
    ]
    better = {
        each.asked.audits or "": lead
        for each, lead, is_told in zip(finished, leads, are_better(leads, p_values), strict=True)
        if is_told
    }
    return Audit(
        pruned=sum(each.status().status is Status.PRUNED for each in search),
        ended=len(ended),
        missing=len(audits) - len(ended),
        better=better,
        ahead=sum(lead > 0 for lead in leads) - len(better),
    )


def are_better(leads: Sequence[float], p_values: Sequence[float]) -> list[bool]:
    """Which audits ended better than the best trial of the search: by half a point or more, and by McNemar's test.

    `leads` are shares. There is no correction for the number of audits: they are compared with a trial that is the best
    of many itself, and more audits do not make that easier (benchmarks/pruning.py; docs/log.md, 2026-11-30).
    """
    return [
        round(lead, 9) >= HALF_A_POINT and p < ALPHA
        for lead, p in zip(leads, p_values, strict=True)
    ]


def _lead(row: Row | None, best: Standing, metric: Metric) -> float:
    """By how much the row is better, as a share: by the metric, or by accuracy if that is a loss; 0 if it is not."""
    if row is None or not metric.score(getattr(row, metric.value)) > best.score:
        return 0.0
    if metric is Metric.VAL_LOSS:
        return row.val_accuracy - best.best.val_accuracy
    return float(getattr(row, metric.value)) - best.value


def _p(run: Snapshot, audit: ReadTrial, best: Standing) -> float:
    """p-value of McNemar's test; 0 if predictions are not on record, so that the lead alone decides."""
    row = audit.best(run.config.metric)
    assert row is not None
    try:
        first = right_at(audit, row.epoch)
        second = right_at(run.by_id[best.trial_id], best.best.epoch)
    except RequestError:
        return 0.0
    return mcnemar(first, second).p
