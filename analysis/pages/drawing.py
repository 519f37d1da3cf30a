"""Draws figures as pictures, with kaleido and the Chrome or Chromium of this machine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import plotly.graph_objects as go

from trainable.errors import RequestError

KINDS: Final = ("png", "svg")
WIDTH: Final = 900  # pixels; a PNG has twice as many; by eye


def draw_pictures(figures: list[go.Figure], kind: str) -> list[bytes]:
    """The figures as the content of files of one of KINDS.

    Raises:
        RequestError: there is no browser.
    """
    from choreographer.browsers import BrowserDepsError, ChromeNotFoundError

    for figure in figures:
        figure.update_layout(paper_bgcolor="white", width=WIDTH)
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread already runs an event loop
            return pool.submit(asyncio.run, _draw(figures, kind)).result()
    except (ChromeNotFoundError, BrowserDepsError):
        raise RequestError(
            "drawing pictures needs Chrome or Chromium, but neither was found; install one, or set BROWSER_PATH; "
            "`analysis report` needs no browser"
        ) from None


async def _draw(figures: list[go.Figure], kind: str) -> list[bytes]:
    """Draw them with one browser. (kaleido's server for synchronous calls waits for ever if there is no browser.)"""
    import kaleido

    async with kaleido.Kaleido(n=1) as browser:
        return [
            await browser.calc_fig(figure, opts={"format": kind, "scale": 2}) for figure in figures
        ]
