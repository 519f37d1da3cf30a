"""Many trials: a hyperparameter sweep on Ray Tune, rebuilt from its run folder at every start."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.request.config import SweepConfig


def run(config: "SweepConfig", address: str = "local") -> int:
    """Start a sweep in a new run folder, as `sweep run` does, and return its exit code.

    In any thread. Only the main one hears signals: a sweep in another leaves them to the program, and ends when it is
    complete, at its time limit, or with the process.

    Raises:
        RequestError: the configuration, the data or the cluster can't be used.
        RunFault: the run has a fault: a full disk, a changed image.
    """
    from sweep.__main__ import start
    from sweep.request.config import check_config

    checked = check_config(config.model_dump(mode="json"), {}, "the configuration")
    elsewhere = "" if address == "local" else f", address={address!r}"
    return start(checked, [f"sweep.run(config{elsewhere})"], address)
