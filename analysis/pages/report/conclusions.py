"""What a run tells as a whole: found once, for the summary and for the sections that say more of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from analysis.findings.cost import Cost, cost_of
from analysis.findings.effects import Effects, effects_of
from analysis.findings.finalists import Finalists, compare_finalists
from analysis.findings.replicates import Replication, compare_replicates
from analysis.frames.ledger import Opening
from analysis.frames.select import Selection, select
from analysis.frames.snapshot import Snapshot
from trainable.errors import RequestError

FINALISTS: Final = 5  # each more takes a share of Holm's correction; assumed


@dataclass(frozen=True)
class Conclusions:
    """Who wins, how that one does on the test set, how sure it is, what mattered, what it cost."""

    selection: Selection
    openings: Sequence[Opening]
    finalists: Finalists | None
    """None where there is no winner, or the predictions are gone."""
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
