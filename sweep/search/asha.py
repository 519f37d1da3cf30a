"""Successive halving: the decision, pure, from recorded values.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv:1810.05934), in Ray's stopping
variant: a trial that reaches a rung continues or stops at once, by comparison with the trials that reached it before.

The paper's names and ours: the resource is epochs; the reduction factor η is `reduction_factor`, the minimum resource
r the grace period, the maximum resource R the epochs of a trial, and the minimum early-stopping rate s, which puts the
first rung at r η^s, is 0. So `epochs` are r, r η, r η², … below R (sweep.request.config makes them).

What it is not: there are no brackets, one per s, as in Hyperband; and no trial is promoted, that is, paused at a rung
until it is among the best 1/η that have reached it. It is a stopping rule, like Ray's AsyncHyperBandScheduler with one
bracket: nothing pauses, and a decision at a rung stands even if better trials reach the rung later.
"""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["go on", "stop"]


def cutoff(recorded: Sequence[float], reduction_factor: int) -> float | None:
    """The (1 - 1/`reduction_factor`) percentile of `recorded` scores; None if there are none."""
    if not recorded:
        return None
    return float(np.percentile(recorded, (1 - 1 / reduction_factor) * 100))


def survives_rung(score: float, recorded: Sequence[float], reduction_factor: int) -> bool:
    """Is `score` (higher is better) at or above the cutoff of what this rung recorded before it?

    The first to arrive continues, ties continue, a score that is not finite stops.
    """
    if not math.isfinite(score):
        return False
    limit = cutoff(recorded, reduction_factor)
    return limit is None or score >= limit


@dataclass(frozen=True)
class Decision:
    """One line of rungs.jsonl."""

    sequence: int
    trial_id: str
    rung: int
    """The epoch."""
    score: float
    """Best value of the metric so far, with its sign turned so that higher is better."""
    cutoff: float | None
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Decision":
        return Decision(**{name: facts[name] for name in Decision.__dataclass_fields__})


def one_arm(trial_id: str) -> str:
    """All trials are compared with each other."""
    return ""


@dataclass
class Rungs:
    """What each rung has recorded: trial → score. Rebuilt by replaying rungs.jsonl."""

    epochs: Sequence[int]
    """The epochs at which trials are compared, ascending."""
    reduction_factor: int
    arm_of: Callable[[str], str] = field(default=one_arm, compare=False)
    """Trial → arm: a trial is compared only with those of its own arm."""
    recorded: dict[int, dict[str, float]] = field(init=False)
    sequence: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.recorded = {epoch: {} for epoch in self.epochs}

    def decide(self, trial_id: str, epoch: int, score: float) -> Decision | None:
        """The decision at `epoch`, not yet recorded; None if there is no rung, or it was already decided."""
        rung = self.recorded.get(epoch)
        if rung is None or trial_id in rung:
            return None
        arm = self.arm_of(trial_id)
        before = [score for other, score in rung.items() if self.arm_of(other) == arm]
        go_on = survives_rung(score, before, self.reduction_factor)
        limit = cutoff(before, self.reduction_factor)
        return Decision(
            self.sequence + 1, trial_id, epoch, score, limit, "go on" if go_on else "stop"
        )

    def record(self, decision: Decision) -> None:
        """Record a decision, new or replayed."""
        self.sequence = decision.sequence
        if decision.rung in self.recorded and math.isfinite(decision.score):
            self.recorded[decision.rung][decision.trial_id] = decision.score

    def forget(self, trial_id: str) -> None:
        """Remove a trial that diverged or collapsed from the rungs."""
        for rung in self.recorded.values():
            rung.pop(trial_id, None)

    def replay(self, decisions: Iterable[Decision], broken: Container[str] = ()) -> "Rungs":
        """Record `decisions` except those of `broken` trials; returns itself."""
        for decision in decisions:
            self.record(decision)
            if decision.trial_id in broken:
                self.forget(decision.trial_id)
        return self
