"""Figures as pictures, through kaleido and a Chrome or Chromium of this machine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import plotly.graph_objects as go

from trainable.errors import RequestError

KINDS: Final = ("png", "svg")
WIDTH: Final = 900  # pixels; a PNG has twice as many; by eye


def draw_pictures(figures: list[go.Figure], kind: str) -> list[bytes]:
    """The figures as files of KINDS.

    Raises:
        RequestError: no browser.
    """
    from choreographer.browsers import BrowserDepsError, ChromeNotFoundError

    for figure in figures:
        figure.update_layout(paper_bgcolor="white", width=WIDTH)
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a loop that runs already
            return pool.submit(asyncio.run, _draw(figures, kind)).result()
    except (ChromeNotFoundError, BrowserDepsError):
        raise RequestError(
            "pictures are drawn by a Chrome or Chromium, but none was found; install one, or set BROWSER_PATH; "
            "`analysis report` needs none"
        ) from None


async def _draw(figures: list[go.Figure], kind: str) -> list[bytes]:
    """By one browser. (kaleido's server for synchronous calls waits for ever where there is no browser.)"""
    import kaleido

    async with kaleido.Kaleido(n=1) as browser:
        return [
            await browser.calc_fig(figure, opts={"format": kind, "scale": 2}) for figure in figures
        ]
