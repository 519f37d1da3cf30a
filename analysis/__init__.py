"""Analysis of recorded runs: data frames, the winner, its single test, the report, and the winner in use."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.frames.snapshot import Source
    from analysis.winner.predict import WinnerModel


def _refuse_namesake(name: str) -> None:
    """Raises ImportError if another module of this name would be imported instead of ours, such as a `sweep.py` in the
    folder where `python -m analysis` is run; the command prints that line and exits. `sweep` has the same check, but
    it can't be called from here: `sweep` may be the wrong module itself."""
    found, ours = find_spec(name), Path(__file__).resolve().parent.parent
    if found is not None and found.origin and Path(found.origin).resolve().parent == ours / name:
        return
    other = found.origin if found is not None else None
    said = (
        f"{name} must be the package in {ours}, but Python finds {other or 'none'}: rename that, or use the "
        "installed command `analysis`, which does not import modules from the current folder"
    )
    if sys.argv[:1] == ["-m"]:
        print(f"analysis: {said}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(said)


for _name in ("trainable", "sweep"):
    _refuse_namesake(_name)


def load_winner(run: "Source") -> "WinnerModel":
    """The winner of the run in a folder, ready to `predict` images; its weights are checked against the record.

    Raises:
        RequestError: there is no run folder or no winner, or its weights are missing or were changed.
    """
    from analysis.winner.predict import load_winner as load

    return load(run)
