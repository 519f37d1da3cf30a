"""The data set before training: what is counted equals what the tables say, and test images stay closed."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.stats import pearsonr
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.pages.explore import (
    VIEWS,
    attributes,
    explore,
    sample_files,
    views,
    write_exploration,
)
from sweep.request.config import SweepConfig, check_config
from tests.support.faces import Faces, sweep_facts
from trainable.errors import RequestError

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def config(faces: Faces, tmp_path: Path) -> SweepConfig:
    trial = {"strategy": "full", "augmentation": ["none", "flip_jitter"]}
    return check_config(sweep_facts(faces, tmp_path, trial), {}, "test")


def test_the_reference_reports_counts_come_out_of_a_table_that_has_them() -> None:
    """30,000 rows: Smiling 15,741 / 14,259 (S), Male 17,320 / 12,680, no null (M)."""
    smiling = np.repeat([-1, 1], [15_741, 14_259])
    male = np.repeat([-1, 1], [17_320, 12_680])
    draw = np.random.default_rng(0)
    draw.shuffle(male)
    table = pd.DataFrame({"Smiling": smiling, "Male": male})
    found = attributes(table, pd.Series((male + 1) // 2)).set_index("attribute")
    assert list(found.loc["Smiling", ["negative", "positive", "missing"]]) == [15_741, 14_259, 0]
    assert list(found.loc["Male", ["negative", "positive", "missing"]]) == [17_320, 12_680, 0]
    assert found.loc["Male", "correlation"] == pytest.approx(1)
    assert found.loc["Smiling", "correlation"] == pytest.approx(pearsonr(smiling, male)[0])


def test_a_correlation_has_a_sign_and_nulls_are_counted_and_left_out() -> None:
    label = pd.Series([0, 0, 1, 1, 0, 1])
    table = pd.DataFrame(
        {
            "against": [1, 1, -1, -1, 1, -1],
            "gaps": [None, "no", "yes", "yes", "no", None],
            "age": [20, 22, 30, 35, 21, 40],
            "constant": [1] * 6,
            "words": list("abcdef"),
        }
    )
    found = attributes(table, label).set_index("attribute")
    assert found["missing"].tolist() == [0, 2, 0, 0, 0]
    assert found.loc["against", "correlation"] == pytest.approx(-1)
    assert found.loc["gaps", "correlation"] == pytest.approx(1)
    assert list(found.loc["gaps", ["positive", "negative"]]) == [2, 2]
    assert found.loc["age", "correlation"] == pytest.approx(pearsonr(table["age"], label)[0])
    assert found.loc[["constant", "words"], "correlation"].isna().all()
    assert found.loc[["age", "constant", "words"], "positive"].isna().all()


def test_sizes_and_samples_are_of_the_images_and_no_test_image_is_shown(
    config: SweepConfig,
) -> None:
    found = explore(config)
    sizes = found.sizes.to_dict(orient="records")
    assert sizes == [{"width": 36, "height": 44, "images": 40}]
    shown = sample_files(found.data.split, 42)
    assert len(shown) == 5 and set(shown["part"]) == {"train"}
    assert shown.equals(sample_files(found.data.split, 42))


def test_views_are_those_that_epochs_see(faces: Faces) -> None:
    file = faces.files[0]
    plain = views(faces.images / file, file, "none", 0, 32)
    jittered = views(faces.images / file, file, "flip_jitter", 0, 32)
    assert len(plain) == len(jittered) == VIEWS
    assert len({image.tobytes() for image in plain}) == 1
    assert len({image.tobytes() for image in jittered}) == VIEWS


class Loads(HTMLParser):
    """Whatever a browser would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "data") and not str(value).startswith(("#", "data:")):
                self.found.append(str(value))


@pytest.mark.system("chromium")
def test_the_page_holds_everything_and_the_pictures_lie_beside_it(
    config: SweepConfig, tmp_path: Path
) -> None:
    page = write_exploration(config, tmp_path / "out")
    html = page.read_text()
    assert Loads(html).found == []
    assert "the target is <b>Smiling</b>" in html
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == [
        "attributes.png",
        "classes.png",
        "correlations.png",
        "explore.html",
        "sample.png",
        "training-images.png",
        "views-flip_jitter.png",
        "views-none.png",
    ]
    for name in set(names) - {"explore.html"}:
        with Image.open(page.parent / name) as image:
            image.verify()
    write_exploration(config, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(RequestError, match="contains other files"):
        write_exploration(config, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.fixture
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")


@pytest.mark.usefixtures("no_browser")
def test_names_are_escaped(own_store: Path, tmp_path: Path, faces: Faces) -> None:
    frame = pd.read_csv(faces.table)
    frame["<script>alert(1)</script>"] = frame["Male"]
    table = tmp_path / "table.csv"
    frame.to_csv(table, index=False)
    facts = sweep_facts(faces, tmp_path, {"strategy": "full"})
    facts["data"] |= {"table": str(table)}
    html = write_exploration(check_config(facts, {}, "test"), tmp_path / "out").read_text()
    assert "<script>alert" not in html


@pytest.mark.usefixtures("no_browser")
def test_the_command_names_the_page_also_where_no_browser_can_draw_pictures(
    faces: Faces, tmp_path: Path
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_facts(faces, tmp_path, {"strategy": "full"})))
    command = ["explore", str(path), "data.target=Male", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    table, target, split, remark, page = done.stdout.splitlines()
    assert f"table {faces.table}" in table and str(faces.images) in table
    assert target.startswith("target Male: ") and target.endswith("counts as 1")
    assert split.startswith("split: ")
    assert remark.startswith("the plots are on the page only: ")
    assert page == str(tmp_path / "out" / "explore.html")
    assert "the target is <b>Male</b>" in (tmp_path / "out" / "explore.html").read_text()


@pytest.mark.usefixtures("no_browser")
def test_without_faces_neither_the_page_nor_its_folder_has_a_picture(
    config: SweepConfig, tmp_path: Path
) -> None:
    """Those of an earlier exploration go; all else is there."""
    full = write_exploration(config, tmp_path / "out").read_text()
    assert (tmp_path / "out" / "sample.png").exists()
    page = write_exploration(config, tmp_path / "out", faces=False)
    assert [path.name for path in page.parent.iterdir()] == ["explore.html"]
    html = page.read_text()
    assert "<img" not in html.partition("<main")[2].partition("<script")[0] and "<img" in full
    assert "The pictures were left out because of <code>--no-faces</code>." in html
    after = "<section><h2>Split</h2>"

    def rest(text: str) -> str:
        return re.sub(r"Written .*", "", text.partition(after)[2])

    assert rest(html) == rest(full) != ""
