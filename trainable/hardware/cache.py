"""Where a machine keeps what can be made again: frozen features, and what is known of images."""

import os
from pathlib import Path

from trainable.config import absolute


def default_folder() -> Path:
    """Where a node keeps what is shared: `SWEEP_STORE`, else the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return absolute(
        os.environ.get("SWEEP_STORE") or Path(cache) / "face-attribute-sweep", "SWEEP_STORE"
    )
