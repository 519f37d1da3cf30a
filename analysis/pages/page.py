"""A page that opens offline: one HTML file that contains its style, its script and plotly."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import plotly.graph_objects as go
import plotly.io as pio
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from analysis import wording
from trainable.show.colours import page_colours
from trainable.show.wording import duration

TEMPLATES: Final = Path(__file__).parent / "templates"


def render_page(template: str, **facts: Any) -> str:
    """The page of `template` (explore.html, report/page.html); all `facts` are escaped."""
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(page_colours() + (TEMPLATES / "page.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
            plotly=Markup(get_plotlyjs()),
            **facts,
        )
    )


@cache
def _environment() -> jinja2.Environment:
    """One environment for all pages of a process, so that each template is compiled once."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "number": wording.number,
        "duration": duration,
        "moment": wording.moment,
        "points": wording.points,
        "counted": wording.counted,
        "times": wording.times,
        "setting_value": wording.setting_value,
        "capitalize_first": sentence,
    }
    return environment


def sentence(text: str) -> Markup:
    """The text with a capital first letter, and what is in backticks as code."""
    return Markup(
        re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text[:1].upper() + text[1:])))
    )


def figure_json(figure: go.Figure | Mapping[str, Any]) -> Markup:
    """The figure, or its data and layout, as JSON that is safe inside a script element."""
    text: str = pio.to_json(figure, validate=False)
    return Markup(text.replace("<", "\\u003c"))
