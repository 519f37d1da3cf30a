"""Every plot of a sweep with its name: the report and `analysis plots` both use this list."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from analysis.findings.cost import Cost, spent
from analysis.findings.effects import Effects
from analysis.frames import results
from analysis.frames.select import select
from analysis.frames.shown import Shown, shown_of
from analysis.frames.snapshot import Snapshot
from analysis.plots.curves import best_by_setting, validation_by_epoch
from analysis.plots.effects import effects
from analysis.plots.search import costs, parallel, rungs
from analysis.plots.sweeps import heat_map, history, timeline
from trainable.metric import Metric


@dataclass(frozen=True)
class Drawn:
    """The data that the plots of a sweep show."""

    all_trials: pd.DataFrame
    all_epochs: pd.DataFrame
    shown: Shown
    """Which trials are drawn one by one."""
    decisions: pd.DataFrame
    """ASHA's decisions on those."""
    metric: Metric
    settings: Sequence[str]
    """The settings in which trials differ."""
    winner: str | None
    effects: Effects
    cost: Cost

    @staticmethod
    def of(run: Snapshot, effects: Effects, cost: Cost) -> "Drawn":
        trials, shown, winner = results.trials(run), shown_of(run), select(run).winner
        return Drawn(
            all_trials=trials,
            all_epochs=results.epochs(run),
            shown=shown,
            decisions=shown.of(results.decisions(run)),
            metric=run.config.metric,
            settings=results.varied(trials),
            winner=winner.trial_id if winner is not None else None,
            effects=effects,
            cost=cost,
        )

    @property
    def trials(self) -> pd.DataFrame:
        """The trials that are drawn one by one."""
        return self.shown.of(self.all_trials)

    @property
    def epochs(self) -> pd.DataFrame:
        """The epochs of those trials."""
        return self.shown.of(self.all_epochs)


def sweep_figures(drawn: Drawn) -> Iterator[tuple[str, go.Figure]]:
    """Name and figure of every plot of a sweep as a whole."""
    trials, metric = drawn.trials, drawn.metric
    settings, winner = drawn.settings, drawn.winner
    yield "curves", validation_by_epoch(drawn.epochs, trials, metric, settings, winner)
    yield "history", history(trials, metric, settings, winner)
    if len(drawn.decisions):
        yield "rungs", rungs(drawn.decisions, trials, metric, settings, winner)
    yield "settings", parallel(trials, metric, settings, winner)
    yield "cost", costs(spent(drawn.all_trials, drawn.cost))
    yield "timeline", timeline(trials, settings, winner)
    for name in settings:
        if trials[f"config/{name}"].nunique() > 1:
            yield f"by-{name}", best_by_setting(trials, metric, name, settings, winner)
    known = drawn.all_trials[drawn.all_trials[metric.value].notna()]
    if min(known["config/strategy"].nunique(), known["config/lr"].nunique()) > 1:
        yield "strategy-and-rate", heat_map(drawn.all_trials, metric)
    mattered = drawn.effects.at_the_end_or_first
    if mattered.effects:
        yield "effects", effects(mattered, metric)
