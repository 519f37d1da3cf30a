"""Writes every plot of a run as a picture."""

from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go

from analysis import plots
from analysis.findings.cost import cost_of
from analysis.findings.effects import effects_of
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.judgement import judge
from analysis.pages.drawing import KINDS, draw_pictures
from analysis.wording import positive_said
from trainable.errors import RequestError
from trainable.records.files import write_atomically


def figures_of(run: Source) -> Iterator[tuple[str, go.Figure]]:
    """Each plot, with its name.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    drawn = plots.Drawn.of(read, effects_of(read), cost_of(read))
    yield from plots.sweep_figures(drawn)
    winner = select(read).winner
    if winner is not None:
        mine = drawn.all_epochs[drawn.all_epochs["trial_id"] == winner.trial_id]
        yield "winner-loss", plots.loss(mine, winner.best.epoch)
        yield "winner-accuracy", plots.accuracy(mine, winner.best.epoch)
    positive = positive_said(read.config.data.target, read.manifest.classes)
    for judgement in judge(read).parts:
        for name, _, figure in plots.judgement_figures(judgement, positive):
            yield f"{judgement.part}-{name}", figure


def write_pictures(run: Source, kind: str = "png", out: Path | None = None) -> list[Path]:
    """Write them into `out`, or by default into the run's results folder; returns the paths.

    Raises:
        RequestError: the kind is not one of KINDS, or there is no run folder or no browser.
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
