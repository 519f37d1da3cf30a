"""The judgement beyond accuracy, as the page shows it: sentences, plots, the most confident mistakes, groups."""

import base64
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from analysis import plots
from analysis.frames.snapshot import Snapshot
from analysis.judgement import Judgement, judge
from analysis.judgement.groups import Attribute
from analysis.judgement.mistakes import read_test_mistakes, thumbnails_still_there
from analysis.pages.page import figure_json
from analysis.wording import percent, positive_said
from trainable.data import read_split
from trainable.errors import RequestError

NO_FACES: Final = "the pictures were left out because of `--no-faces`"


@dataclass(frozen=True)
class Face:
    """A mistake with its picture."""

    file: str
    source: str | None
    """A data URI; None if the picture is missing."""
    label: str
    probability: str


@dataclass(frozen=True)
class Shown:
    """One part of the split."""

    judgement: Judgement
    figures: list[tuple[str, Markup]]
    """Title and figure of calibration and curves."""
    groups_figure: Markup | None
    positive: str
    """Class 1 in words."""
    faces: list[Face]
    note: str
    """Why pictures are missing; "" if none is."""
    has_pictures: bool
    """Were pictures asked for?"""

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return self.judgement.groups.each if self.judgement.groups else ()


def judged(run: Snapshot, faces: bool = True) -> dict[str, Any]:
    """The facts of the section; without `faces` no picture is read."""
    found = judge(run)
    return {
        "judgements": [_shown(run, each, faces) for each in found.parts],
        "gap": list(found.gap.said()) if found.gap else [],
        "judgement_remarks": found.remarks,
    }


def _shown(run: Snapshot, judgement: Judgement, with_faces: bool) -> Shown:
    target, classes = run.config.data.target, run.manifest.classes
    positive = positive_said(target, classes)
    figures = {
        name: (title, figure_json(figure))
        for name, title, figure in plots.judgement_figures(judgement, positive)
    }
    groups = figures.pop("groups", None)
    pictures, note = _pictures(run, judgement) if with_faces else ({}, NO_FACES)
    faces = [
        Face(
            mistake.file,
            _source(pictures[mistake.file]) if mistake.file in pictures else None,
            f"{target} is {classes[mistake.label]}",
            percent(mistake.probability, 1),
        )
        for mistake in judgement.mistakes
    ]
    groups_figure = groups and groups[1]
    return Shown(
        judgement, list(figures.values()), groups_figure, positive, faces, note, with_faces
    )


def _pictures(run: Snapshot, judgement: Judgement) -> tuple[dict[str, bytes], str]:
    """Thumbnails by file: validation images from the image folder, test images only from what their opening stored."""
    files = [mistake.file for mistake in judgement.mistakes]
    try:
        if judgement.part == "test":
            result = run.openings[-1].result
            assert result is not None
            found = read_test_mistakes(run.folder, result.mistakes_sha256)
        else:
            rows = read_split(run.folder.split, ("validation",))
            digests = dict(zip(rows["file"], rows["sha256"], strict=True))
            found = thumbnails_still_there(
                run.manifest.image_folder,
                {file: digests[file] for file in files if file in digests},
            )
    except RequestError as error:
        return {}, str(error)
    lost = [file for file in files if file not in found]
    return found, f"{len(lost)} of these images can no longer be read" if lost else ""


def _source(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
