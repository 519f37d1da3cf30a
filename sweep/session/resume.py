"""`sweep resume KEY=VALUE`: the changes that a run allows, checked against its records."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from sweep.request.config import SweepConfig
from sweep.request.open_run import Run, open_held_run
from sweep.request.overrides import Overrides, overridden
from sweep.request.prepare import check_images, check_weights, is_its_table
from sweep.session.beginning import Change, asked_for
from trainable.data import PARTS, find_table, read_split, unpacked
from trainable.data.examine import Begin, no_progress
from trainable.data.tables.finding import files_below
from trainable.errors import RequestError
from trainable.records.files import sha256_of
from trainable.records.run_folder import RunFolder

PLACES: Final = frozenset({"data.images", "data.table", "model.weights"})
"""Keys whose content is compared with its recorded digest."""


def override(
    folder: RunFolder, overrides: Overrides, command: Sequence[str], begin: Begin = no_progress
) -> Change:
    """The change to a run that the caller holds; empty if all values stay the same.

    Raises:
        RequestError: an invalid value, or images, a table or weights that are not those on record.
    """
    run = open_held_run(folder)
    after = moved(run, overridden(run, run.config, overrides), overrides, begin)
    if after != run:
        stays = after.config.store.limit == run.config.store.limit
        after = asked_for(after, after.config, command, sharing_stays=stays)
    return Change(after, tuple(changes_said(run, after, overrides)))


def moved(run: Run, config: SweepConfig, overrides: Overrides, begin: Begin = no_progress) -> Run:
    """`run` with `config` and the overridden paths, after checking that their content has the recorded digests.

    Nothing is written.

    Raises:
        RequestError: there is something else, or nothing.
    """
    after, keys = replace(run, config=config), overrides.keys
    if not PLACES.intersection(keys):
        return after
    images, table = run.manifest.image_folder, run.manifest.table
    if "data.images" in keys:
        images = _image_folder(run, config.data.images)
        if config.data.table is None:
            table = _table_beside(run, config.data.images) or table
    if "data.table" in keys:
        table = _given_table(run, config)
    there = run.manifest.with_places(images, table)
    after = replace(after, manifest=there)
    if "data.images" in keys:
        check_images(after, begin)
    if "model.weights" in keys:
        check_weights(after)
    return after


def _image_folder(run: Run, given: Path) -> Path:
    """The folder at or below `given`, which may be a zip, that has the first image of the split by name and digest.

    Raises:
        RequestError: none has it.
    """
    root = unpacked(given)
    first = read_split(run.folder.split, PARTS).iloc[0]
    file, digest = str(first["file"]), str(first["sha256"])
    for folder in chain([root], _folders_with(root, file)):
        image = folder / file
        if image.is_file() and sha256_of(image) == digest:
            return folder
    raise RequestError(
        f"data.images must hold the images that the run began with, but neither {given} nor a folder in it has {file} "
        f"with the SHA-256 {digest} of the split; give the folder or zip of the same images"
    )


def _folders_with(root: Path, file: str) -> Iterator[Path]:
    for name in files_below(root):
        if name.endswith(f"/{file}"):
            yield root / name.removesuffix(file)


def _table_beside(run: Run, images: Path) -> Path | None:
    """The run's table, if it is beside the images and was not named."""
    try:
        found = find_table(images, unpacked(images))
    except RequestError:
        return None
    return found if is_its_table(run, found) else None


def _given_table(run: Run, config: SweepConfig) -> Path:
    """The path of the table that was named, or that is found beside the images.

    Raises:
        RequestError: it is another table, it is missing, or the run has none.
    """
    recorded, data = run.manifest.digests.table, config.data
    if recorded is None:
        raise RequestError(
            "data.table can't be changed in a run without a table: its classes come from folders"
        )
    table = data.table or find_table(data.images, unpacked(data.images))
    if not is_its_table(run, table):
        raise RequestError(
            f"data.table must be the table that the run began with (SHA-256 {recorded}), but {table} "
            f"{'is another one' if table.is_file() else 'does not exist'}; give the path of the same table"
        )
    return table


# ---------------------------------------------------------------- as lines of text


def changes_said(before: Run, after: Run, overrides: Overrides) -> list[str]:
    """What each override means."""
    lines = []
    for key in overrides.keys:
        old, new = _value(before.config, key), _value(after.config, key)
        line = f"{key}: {old} → {new}" if old != new else f"{key} is {new}, as before"
        lines.append(line + _compared(after, key))
    return lines


def _value(config: SweepConfig, key: str) -> object:
    section, name = key.split(".")
    value: Any = config.model_dump(mode="json")[section][name]
    return "none" if value is None else value


def _compared(run: Run, key: str) -> str:
    match key:
        case "data.images":
            count = len(read_split(run.folder.split, PARTS))
            return f" ({count:,} images in {run.manifest.image_folder} are those that the run began with)"
        case "data.table":
            return f" ({run.manifest.table} is the table that the run began with)"
        case "model.weights":
            return " (the weights that the run began with)"
    return ""
