"""Every plot of a run as a picture, through kaleido and a Chrome or Chromium of this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import plotly.graph_objects as go

from analysis import plots, results
from analysis.effects import importances_of
from analysis.select import select
from trainable.config import RequestError
from trainable.files import write_atomically
from trainable.record import RunFolder

KINDS: Final = ("png", "svg")
WIDTH: Final = 900  # pixels; a PNG has twice as many


def figures_of(run: Path) -> Iterator[tuple[str, go.Figure]]:
    """Each plot with its name.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    config, folder = results.load_config(run), RunFolder(run)
    trials, epochs = results.trials(run), results.epochs(run)
    winner = select(folder, config.metric).winner
    best = winner.trial_id if winner else None
    settings = results.varied(trials)
    yield "curves", plots.validation_by_epoch(epochs, trials, config.metric, settings, best)
    yield "history", plots.history(trials, config.metric, settings, best)
    yield "timeline", plots.timeline(trials, settings, best)
    for name in settings:
        if trials[f"config/{name}"].nunique() > 1:
            yield f"by-{name}", plots.best_by_setting(trials, config.metric, name, settings, best)
    if min(trials["config/strategy"].nunique(), trials["config/lr"].nunique()) > 1:
        yield "strategy-and-rate", plots.heat_map(trials, config.metric)
    if shares := importances_of(run):
        yield "importances", plots.importances(shares)
    if winner is not None:
        mine = epochs[epochs["trial_id"] == best]
        yield "winner-loss", plots.loss(mine, winner.best.epoch)
        yield "winner-accuracy", plots.accuracy(mine, winner.best.epoch)


def write_pictures(run: Path, kind: str = "png", out: Path | None = None) -> list[Path]:
    """Write them into `out`, else into the run's results folder; the paths.

    Raises:
        RequestError: another kind than KINDS, no run folder, or no browser.
    """
    if kind not in KINDS:
        raise RequestError(f"--format must be {' or '.join(KINDS)}, but it is {kind!r}")
    folder = out or RunFolder(run).results
    found = dict(figures_of(run))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in zip(found, _draw(list(found.values()), kind), strict=True):
        path = folder / f"{name}.{kind}"
        write_atomically(path, content)
        written.append(path)
    return written


def _draw(figures: list[go.Figure], kind: str) -> list[bytes]:
    import kaleido
    from choreographer.browsers import BrowserDepsError, ChromeNotFoundError

    for figure in figures:
        figure.update_layout(paper_bgcolor="white", width=WIDTH)
    try:
        kaleido.start_sync_server(silence_warnings=True)
        try:
            return [figure.to_image(format=kind, scale=2) for figure in figures]
        finally:
            kaleido.stop_sync_server(silence_warnings=True)
    except (ChromeNotFoundError, BrowserDepsError):
        raise RequestError(
            "pictures are drawn by a Chrome or Chromium, but none was found; install one, or set BROWSER_PATH; "
            "`analysis report` needs none"
        ) from None
