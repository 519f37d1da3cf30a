"""Many trials: a hyperparameter sweep on Ray Tune, rebuilt from its run folder at every start."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.request.config import SweepConfig


def _refuse_namesake(name: str) -> None:
    """Raise ImportError if another module of this name would be imported instead of ours, such as a `trainable.py`
    in the folder where `python -m sweep` is run; that command then ends with this message."""
    found, ours = find_spec(name), Path(__file__).resolve().parent.parent
    if found is not None and found.origin and Path(found.origin).resolve().parent == ours / name:
        return
    other = found.origin if found is not None else None
    said = (
        f"{name} must be the package in {ours}, but Python finds {other or 'none'}: rename it, or use the installed "
        "command `sweep`, which does not look for modules in the current folder"
    )
    if sys.argv[:1] == ["-m"]:
        print(f"sweep: {said}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(said)


_refuse_namesake("trainable")


def load_config(
    source: "str | Path | Mapping[str, Any]", overrides: "Sequence[str]" = ()
) -> "SweepConfig":
    """The configuration of a sweep, checked as `sweep run` checks it: defaults filled in, paths absolute.

    `source` is a YAML file, or the keys of one in a mapping; `overrides` are those of the command line, such as
    `["trial.epochs=3"]`.

    Raises:
        RequestError: one line that names the key, what must hold and what was given.
    """
    from sweep.request.refusals import load_request

    given = Path(source).expanduser() if isinstance(source, str | Path) else source
    return load_request(given, overrides)


def run(config: "SweepConfig", address: str = "local") -> int:
    """Start a sweep in a new run folder, as `sweep run` does, and return its exit code.

    Can be called in any thread. Only the main thread gets signals: a sweep in another thread leaves them to the
    program, and ends when it is complete, at its time limit, or with the process.

    Raises:
        RequestError: the configuration, the data or the cluster can't be used.
        RunFault: the run has a fault, such as a full disk or a changed image.
    """
    from sweep.__main__ import start
    from sweep.request.config import check_config

    checked = check_config(config.model_dump(mode="json"), {}, "the configuration")
    elsewhere = "" if address == "local" else f", address={address!r}"
    return start(checked, [f"sweep.run(config{elsewhere})"], address)
