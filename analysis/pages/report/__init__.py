"""The report: one HTML file about a run that opens offline, made from the same frames as everything else.

Each module here collects the facts of a few sections; the templates define how they look.
"""

import shlex
from pathlib import Path
from typing import Any, Final

from analysis import wording
from analysis.findings.more_trials import more_trials
from analysis.findings.reference import beside_reports
from analysis.frames import results
from analysis.frames.ledger import WHY_ONE, alarm_of, how_often
from analysis.frames.select import why_unfinished
from analysis.frames.snapshot import Snapshot, Source
from analysis.pages.page import figure_json, render_page
from analysis.pages.report.cards import cards_of, winner_settings
from analysis.pages.report.conclusions import Conclusions
from analysis.pages.report.judged import judged
from analysis.pages.report.notices import notices, scale_of
from analysis.pages.report.provenance import provenance
from analysis.pages.report.summary import summary
from analysis.plots import Drawn, sweep_figures
from sweep.search.study import asked_in_all
from trainable.records.files import now, write_atomically
from trainable.records.rows import Status
from trainable.show.wording import frozen_work_said

MANY: Final = 30  # trials; a longer table scrolls within its own frame; by eye


def write_report(run: Source, faces: bool = True) -> Path:
    """Write report.html into the run's folder; its path. Without `faces` it contains no image of the data set.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    write_atomically(read.folder.report, render(read, faces).encode())
    return read.folder.report


def render(run: Source, faces: bool = True) -> str:
    """The report as self-contained HTML; without `faces` it contains no image of the data set.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    found = Conclusions.of(read)
    drawn = Drawn.of(read, found.effects, found.cost)
    figures = {name: figure_json(figure) for name, figure in sweep_figures(drawn)}
    return render_page(
        "report/page.html",
        **_asked(read),
        **_opened(read),
        **_trials(read, found, drawn),
        **_concluded(read, found),
        figures=figures,
        by_setting=[name for name in drawn.settings if f"by-{name}" in figures],
        **judged(read, faces),
        **provenance(read),
        written=now(),
    )


def _asked(run: Snapshot) -> dict[str, Any]:
    """What the run is, and how far it has got."""
    config, manifest = run.config, run.manifest
    return {
        "name": config.name,
        "target": config.data.target,
        "classes": manifest.classes,
        "metric": config.metric,
        "metric_name": wording.metric_name(config.metric),
        "lacks": why_unfinished(run),
        "ended": manifest.sessions[-1].ended if manifest.sessions else None,
        "asked_for": asked_in_all(config, run.trials),
    }


def _opened(run: Snapshot) -> dict[str, Any]:
    """The test set: how often it was opened, with which result, and whether the result is suspicious."""
    openings, folder = run.openings, run.folder
    return {
        "openings": openings,
        "how_often": how_often(openings),
        "why_one": WHY_ONE,
        "scale": scale_of(openings),
        "alarm": alarm_of(run.config.data.target, folder.split, openings),
        "test_command": f"analysis test {shlex.quote(str(folder.path))}",
    }


def _trials(run: Snapshot, found: Conclusions, drawn: Drawn) -> dict[str, Any]:
    """The trials one by one, the winner among them, and the summary that names it."""
    cards = cards_of(run, drawn.trials, drawn.epochs, found.selection, drawn.settings)
    won = next((card for card in cards if card.trial_id == drawn.winner), None)
    statuses = drawn.all_trials["status"]
    return {
        "statuses": [(status.value, int((statuses == status.value).sum())) for status in Status],
        "cards": cards,
        "thinned": drawn.shown.said(),
        "many": len(cards) > MANY,
        "settings": drawn.settings,
        "winner": won,
        "winner_settings": winner_settings(run, drawn.winner),
        "summary": summary(found, won.setting if won else ""),
    }


def _concluded(run: Snapshot, found: Conclusions) -> dict[str, Any]:
    """How certain the result is, what mattered, what it cost, and the notices."""
    lacks = why_unfinished(run)
    return {
        "notices": list(
            notices(run.manifest, found.selection, run.openings, lacks, found.cost.pruning)
        ),
        "ground": found.selection.ground_said(),
        "finalists": found.finalists,
        "replication": found.replication,
        "more_trials": list(more_trials(run).said()),
        "beside": results.to_records(beside_reports(run)),
        "effects": found.effects,
        "cost": list(found.cost.said()),
        "frozen_work": frozen_work_said(results.work(run)),
    }
