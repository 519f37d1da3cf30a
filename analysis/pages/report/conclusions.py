"""The conclusions about a run, computed once for the summary and for the sections with the details."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.findings.cost import Cost, cost_of
from analysis.findings.effects import Effects, effects_of
from analysis.findings.finalists import Finalists, compare_finalists
from analysis.findings.replicates import Replication, compare_replicates
from analysis.frames.ledger import Opening
from analysis.frames.select import Selection, select
from analysis.frames.snapshot import Snapshot
from analysis.levels import FINALISTS
from trainable.errors import RequestError


@dataclass(frozen=True)
class Conclusions:
    """The winner, its test result, how certain it is, what mattered, what it cost."""

    selection: Selection
    openings: Sequence[Opening]
    finalists: Finalists | None
    """None if there is no winner, or predictions are missing."""
    replication: Replication
    effects: Effects
    cost: Cost

    @staticmethod
    def of(run: Snapshot) -> "Conclusions":
        return Conclusions(
            select(run),
            run.openings,
            _finalists(run),
            compare_replicates(run),
            effects_of(run),
            cost_of(run),
        )


def _finalists(run: Snapshot) -> Finalists | None:
    """The winner and the best finished trials."""
    try:
        return compare_finalists(run, FINALISTS, fewest=1)
    except RequestError:
        return None
