"""Many trials: a hyperparameter sweep on Ray Tune, rebuilt from its run folder at every start."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.request.config import SweepConfig


def run(config: "SweepConfig", address: str = "local") -> int:
    """Start a sweep in a new run folder, as `sweep run` does, and return its exit code.

    Raises:
        RequestError: the configuration, the data or the cluster can't be used.
    """
    from sweep.__main__ import start
    from sweep.request.config import check_config

    return start(check_config(config.model_dump(mode="json"), {}, "the configuration"), address)
