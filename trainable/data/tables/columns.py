"""Which column of a table has the image names: known by its values or its name, otherwise by the images."""

from contextlib import suppress
from pathlib import Path

from trainable.config import DataConfig
from trainable.data.tables.finding import FoundImages, find_images, is_image
from trainable.data.tables.names import some
from trainable.data.tables.reading import NAMES_ARE_IN, UNNAMED, Sheet
from trainable.errors import RequestError, did_you_mean


def file_column(sheet: Sheet, root: Path, data: DataConfig) -> tuple[str, FoundImages | None]:
    """The column of file names, and its images if it was found by them.

    Raises:
        RequestError: no column has file names, or several do.
    """
    if data.file_column is not None:
        if data.file_column not in sheet.frame:
            hint = did_you_mean(data.file_column, sheet.frame.columns)
            raise RequestError(
                f"data.file_column must be a column of {sheet.path}, but it has no column {data.file_column!r}{hint}"
            )
        return data.file_column, None
    named = image_columns(sheet)
    known = [name for name in named or sheet.frame.columns if name.lower() in NAMES_ARE_IN]
    for certain in (named, known):
        if len(certain) == 1:
            return certain[0], None
    found: dict[str, FoundImages] = {}
    for name in named or _columns_but(sheet, data.target):
        with suppress(RequestError):
            found[name] = find_images(root, list(sheet.frame[name]))
    enough = (
        max((each.rows.count for each in found.values()), default=0) if named else len(sheet.frame)
    )
    best = [name for name, each in found.items() if each.rows.count >= enough]
    if len(best) == 1:
        return best[0], found[best[0]]
    if not named and not found:
        raise no_file_column(sheet)
    maybe = best or list(found) or named
    raise RequestError(
        f"one column of {sheet.path} must hold the names of the images, but it could be {' or '.join(maybe)}; "
        "name it as data.file_column"
    )


def _columns_but(sheet: Sheet, target: str) -> list[str]:
    """Columns that could hold names without a suffix: only one that names an image in every row is accepted.

    A column without a name is an index: its numbers are close to those of images, and would shift every label.
    """
    return [name for name in sheet.frame.columns if name != target and not name.startswith(UNNAMED)]


def no_file_column(sheet: Sheet) -> RequestError:
    columns = list(sheet.frame.columns)
    return RequestError(
        f"{sheet.path} must have a column of image file names, but none of {some(columns)} is one; "
        "name it as data.file_column"
    )


def image_columns(sheet: Sheet) -> list[str]:
    """Columns with values that all end like image names, apart from empty ones."""
    return [
        str(name)
        for name, column in sheet.frame.items()
        if all(value == "" or is_image(value) for value in column) and column.any()
    ]
