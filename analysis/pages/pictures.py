"""Every plot of a run as a picture."""

from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go

from analysis import plots
from analysis.findings.cost import cost_of, spent
from analysis.findings.effects import effects_of
from analysis.frames import results
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.judgement import judge
from analysis.pages.drawing import KINDS, draw_pictures
from analysis.pages.shown import shown_of
from analysis.wording import positive_said
from trainable.errors import RequestError
from trainable.records.files import write_atomically


def figures_of(run: Source) -> Iterator[tuple[str, go.Figure]]:
    """Each plot with its name.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    read = Snapshot.of(run)
    config, trials, epochs = read.config, results.trials(read), results.epochs(read)
    winner = select(read).winner
    best = winner.trial_id if winner else None
    settings, shown = results.varied(trials), shown_of(read)
    drawn, lines = shown.of(trials), shown.of(epochs)
    yield "curves", plots.validation_by_epoch(lines, drawn, config.metric, settings, best)
    yield "history", plots.history(drawn, config.metric, settings, best)
    if len(decisions := shown.of(results.decisions(read))):
        yield "rungs", plots.rungs(decisions, drawn, config.metric, settings, best)
    yield "settings", plots.parallel(drawn, config.metric, settings, best)
    yield "cost", plots.costs(spent(trials, cost_of(read)))
    yield "timeline", plots.timeline(drawn, settings, best)
    for name in settings:
        if trials[f"config/{name}"].nunique() > 1:
            yield f"by-{name}", plots.best_by_setting(drawn, config.metric, name, settings, best)
    if min(trials["config/strategy"].nunique(), trials["config/lr"].nunique()) > 1:
        yield "strategy-and-rate", plots.heat_map(trials, config.metric)
    found = effects_of(read).at_the_end_or_first
    if found.effects:
        yield "effects", plots.effects(found, config.metric)
    if winner is not None:
        mine = epochs[epochs["trial_id"] == best]
        yield "winner-loss", plots.loss(mine, winner.best.epoch)
        yield "winner-accuracy", plots.accuracy(mine, winner.best.epoch)
    positive = positive_said(config.data.target, read.manifest.classes)
    for judgement in judge(read).parts:
        for name, _, figure in plots.judgement_figures(judgement, positive):
            yield f"{judgement.part}-{name}", figure


def write_pictures(run: Source, kind: str = "png", out: Path | None = None) -> list[Path]:
    """Write them into `out`, else into the run's results folder; the paths.

    Raises:
        RequestError: another kind than KINDS, no run folder, or no browser.
    """
    if kind not in KINDS:
        raise RequestError(f"--format must be {' or '.join(KINDS)}, but it is {kind!r}")
    read = Snapshot.of(run)
    folder = out or read.folder.results
    found = dict(figures_of(read))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in zip(found, draw_pictures(list(found.values()), kind), strict=True):
        path = folder / f"{name}.{kind}"
        write_atomically(path, content)
        written.append(path)
    return written
