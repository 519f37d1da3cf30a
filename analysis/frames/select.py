"""Selects the winner, by validation only. Nothing here uses the test set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from analysis.frames.learned import is_flat, validation_classes
from analysis.frames.snapshot import Snapshot, Source
from analysis.wording import counted, metric_name, metric_value
from sweep.search.ranking import Standing, rank, replicates, single_winner, winner
from trainable.metric import Metric
from trainable.records.manifest import SessionEnd
from trainable.records.rows import Status

Ground = Literal["single runs", "replicates"]
NAMED = 3  # how many of the best trials are named if there is no winner; assumed


@dataclass(frozen=True)
class Selection:
    """Every trial that has finished an epoch, best first, and the winner among them."""

    metric: Metric
    winner: Standing | None
    ranked: tuple[Standing, ...]
    single: Standing | None = None
    """The best single trial of the search: the winner, unless settings were replicated."""
    flat: frozenset[str] = frozenset()
    """Finished trials that learned nothing about their classes."""

    @property
    def ground(self) -> Ground | None:
        """What the winner was chosen by; None without a winner."""
        if self.winner is None:
            return None
        return "replicates" if self.winner.origin == "replicate" else "single runs"

    def ground_said(self) -> str:
        """The same in words; "" without a winner."""
        if self.winner is None:
            return ""
        if self.ground == "replicates":
            runs = replicates(self.ranked, self.flat)[self.winner.setting_id].learned
            return (
                "chosen by replicates: the setting whose replicates have the highest mean wins, and the best of its "
                f"{len(runs)} is the winner"
            )
        finished = sum(s.status is Status.FINISHED and s.origin == "search" for s in self.ranked)
        return f"chosen by single runs, as the best of {counted(finished, 'finished trial')}"

    @property
    def better_unfinished(self) -> Standing | None:
        """The best trial that did not finish although it had reached a better value than the winner."""
        if self.winner is None:
            return None
        others = (
            each
            for each in self.ranked
            if each.status is not Status.FINISHED and each.origin != "audit"
        )
        best = next(others, None)
        return best if best is not None and best.score > self.winner.score else None

    @property
    def best_audit(self) -> Standing | None:
        """The best finished audit of a pruned trial; it can't win."""
        audits = (s for s in self.ranked if s.origin == "audit" and s.status is Status.FINISHED)
        return next(audits, None)

    def say(self, one: Standing) -> str:
        """A trial with its best value, in a few words."""
        value = metric_value(self.metric, self.metric.score(one.score))
        return f"{one.trial_id} ({value} at epoch {one.best.epoch})"

    def remarks(self) -> list[str]:
        """What a reader should know about the winner: that there is none, or that another trial has been better."""
        return list(self._remarks())

    def _remarks(self) -> Iterator[str]:
        won = self.winner
        if won is not None and self.ground == "replicates" and self.single is not None:
            yield (
                f"settings were replicated, and the winner is the best replicate of the setting with the highest mean: "
                f"{self.say(won)}; the best single trial of the search is {self.say(self.single)}"
            )
        better = self.better_unfinished
        if better is not None:
            yield (
                f"trial {self.say(better)} had reached a better {metric_name(self.metric)} than the winner, "
                f"but it did not finish: {better.status.value}"
            )
        audit = self.best_audit
        if self.single is not None and audit is not None and audit.score > self.single.score:
            yield (
                f"{self.say(audit)} is the audit of a pruned trial, and better than the best single trial of the "
                f"search, {self.say(self.single)}; `analysis cost` explains what that means"
            )
        if self.winner is None and self.ranked:
            best = ", ".join(
                f"{self.say(each)}, {each.status.value}" for each in self.ranked[:NAMED]
            )
            yield f"no trial of the search has finished, so there is no winner; the best so far: {best}"
        elif self.winner is None:
            yield "no trial has finished an epoch, so there is no winner"


def select(run: Source) -> Selection:
    """Rank the recorded trials by their best epoch on the validation images.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    ranked = rank(read.standings)
    flat = _flat(read, ranked)
    won, single = winner(ranked, flat), single_winner(ranked)
    return Selection(read.config.metric, won, tuple(ranked), single, flat)


def _flat(run: Snapshot, ranked: list[Standing]) -> frozenset[str]:
    """Finished trials whose ranking at their best epoch counts as chance; none if there are too few images to know."""
    finished = [each for each in ranked if each.status is Status.FINISHED]
    if not finished:
        return frozenset()
    classes = validation_classes(run)
    return frozenset(e.trial_id for e in finished if is_flat(e.best.val_auc, *classes))


def why_unfinished(run: Source) -> str | None:
    """Why the sweep is not finished; None once every trial has ended and the last session has finished.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    sessions = read.manifest.sessions
    going = sum(not trial.status().status.has_ended for trial in read.trials)
    if not sessions:
        return "it has not been started"
    if going:
        return f"{going:,} of its trials {'has' if going == 1 else 'have'} not ended"
    how = sessions[-1].how
    if how is not SessionEnd.FINISHED:
        return f"its last session {f'did not finish it: {how}' if how else 'has not ended'}"
    return None
