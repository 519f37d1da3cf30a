"""Predictions as text and as a file: CSV or JSON with file, probability and class."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainable.errors import RequestError
from trainable.records.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = ("file", "probability", "class")
SUFFIXES: Final = (".csv", ".json")


def as_text(found: "pd.DataFrame", suffix: str) -> str:
    """COLUMNS of predictions as CSV, or for `.json` as a list of objects."""
    shown = found[list(COLUMNS)]
    if suffix == ".csv":
        return shown.to_csv(index=False, lineterminator="\n")
    return json.dumps(shown.to_dict("records"), indent=2, allow_nan=False) + "\n"


def write_predictions(found: "pd.DataFrame", path: Path) -> None:
    """Write them to `path` in UTF-8, completely or not at all."""
    write_atomically(path, as_text(found, path.suffix.lower()).encode())


def check_out(path: Path) -> None:
    """Raises RequestError if predictions can't be written to `path`."""
    refuse_written(path, "--out", SUFFIXES)


def refuse_written(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    """Raises RequestError if `path` has none of the suffixes, exists already, or its folder does not exist."""
    if path.suffix.lower() not in suffixes:
        raise RequestError(
            f"{option} must be a file that ends in {' or '.join(suffixes)}, but it is {path}"
        )
    if path.exists() or path.is_symlink():
        raise RequestError(
            f"{option} must be a new file, but {path} exists already; give another name: nothing is overwritten"
        )
    if not path.parent.is_dir():
        raise RequestError(f"{option} must be in a folder that exists, but {path.parent} does not")
