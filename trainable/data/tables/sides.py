"""CelebA's files beside a table: which part an image belongs to, and whose face it shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from trainable.config import DataConfig
from trainable.data.tables.names import match, some
from trainable.data.tables.pairs import read_pairs
from trainable.errors import RequestError

OFFICIAL_PARTS: Final = ("train", "validation", "test")
"""What 0, 1 and 2 mean in CelebA's partition file."""
PARTITION_FILES: Final = ("list_eval_partition.csv", "list_eval_partition.txt")
IDENTITY_FILE: Final = "identity_CelebA.txt"


def join_sides(rows: pd.DataFrame, table: Path, root: Path, data: DataConfig) -> dict[str, str]:
    """Add the columns partition and identity to `rows` if their files are beside the table; returns what was joined."""
    joined = {}
    files = list(rows["file"])
    path = _beside(table, root, *PARTITION_FILES)
    if path is not None:
        parts = read_pairs(path)
        unknown = set(parts.values()) - {0, 1, 2}
        if unknown:
            raise RequestError(f"{path} must hold 0, 1 and 2, but it holds {min(unknown)}")
        found, said = _joined(files, parts)
        rows["partition"] = [None if part is None else OFFICIAL_PARTS[part] for part in found]
        joined["partition"] = f"{path.name}: {said}"
    path = _beside(table, root, IDENTITY_FILE)
    if path is not None and data.identities != "ignore":
        found, said = _joined(files, read_pairs(path))
        lacking = [file for file, who in zip(files, found, strict=True) if who is None]
        if lacking and data.identities == "refuse":
            raise RequestError(
                f"{path} must name every image of {table}, but it lacks {len(lacking):,} of {len(files):,}: "
                f"{some(lacking)}; data.identities=incomplete treats each of them as a person of its own, "
                "data.identities=ignore does not use that file"
            )
        rows["identity"] = pd.to_numeric(pd.Series(found, index=rows.index, dtype="object"))
        joined["identity"] = f"{path.name}: {said}"
    return joined


def _joined(files: Sequence[str], by_name: Mapping[str, int]) -> tuple[list[int | None], str]:
    """The number of each of `files`, and how many rows were joined."""
    joined = match(files, by_name, numbers=False)
    found = [None if name is None else by_name[name] for name in joined.found]
    beyond = len(by_name) - joined.count
    return found, joined.said() + (f"; {beyond:,} entries there belong to no row" if beyond else "")


def _beside(table: Path, root: Path, *names: str) -> Path | None:
    for folder in dict.fromkeys((table.parent, root, root.parent)):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None
