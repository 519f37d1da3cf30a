"""Where a machine keeps what can be made again: frozen features, and what is known of images."""

import os
from pathlib import Path

from trainable.config import absolute
from trainable.errors import RequestError


def default_folder() -> Path:
    """Where a node keeps what is shared: `SWEEP_STORE`, else the user's cache, of which nothing is asked then.

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
            "has no home: SWEEP_STORE=/some/folder names one"
        ) from None
