"""The pages in a real browser: every plot drawn, no error, nothing fetched, links that lead somewhere."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from analysis.final_test import final_test
from analysis.frames import results
from analysis.pages.compare import write_comparison
from analysis.pages.explore import write_exploration
from analysis.pages.report import write_report
from sweep.request.config import check_config
from tests.support.faces import Faces, sweep_facts

if TYPE_CHECKING:
    from playwright.sync_api import (  # two seconds, which every process of `make fast` would spend
        Browser,
        Page,
    )

pytestmark = pytest.mark.system("chromium")
IN_SIGHT_ARE_DRAWN = """[...document.querySelectorAll(".plot")]
    .filter(plot => plot.checkVisibility()).every(plot => plot.querySelector("svg.main-svg"))"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield found
        found.close()


def until(page: "Page", expression: str, seconds: float = 30) -> None:
    """Wait for it; Playwright's own waiting is forbidden by the page's content security policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


class Opened:
    """A page that is open, with what it complained of and asked for."""

    def __init__(
        self, browser: "Browser", path: Path, dark: bool = False, width: int = 1200
    ) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(
            viewport={"width": width, "height": 20_000},
            color_scheme="dark" if dark else "light",
            offline=True,
        )
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        until(self.page, IN_SIGHT_ARE_DRAWN)
        assert self.requests == [path.as_uri()]


@pytest.fixture
def report(run: Path) -> Path:
    final_test(run)
    return write_report(run)


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_draws_every_plot_in_sight_and_links_open_their_trials(
    browser: "Browser", report: Path, run: Path, dark: bool
) -> None:
    opened = Opened(browser, report, dark)
    page = opened.page
    closed = 2 * (len(results.epochs(run)["trial_id"].unique()) - 1)
    assert page.locator(".plot:visible").count() == page.locator(".plot").count() - closed
    for link in page.locator("nav a").all():
        target = link.get_attribute("href")
        assert target and page.locator(target).count() == 1
    shut = page.locator("details.trial, details[id^=t-]:not([open])").first
    identity = shut.get_attribute("id")
    page.locator(f"#trials a[href='#{identity}']").first.click()
    until(page, f"document.getElementById('{identity}').open")
    until(page, IN_SIGHT_ARE_DRAWN)
    page.locator("h1").dblclick(position={"x": 10, "y": 20})
    assert page.evaluate("getSelection().toString().trim()"), "text can be selected"
    assert opened.complaints == []


def test_the_report_fits_on_a_phone(browser: "Browser", report: Path) -> None:
    opened = Opened(browser, report, width=390)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.complaints == []


def test_the_exploration_draws_its_plots_and_shows_its_pictures(
    browser: "Browser", faces: Faces, tmp_path: Path, own_store: Path
) -> None:
    trial = {"strategy": "full", "augmentation": ["none", "flip_jitter"]}
    config = check_config(sweep_facts(faces, tmp_path, trial), {}, "test")
    opened = Opened(browser, write_exploration(config, tmp_path / "out"))
    assert opened.page.locator(".plot:visible").count() == 3
    assert opened.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert opened.page.locator("img").count() == 7
    assert opened.complaints == []


def test_runs_beside_each_other_are_drawn_in_any_width(
    browser: "Browser", run: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "<b>other"))
    page = write_comparison([run, other], tmp_path / "compare.html")
    opened = Opened(browser, page, width=390)
    assert opened.page.locator(".plot:visible").count() == 2
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.page.locator("b:text('other')").count() == 0, "names are escaped"
    assert opened.complaints == []
