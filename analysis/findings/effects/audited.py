"""Pruned trials that audits ran to their ends: are they enough to compare the end of training, what each stands for."""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.findings.pruning import wanted


@dataclass(frozen=True)
class Audited:
    """Trials of the search that ASHA stopped, and their audits, by strategy.

    Within a strategy audits are a simple random draw (`sweep.session.audit`), so that each stands for as many
    of its pruned trials as there are to an audit (Horvitz and Thompson 1952).
    """

    pruned: Mapping[str, int]
    begun: Mapping[str, int]
    """Audits on record."""
    ended: Mapping[str, int]
    """Audits that came to an end of their own: finished, diverged or collapsed."""
    under_way: int = 0
    """Trials of the search that have not ended: those that ASHA lets go on end after those that it stops."""

    @property
    def is_enough(self) -> bool:
        """Is the end known of as many as say something, of each strategy of which a trial was pruned?"""
        return (
            any(self.ended.values()) and not self.under_way and not wanted(self.pruned, self.ended)
        )

    @property
    def is_all(self) -> bool:
        """Is the end of every pruned trial known?"""
        return sum(self.ended.values()) == sum(self.pruned.values())

    def stands_for(self, strategy: str) -> float:
        """For how many pruned trials of the strategy an audit that ended stands, its own among them."""
        return self.pruned[strategy] / self.ended[strategy]

    def said(self) -> str:
        """What makes the end of training comparable."""
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
        """What would tell of the end where it isn't known, to put behind that."""
        count = wanted(self.pruned, self.begun)
        if count:
            return f"; `sweep extend RUN --audit {count}` runs pruned trials to the end and tells"
        return "; trials that have not ended yet, or failed, would tell" if self.begun else ""
