"""Verdicts as sentences, none of which claims more than the trials show."""

from collections.abc import Iterator
from dataclasses import dataclass

from analysis.findings.effects.claims import Effect, Mattered, Trend, Verdict
from analysis.findings.effects.learning import MANY, Count
from analysis.levels import NEGLIGIBLE
from analysis.wording import MINUS, NARROW, counted, is_rate, setting_value
from trainable.metric import Metric


@dataclass(frozen=True)
class Saying:
    """Writes what mattered as sentences, in units of the metric."""

    metric: Metric
    found: Mattered
    tells: str | None = ""
    """What would show the end of training, appended where it is not known; None if the end is compared too."""

    def sentences(self) -> Iterator[str]:
        """All of it: which trials did not learn, the effects of settings, what is not known."""
        found = self.found
        yield from self._did_not_learn()
        if found.lacking:
            yield (
                f"there are too few trials to say which settings matter: {counted(found.trials, 'trial')} had learned "
                f"{found.moment.said}, and this space needs at least {found.lacking} more"
            )
            return
        for effect in found.effects:
            yield self.effect(effect)
            if (
                effect.verdict is Verdict.BETTER
                and not found.moment.is_end
                and self.tells is not None
            ):
                yield self._catches_up(effect)
        for trend in found.trends:
            yield self._trend(trend)
        yield from self._together()

    def most(self) -> str | None:
        """The most significant effect of a setting; None if there is none."""
        claimed = [e for e in self.found.effects if e.verdict is Verdict.BETTER]
        if claimed:
            return self.effect(min(claimed, key=lambda e: (e.p_holm, -e.difference)))
        trends = [trend for trend in self.found.trends if trend.is_claimed]
        return self._trend(min(trends, key=lambda trend: trend.p_holm)) if trends else None

    @property
    def when(self) -> str:
        images = "" if self.found.with_images else " on these images"
        return f"{self.found.moment.said}{images}"

    def effect(self, effect: Effect) -> str:
        """One sentence about two values."""
        first, second = setting_value(effect.first), setting_value(effect.second)
        slow = effect.not_yet
        if slow is not None:
            return (
                f"it is unclear whether {effect.name} {first} or {second} does better: {slow.not_yet} of "
                f"{slow.trials} trials with {setting_value(slow.value)} were not yet learning {self.found.moment.said}"
            )
        ends = f"{self._plain(effect.low)} to {self._plain(effect.high)}"
        own = ", each at its own best lr," if effect.at_best_rates else ""
        if effect.verdict is Verdict.BETTER:
            ahead, pairs = effect.pairs
            alike = f"; ahead in {ahead} of {pairs} pairs" if pairs and not own else ""
            return (
                f"{self.when}, {effect.name} {first} is ahead of {second}{own} by {self._by(effect.difference)} "
                f"(95 % confidence interval {ends}{alike})"
            )
        by = f"{self._by(effect.difference)}, 95 % confidence interval {ends}"
        if effect.verdict is Verdict.NO_DIFFERENCE:
            return (
                f"{self.when}, {effect.name} {first} and {second}{own} show no difference larger than "
                f"{self._by(NEGLIGIBLE, 0)} ({by})"
            )
        seen = f"such a run detects a difference of {self._by(effect.visible)} with 80 % power"
        if is_rate(self.metric) and effect.visible >= 1:
            seen = "such a run detects no difference, however large"
        return f"{self.when}, {effect.name} {first} and {second}{own} do not differ significantly ({by}): {seen}"

    def _catches_up(self, effect: Effect) -> str:
        """What remains open after a lead before the end of training."""
        by_value = {c.value: c for c in self.found.counts if c.name == effect.name}
        first, second = (by_value[value] for value in (effect.first, effect.second))
        for one, then in ((second, "catches up"), (first, "stays ahead")):
            if not one.finished:
                value = setting_value(one.value)
                return (
                    f"no {value} trial that learned ran to the end, so it is not known whether {value} {then}"
                    f"{self.tells}"
                )
        ran = " and ".join(
            f"{c.finished} of {c.trials - c.broken} {setting_value(c.value)} trials"
            for c in (first, second)
        )
        return f"it is not known which is ahead at the end: {ran} ran to it, and ASHA chose which{self.tells}"

    def _did_not_learn(self) -> Iterator[str]:
        found = self.found
        if found.broken:
            telling = [c for c in found.counts if _stands_out(c, found.counts)]
            for count in telling:
                others = [c for c in found.counts if c.name == count.name and c != count]
                yield (
                    f"with {count.name} {setting_value(count.value)}, {count.broken} of {count.trials} trials did not "
                    f"learn; with other values, {sum(c.broken for c in others)} of {sum(c.trials for c in others)}"
                )
            for apart in found.apart:
                yield (
                    f"{counted(found.broken, 'trial')} did not learn, with {apart.name} "
                    f"{_range(apart.low, apart.high)}; the others have {_range(apart.others_low, apart.others_high)}"
                )
            if not telling and not found.apart:
                yield f"{counted(found.broken, 'trial')} did not learn"
            yield (
                "trials that did not learn (collapsed, diverged, or no better than chance at the end) are left out of "
                "all comparisons of settings"
            )
        for count in found.counts:
            if count.not_yet > MANY * (count.trials - count.broken):
                never = f" (another {count.broken} never learned)" if count.broken else ""
                yield (
                    f"with {count.name} {setting_value(count.value)}, {count.not_yet} of {count.trials - count.broken} "
                    f"trials were not yet learning {found.moment.said}{never}"
                )

    def _trend(self, trend: Trend) -> str:
        within = f"{setting_value(trend.low)} to {setting_value(trend.high)}"
        if trend.is_claimed:
            return (
                f"{self.when}, {trend.name} matters within {within} (p = {trend.p_holm:.2g} after Holm's correction): "
                f"the fitted parabola is best at about {setting_value(trend.best)}"
            )
        p = f"p = {trend.p_holm:.2g} after Holm's correction"
        return f"{trend.name} has no significant effect within {within} ({p})"

    def _together(self) -> Iterator[str]:
        together = self.found.together
        if together is None:
            return
        p = f"p = {together.p_holm:.2g} after Holm's correction"
        if together.is_claimed:
            best = ", ".join(
                f"{setting_value(rate)} with {name}" for name, rate in together.best.items()
            )
            yield f"{self.when}, the best lr depends on the strategy ({p}); the model's best: {best}"
        else:
            yield f"it is unclear whether the best lr depends on the strategy: no significant interaction ({p})"

    def _by(self, difference: float, digits: int | None = None) -> str:
        if not is_rate(self.metric):
            return self._plain(difference)
        unit = "point" if digits == 0 and round(difference * 100) == 1 else "points"
        return f"{self._plain(difference, digits)}{NARROW}{unit}"

    def _plain(self, difference: float, digits: int | None = None) -> str:
        if not is_rate(self.metric):
            return f"{round(difference, 4) + 0:.4f}".replace("-", MINUS)
        shown = difference * 100
        places = digits if digits is not None else 1 if abs(shown) >= 10 else 2
        return f"{round(shown, places) + 0:.{places}f}".replace("-", MINUS)


def _range(low: float, high: float) -> str:
    return setting_value(low) if low == high else f"{setting_value(low)} to {setting_value(high)}"


def _stands_out(count: Count, counts: tuple[Count, ...]) -> bool:
    """Did at least half of a value's trials not learn, and less than half that share of the other values' trials?"""
    others = [c for c in counts if c.name == count.name and c != count]
    rest = sum(c.trials for c in others)
    return (
        2 * count.broken >= count.trials
        and bool(rest)
        and (sum(c.broken for c in others) / rest < count.broken / count.trials / 2)
    )
