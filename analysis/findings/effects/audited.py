"""Pruned trials that audits ran to the end: are there enough of them, and how many trials does each stand for?"""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.findings.pruning import wanted


@dataclass(frozen=True)
class Audited:
    """Trials of the search that ASHA stopped, and their audits, by strategy.

    Within a strategy, audits are a simple random sample (`sweep.session.audit`), so each stands for pruned / audited
    of the strategy's pruned trials (Horvitz and Thompson 1952).
    """

    pruned: Mapping[str, int]
    begun: Mapping[str, int]
    """Audits on record."""
    ended: Mapping[str, int]
    """Audits that came to an end of their own: finished, diverged or collapsed."""
    under_way: int = 0
    """Trials of the search that have not ended: those that ASHA lets continue end later than those that it stops."""

    @property
    def is_enough(self) -> bool:
        """Have enough audits ended, of each strategy of which a trial was pruned?"""
        return (
            any(self.ended.values()) and not self.under_way and not wanted(self.pruned, self.ended)
        )

    @property
    def is_all(self) -> bool:
        """Is the end of every pruned trial known?"""
        return sum(self.ended.values()) == sum(self.pruned.values())

    def stands_for(self, strategy: str) -> float:
        """How many pruned trials of the strategy an audit that ended stands for, its own included."""
        return self.pruned[strategy] / self.ended[strategy]

    def said(self) -> str:
        """Why the end of training can be compared, in a sentence."""
        if self.is_all:
            return "every pruned trial was run to its end by an audit, so the end of training can be compared too"
        each = {name: f"{round(self.stands_for(name), 1):g}" for name in self.pruned}
        stands_for = (
            " or ".join(f"{share} ({name})" for name, share in each.items())
            if len(set(each.values())) > 1
            else next(iter(each.values()))
        )
        return (
            f"{sum(self.ended.values())} of {sum(self.pruned.values())} pruned trials were run to their ends by "
            f"audits, drawn at random{' within each strategy' if len(each) > 1 else ''}, so the end of training can be "
            f"compared too; each stands for {stands_for} of them"
        )

    def tells(self) -> str:
        """What would show the end of training, to be appended to a sentence that it is not known."""
        count = wanted(self.pruned, self.begun)
        if count:
            return f"; `sweep extend RUN --audit {count}` runs pruned trials to the end to find out"
        return "; trials that have not ended yet, or failed, would show it" if self.begun else ""
