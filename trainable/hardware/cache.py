"""Where a machine keeps what can be computed again: frozen features, and findings about images."""

import os
from pathlib import Path

from trainable.config import absolute
from trainable.errors import RequestError


def default_folder() -> Path:
    """Where a node keeps what is shared: `SWEEP_STORE`, or else the user's cache.

    Raises:
        RequestError: there is neither.
    """
    if given := os.environ.get("SWEEP_STORE"):
        return absolute(given, "SWEEP_STORE")
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return absolute(cache, "XDG_CACHE_HOME") / "face-attribute-sweep"
    try:
        return Path.home() / ".cache" / "face-attribute-sweep"
    except RuntimeError:
        raise RequestError(
            "there must be a folder for what trials share, but neither SWEEP_STORE nor HOME is set, and this user "
            "has no home; set SWEEP_STORE=/some/folder"
        ) from None
