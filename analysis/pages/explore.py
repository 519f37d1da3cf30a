"""The data set before training: table, classes, attributes, sizes, pictures, views, split. Test images stay closed.

Only training images are shown. Only the inspection reads every file, and it returns nothing but sizes and digests.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from analysis import plots
from analysis.pages.drawing import draw_pictures
from analysis.pages.page import figure_json, render_page
from sweep.request.config import SweepConfig
from trainable.config import Augmentation
from trainable.data import balance, load_pixels, upright
from trainable.data.examine import Begin, Examined, examine, no_progress
from trainable.data.views import look, view
from trainable.errors import RequestError
from trainable.records.files import write_atomically

# on a page: rows of the table, pictures, views of one picture; and a picture's height in pixels; by eye
HEAD: Final = 5
SHOWN: Final = 5
VIEWS: Final = 6
SIDE: Final = 160
PICTURES: Final = ("sample.png", "training-images.png", "views-*.png")
"""Files that contain images of the data set."""


@dataclass(frozen=True)
class Exploration:
    """What the page shows."""

    data: Examined
    attributes: pd.DataFrame
    """attribute, positive, negative, missing (counts), correlation with the target (Pearson's); see `attributes`."""
    sizes: pd.DataFrame
    """width, height in pixels, images; the most frequent first."""


def explore(config: SweepConfig, begin: Begin = no_progress) -> Exploration:
    """Read the data set that `config` names.

    Raises:
        RequestError: the table, the split or an image can't be used.
    """
    data = examine(config.data, begin)
    looked = data.inspection.images
    sizes = looked.groupby(["width", "height"]).size().rename("images").reset_index()
    sizes = sizes.sort_values("images", ascending=False, ignore_index=True)
    return Exploration(data, attributes(data.table.attributes, data.table.rows["label"]), sizes)


def attributes(table: pd.DataFrame, label: "pd.Series[int]") -> pd.DataFrame:
    """One row per column of the table, in its order.

    Of two values, the larger counts as positive; if there are not two, the counts are missing. The correlation is
    Pearson's with the label (for two values the phi coefficient); it is missing if a column is constant or not numeric.
    """
    rows = []
    for name, column in table.items():
        known = column.dropna()
        values = sorted(known.unique(), key=lambda value: (isinstance(value, str), value))
        two = len(values) == 2
        numbers = (column == values[1]).where(column.notna()) if two else column
        correlation = None
        if two or column.dtype.kind in "iuf":
            there = column.notna()
            x, y = numbers[there].astype(float), label[there].astype(float)
            if x.nunique() > 1 and y.nunique() > 1:
                correlation = float(np.corrcoef(x, y)[0, 1])
        rows.append(
            {
                "attribute": str(name),
                "positive": int((known == values[1]).sum()) if two else None,
                "negative": int((known == values[0]).sum()) if two else None,
                "missing": int(column.isna().sum()),
                "correlation": correlation,
            }
        )
    dtypes = {"attribute": "string", "correlation": "float64"}
    dtypes |= dict.fromkeys(("positive", "negative", "missing"), "Int64")
    columns = ["attribute", "positive", "negative", "missing", "correlation"]
    return pd.DataFrame(rows, columns=columns).astype(dtypes)


# ---------------------------------------------------------------- plots: frame in, figure out


def class_counts(split: pd.DataFrame, classes: Sequence[str], target: str) -> go.Figure:
    """Images of each class in each part of the split."""
    counts = balance(split)
    figure = go.Figure()
    for name, column, colour in zip(
        classes,
        ("negative", "positive"),
        (plots.COLOURS["train"], plots.COLOURS["validation"]),
        strict=True,
    ):
        figure.add_trace(
            go.Bar(
                x=list(counts.index),
                y=counts[column].tolist(),
                name=f"{target} = {name}",
                marker={"color": colour},
                text=[f"{count:,.0f}" for count in counts[column]],
                textposition="outside",
                cliponaxis=False,
            )
        )
    figure.update_layout(template=plots.TEMPLATE, height=300, barmode="group")
    figure.update_yaxes(title_text="images")
    return figure


def attribute_shares(frame: pd.DataFrame) -> go.Figure:
    """The share of images that have each attribute, the most frequent at the top."""
    known = frame.dropna(subset="positive").copy()
    known["share"] = known["positive"] / (known["positive"] + known["negative"]) * 100
    return _bars(known.sort_values("share"), "share", "share of images", "%{x:.1f} %", "%")


def correlations(frame: pd.DataFrame, target: str) -> go.Figure:
    """The correlation of each attribute with the target, the strongest positive one at the top."""
    known = frame[frame["correlation"].notna() & (frame["attribute"] != target)]
    return _bars(
        known.sort_values("correlation"),
        "correlation",
        f"correlation with {target}",
        "%{x:.3f}",
        "",
    )


def _bars(frame: pd.DataFrame, column: str, title: str, said: str, unit: str) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=frame[column].tolist(),
            y=frame["attribute"].tolist(),
            orientation="h",
            marker={"color": plots.COLOURS["validation"]},
            hovertemplate=f"%{{y}}: {said}<extra></extra>",
        )
    )
    figure.update_layout(
        template=plots.TEMPLATE, height=max(160, 60 + 17 * len(frame)), bargap=0.35
    )
    figure.update_xaxes(title_text=title, ticksuffix=unit)
    figure.update_yaxes(tickfont={"size": 11}, showgrid=False, dtick=1)
    return figure


# ---------------------------------------------------------------- pictures


def sample_files(split: pd.DataFrame, seed: int, count: int = SHOWN) -> pd.DataFrame:
    """`count` random training images, the same ones for the same seed."""
    training = split[split["part"] == "train"]
    return training.sample(min(count, len(training)), random_state=seed)


def picture(path: Path) -> Image.Image:
    """The whole image, upright, SIDE pixels high."""
    with Image.open(path) as image:
        colours = upright(image)
    width = max(1, round(colours.width * SIDE / colours.height))
    return colours.resize((width, SIDE), Image.Resampling.BICUBIC)


def views(
    path: Path, file: str, augmentation: Augmentation, seed: int, size: int
) -> list[Image.Image]:
    """The views of an image in the first VIEWS epochs under `augmentation`."""
    pixels = load_pixels(path, size)
    seen = [look(pixels, view(augmentation, seed, epoch, file)) for epoch in range(1, VIEWS + 1)]
    return [Image.fromarray(each.permute(1, 2, 0).numpy()).resize((SIDE, SIDE)) for each in seen]


def side_by_side(images: Sequence[Image.Image], gap: int = 6) -> Image.Image:
    """One picture made of several of the same height."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    sheet = Image.new("RGB", (width, images[0].height), "white")
    x = 0
    for image in images:
        sheet.paste(image, (x, 0))
        x += image.width + gap
    return sheet


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# ---------------------------------------------------------------- the page


def figures_of(found: Exploration) -> dict[str, tuple[str, go.Figure]]:
    """Each plot by its file name, with its title."""
    table = found.data.table
    return {
        "classes": (
            "Classes in each part",
            class_counts(found.data.split, table.classes, table.target),
        ),
        "correlations": (
            "Correlation with the target",
            correlations(found.attributes, table.target),
        ),
        "attributes": ("Share of images with each attribute", attribute_shares(found.attributes)),
    }


def write_exploration(
    config: SweepConfig,
    folder: Path,
    begin: Begin = no_progress,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[str], None] = lambda text: None,
    faces: bool = True,
) -> Path:
    """Write explore.html, and its pictures and plots as PNG, into `folder`; returns the page's path.

    Without `faces` neither the page nor the folder has images; those of an earlier exploration are deleted.

    `show` gets the lines that describe how the data was understood. PNG plots need Chrome or Chromium; if there is
    none, `say` gets a line about it, and only the page has the plots.

    Raises:
        RequestError: the data can't be used, or `folder` has other content.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "explore.html").exists():
        raise RequestError(
            f"--out must be a new folder or that of an earlier exploration, but {folder} contains other files"
        )
    found = explore(config, begin)
    data, seed = found.data, config.data.split.seed
    for line in data.understood():
        show(line)
    images = data.table.images
    shown = sample_files(data.split, seed, SHOWN if faces else 0)
    kinds = [str(kind) for kind in config.values_of("augmentation")] if faces else []
    pictures = {}
    if faces:
        first = str(shown["file"].iloc[0])
        pictures = {
            "sample": picture(images / first),
            "training-images": side_by_side([picture(images / file) for file in shown["file"]]),
        }
        for kind in kinds:
            seen = views(images / first, first, kind, 0, config.data.image_size)  # type: ignore[arg-type]
            pictures[f"views-{kind}"] = side_by_side(seen)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in PICTURES if not faces for path in folder.glob(pattern)):
        path.unlink()
    files = {name: png(image) for name, image in pictures.items()}
    for name, content in files.items():
        write_atomically(folder / f"{name}.png", content)
    figures = figures_of(found)
    page = _page(config, found, files, shown, kinds, figures)
    path = folder / "explore.html"
    write_atomically(path, page.encode())
    try:
        drawn = draw_pictures([figure for _, figure in figures.values()], "png")
    except RequestError as error:
        say(f"the plots are on the page only: {error}")
    else:
        for name, content in zip(figures, drawn, strict=True):
            write_atomically(folder / f"{name}.png", content)
    return path


def _page(
    config: SweepConfig,
    found: Exploration,
    files: dict[str, bytes],
    shown: pd.DataFrame,
    kinds: Sequence[str],
    figures: Mapping[str, tuple[str, go.Figure]],
) -> str:
    data, table = found.data, found.data.table

    def source(name: str) -> str:
        return f"data:image/png;base64,{base64.b64encode(files[name]).decode()}"

    label = data.split["label"]
    return render_page(
        "explore.html",
        name=config.name,
        target=table.target,
        classes=table.classes,
        counts=[int((label == 0).sum()), int((label == 1).sum())],
        understood=data.understood(),
        columns=table.attributes.shape[1],
        head=_cells(pd.concat([table.rows["file"], table.attributes], axis=1).head(HEAD)),
        five=[
            (source_of(table.images / row["file"]), row["file"], table.classes[row["label"]])
            for row in shown.to_dict(orient="records")
        ],
        views=[(kind, source(f"views-{kind}")) for kind in kinds],
        warnings=list(data.warnings()),
        attributes=found.attributes.to_dict(orient="records"),
        missing=int(found.attributes["missing"].sum()),
        sizes=found.sizes.head(HEAD).to_dict(orient="records"),
        kinds_of_size=len(found.sizes),
        split=balance(data.split).rename_axis("part").reset_index().to_dict(orient="records"),
        figures=[(title, figure_json(figure)) for title, figure in figures.values()],
    )


def source_of(path: Path) -> str:
    """A picture as a data URI for an <img>."""
    return f"data:image/png;base64,{base64.b64encode(png(picture(path))).decode()}"


def _cells(frame: pd.DataFrame) -> tuple[list[str], list[list[Any]]]:
    return list(map(str, frame.columns)), frame.astype(object).where(
        frame.notna(), ""
    ).values.tolist()
