"""The documentation site: Sphinx with MyST and Furo. `make docs` builds it into build/docs, offline."""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

project = "face-attribute-sweep"
author = "the authors of face-attribute-sweep"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 3  # `page.md#heading`, as elsewhere that Markdown is shown
nitpicky = True  # a reference that leads nowhere is a warning, and `make docs` takes a warning for an error

smartquotes = False  # `--option` in a sentence stays two hyphens
highlight_language = "none"

html_theme = "furo"  # light, dark, or as the system has it; fonts are the reader's own, nothing comes from elsewhere
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options: dict[str, Any] = {"navigation_with_keys": True}

PAGES_OF = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "examples/demo/BACKBONE.md": "reference/demo-backbone.md",
}
"""Documents outside this folder, and the pages that include them: links to the former lead to the latter here."""


def lead_to_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Other files outside this folder are links to copies of them; of a document there is a page."""
    folder = (Path(app.srcdir) / page).parent
    for document, included in PAGES_OF.items():
        outside = os.path.relpath(Path(app.srcdir).parent / document, folder)
        inside = os.path.relpath(Path(app.srcdir) / included, folder)
        source[0] = source[0].replace(f"]({outside}", f"]({inside}")


def list_external_links(app: Sphinx, error: Exception | None) -> None:
    """Links to elsewhere are listed, and not fetched: a build needs no network."""
    found: set[str] = set()
    for page in Path(app.outdir).rglob("*.html"):
        found.update(re.findall(r'class="reference external" href="([^"]+)"', page.read_text()))
    (Path(app.outdir) / "external-links.txt").write_text(
        "".join(f"{link}\n" for link in sorted(found))
    )


def setup(app: Sphinx) -> None:
    app.connect("source-read", lead_to_pages)
    app.connect("build-finished", list_external_links)
