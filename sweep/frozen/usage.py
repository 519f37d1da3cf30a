"""`sweep store`: show what is kept on this machine, its size and age, or clear it."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainable.errors import RequestError
from trainable.frozen.store import evict, limit_of, stored
from trainable.hardware.cache import default_folder
from trainable.show.wording import duration


def read_store() -> dict[str, Any]:
    """Every shelf with its key, files, bytes and seconds since its last use, as plain JSON."""
    chunks = default_folder() / "chunks"
    shelves: dict[Path, dict[str, Any]] = {}
    taken = 0
    for each in stored(chunks) if chunks.is_dir() else []:
        shelf = shelves.setdefault(
            each.path.parent, {"chunks": 0, "bytes": 0, "unused_seconds": 0.0}
        )
        shelf["chunks"] += 1
        shelf["bytes"] += each.bytes
        shelf["unused_seconds"] = max(
            time.time() - each.used_at, 0.0
        )  # oldest first: the last stays
        taken += each.bytes
    return {
        "folder": str(default_folder()),
        "bytes": taken,
        "limit_bytes": limit_of(chunks, taken, None) if chunks.is_dir() else None,
        "shelves": [
            {"id": folder.name, "key": _key(folder), **facts} for folder, facts in shelves.items()
        ],
    }


def _key(folder: Path) -> dict[str, Any]:
    try:
        key: dict[str, Any] = json.loads((folder / "key.json").read_bytes())
    except (OSError, ValueError):
        return {"holds": "unknown: its key.json is missing"}
    return key


def show_store(facts: dict[str, Any], console: Console) -> None:
    """Print what `read_store` returned."""
    table = Table("id", "holds", "chunks", "GB", "last used", box=None, padding=(0, 2, 0, 0))
    for shelf in facts["shelves"]:
        key = shelf["key"]
        details = (
            key.get("layers", ""),
            f"{key['image_size']} px" if "image_size" in key else "",
            f"width {key['width']:g}" if "width" in key else "",
            key.get("format", "") if key.get("format") == "float16" else key.get("precision", ""),
            f"weights {key['weights'][:8]}" if "weights" in key else "",
            key.get("device", ""),
        )
        table.add_row(
            shelf["id"],
            ", ".join([key["holds"], *filter(None, details)]),
            f"{shelf['chunks']:,}",
            f"{shelf['bytes'] / 1e9:.3f}",
            f"{duration(shelf['unused_seconds'])} ago",
        )
    if facts["shelves"]:
        console.print(table)
    limit = facts["limit_bytes"]
    of = "" if limit is None else f" of {limit / 1e9:.1f} GB, unless --store-limit is given"
    console.print(
        f"{facts['folder']}: {facts['bytes'] / 1e9:.3f} GB{of}",
        soft_wrap=True,
    )


def clear_store() -> tuple[int, int]:
    """Delete every chunk that no process is reading; return the bytes freed and how many chunks are in use.

    Raises:
        RequestError: the folder can't be written.
    """
    chunks = default_folder() / "chunks"
    freed = left = 0
    try:
        for each in stored(chunks) if chunks.is_dir() else []:
            if evict(each.path):
                freed += each.bytes
            else:
                left += 1
    except OSError as error:
        raise RequestError(f"the store {chunks} can't be cleared: {error.strerror}") from None
    return freed, left
