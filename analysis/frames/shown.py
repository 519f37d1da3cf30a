"""Which trials are drawn and listed one by one, where a run has more of them than a page can hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis.frames.select import Selection, select
from analysis.frames.snapshot import Snapshot
from analysis.wording import counted
from sweep.search.ranking import Standing
from trainable.records.rows import Status

MOST: Final = 300
"""Trials that are drawn and listed; up to here all: a page of 7 MB (docs/reference/measurements.md); assumed."""
BEST: Final = 100
"""Of them the best ones, where there are more; assumed."""


@dataclass(frozen=True)
class Shown:
    """Some trials of a run, or all."""

    trial_ids: frozenset[str]
    trials: int
    """In all."""

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a frame that are of these trials."""
        return frame if self.are_all else frame[frame["trial_id"].isin(self.trial_ids)]

    @property
    def are_all(self) -> bool:
        return len(self.trial_ids) == self.trials

    def said(self) -> str | None:
        """What is missing, in a sentence; None where nothing is."""
        if self.are_all:
            return None
        return (
            f"of {counted(self.trials, 'trial')}, {len(self.trial_ids)} are drawn and listed one by one: the best "
            f"{BEST}, each that was the best so far, and some of the others, evenly in the order of suggestion; "
            "figures and sentences are of all trials, and `analysis results` writes every one"
        )


def shown_of(run: Snapshot) -> Shown:
    """All trials up to MOST of them, else as `Shown.said` has it, with the winner and the best that finished."""
    everyone = [trial.trial_id for trial in run.trials]
    if len(everyone) <= MOST:
        return Shown(frozenset(everyone), len(everyone))
    chosen = set(_notable(run, select(run)))
    others = [trial_id for trial_id in everyone if trial_id not in chosen]
    room = max(MOST - len(chosen), 0)
    evenly = (others[place * len(others) // room] for place in range(room))
    return Shown(frozenset(chosen.union(evenly)), len(everyone))


def _notable(run: Snapshot, selection: Selection) -> Iterator[str]:
    if selection.winner is not None:
        yield selection.winner.trial_id
    finished = [s for s in selection.ranked if s.status is Status.FINISHED and s.origin == "search"]
    for best in (selection.ranked, finished):
        yield from (each.trial_id for each in best[:BEST])
    yield from (each.trial_id for each in _best_so_far(run))


def _best_so_far(run: Snapshot) -> Iterator[Standing]:
    """Each that was better than all suggested before it, so that the line of the best so far is that of all trials."""
    best = None
    for each in run.standings:
        if each.origin != "audit" and (best is None or each.score > best):
            best = each.score
            yield each
