"""One HTML file about a run that opens offline, from the same frames as everything else.

Each module here gathers the facts of a few sections; the templates beside them say how they look.
"""

import shlex
from pathlib import Path
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from analysis import plots, wording
from analysis.findings.cost import cost_of, spent
from analysis.findings.effects import Effects, effects_of
from analysis.findings.finalists import Finalists, compare_finalists
from analysis.findings.more_trials import more_trials
from analysis.findings.reference import beside_reports
from analysis.findings.replicates import compare_replicates
from analysis.frames import results
from analysis.frames.ledger import WHY_ONE, alarm_of, how_often
from analysis.frames.select import select, why_unfinished
from analysis.frames.snapshot import Snapshot, Source
from analysis.pages.page import figure_json, render_page
from analysis.pages.report.cards import cards_of, winner_settings
from analysis.pages.report.judged import judged
from analysis.pages.report.notices import notices, scale_of
from analysis.pages.report.provenance import provenance
from analysis.pages.report.summary import summary
from analysis.pages.shown import shown_of
from sweep.search.study import asked_in_all
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.files import now, write_atomically
from trainable.records.rows import Status
from trainable.wording import frozen_work_said

FINALISTS: Final = 5
MANY: Final = 30  # trials; a longer table scrolls in a frame of its own


def write_report(run: Source) -> Path:
    """Write report.html into the run's folder; its path.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    read = Snapshot.of(run)
    write_atomically(read.folder.report, render(read).encode())
    return read.folder.report


def render(run: Source) -> str:
    """The report as HTML that loads nothing from anywhere.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    read = Snapshot.of(run)
    folder, config, manifest, openings = read.folder, read.config, read.manifest, read.openings
    trials, epochs, selection = results.trials(read), results.epochs(read), select(read)
    settings = results.varied(trials)
    winner = selection.winner.trial_id if selection.winner is not None else None
    lacks = why_unfinished(read)
    effects = effects_of(read)
    shown = shown_of(read)
    drawn = shown.of(trials), shown.of(epochs)
    cards = cards_of(read, *drawn, selection, settings)
    won = next((card for card in cards if card.trial_id == winner), None)
    finalists, replication, cost = _finalists(read), compare_replicates(read), cost_of(read)
    return render_page(
        "report/page.html",
        name=config.name,
        target=config.data.target,
        classes=manifest.classes,
        metric=config.metric,
        metric_name=wording.metric_name(config.metric),
        lacks=lacks,
        ended=manifest.sessions[-1].ended if manifest.sessions else None,
        statuses=[(s.value, int((trials["status"] == s.value).sum())) for s in Status],
        asked_for=asked_in_all(config, read.trials),
        notices=list(notices(manifest, selection, openings, lacks, cost.pruning)),
        alarm=alarm_of(config.data.target, folder.split, openings),
        cards=cards,
        thinned=shown.said(),
        summary=summary(
            selection,
            won.setting if won else "",
            openings,
            finalists,
            replication,
            effects,
            cost,
        ),
        winner=won,
        winner_settings=winner_settings(read, winner),
        settings=settings,
        many=len(cards) > MANY,
        finalists=finalists,
        ground=selection.ground_said(),
        why_one=WHY_ONE,
        more_trials=list(more_trials(read).said()),
        replication=replication,
        beside=results.to_records(beside_reports(read)),
        cost=list(cost.said()),
        frozen_work=frozen_work_said(results.work(read)),
        openings=openings,
        how_often=how_often(openings),
        test_command=f"analysis test {shlex.quote(str(folder.path))}",
        scale=scale_of(openings),
        effects=effects,
        written=now(),
        **_figures(*drawn, effects, config.metric, settings, winner),
        heat_map=_heat_map(trials, config.metric),
        rungs=_rungs(shown.of(results.decisions(read)), drawn[0], config.metric, settings, winner),
        costs=figure_json(plots.costs(spent(trials, cost))),
        **judged(read),
        **provenance(read),
    )


def _finalists(run: Snapshot) -> Finalists | None:
    """The winner and the best finished trials; None where there is no winner, or their predictions are gone."""
    try:
        return compare_finalists(run, FINALISTS, fewest=1)
    except RequestError:
        return None


def _figures(
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    effects: Effects,
    metric: Metric,
    settings: list[str],
    winner: str | None,
) -> dict[str, Any]:
    """The plots of the sweep as a whole."""
    overview = plots.validation_by_epoch(epochs, trials, metric, settings, winner)
    mattered = effects.at_the_end_or_first
    return {
        "overview": figure_json(overview),
        "parallel": figure_json(plots.parallel(trials, metric, settings, winner)),
        "history": figure_json(plots.history(trials, metric, settings, winner)),
        "timeline": figure_json(plots.timeline(trials, settings, winner)),
        "differences": figure_json(plots.effects(mattered, metric)) if mattered.effects else None,
        "by_setting": [
            (name, figure_json(plots.best_by_setting(trials, metric, name, settings, winner)))
            for name in settings
            if trials[f"config/{name}"].nunique() > 1
        ],
    }


def _rungs(
    decisions: pd.DataFrame,
    trials: pd.DataFrame,
    metric: Metric,
    settings: list[str],
    winner: str | None,
) -> Markup | None:
    """None where ASHA has decided nothing."""
    if decisions.empty:
        return None
    return figure_json(plots.rungs(decisions, trials, metric, settings, winner))


def _heat_map(trials: pd.DataFrame, metric: Metric) -> Markup | None:
    """Strategy × learning rate; None where one of them does not vary."""
    known = trials[trials[metric.value].notna()]
    if min(known["config/strategy"].nunique(), known["config/lr"].nunique()) < 2:
        return None
    return figure_json(plots.heat_map(trials, metric))
