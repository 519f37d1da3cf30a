"""Colours by role, defined once: for plots, for light and dark pages, and for the terminal."""

from collections.abc import Mapping
from typing import Final, NamedTuple

# Okabe and Ito 2008: distinguishable with any kind of colour vision
BLUE: Final = "#0072b2"
SKY: Final = "#56b4e9"
GREEN: Final = "#009e73"
ORANGE: Final = "#e69f00"
VERMILION: Final = "#d55e00"
PURPLE: Final = "#b8568e"  # theirs, #cc79a7, made darker; the shade is assumed
PALETTE: Final = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
"""In the order in which compared runs use them."""


class Colour(NamedTuple):
    """The colours of one role. On pages a shade with enough contrast, on the terminal one that its user chose."""

    plot: str
    """In plots, and where a page sets no other."""
    light: str
    """On a light page."""
    dark: str
    terminal: str = ""
    """A style of Rich's; "" for roles that no terminal shows."""


COLOURS: Final[Mapping[str, Colour]] = {
    "winner": Colour(GREEN, "#00835f", "#2fc79a", "bold green"),
    "finished": Colour(BLUE, "#0072b2", "#5db4e6", "green"),
    "pruned": Colour("#9a9a9a", "#8d8a85", "#85827d", "bright_black"),
    "diverged": Colour(VERMILION, "#c85200", "#ff9d52", "yellow"),
    "collapsed": Colour(PURPLE, "#a8487e", "#d98fc0", "yellow"),
    "failed": Colour("#7d1d12", "#7d1d12", "#d4504a", "red"),
    "running": Colour(SKY, "#2f8fc4", "#a9dcf7", "cyan"),
    "interrupted": Colour(ORANGE, "#b87700", "#ecd36b", "magenta"),
    "pending": Colour("#c4c4c4", "#b9b5ae", "#5d5b58", "bright_black"),
    "train": Colour("#9a9a9a", "#8d8a85", "#96928b"),
    "validation": Colour(BLUE, "#0072b2", "#5db4e6"),
    "test": Colour(BLUE, "#0072b2", "#5db4e6"),
}


def page_colours() -> str:
    """CSS that gives a page a variable for each role."""
    light, dark = (
        " ".join(f"--{role}: {getattr(colour, shade)};" for role, colour in COLOURS.items())
        for shade in ("light", "dark")
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
