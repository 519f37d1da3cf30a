"""What runs left on disk: frames, the winner, one opening of the test set, the report, and the winner in use."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.frames.snapshot import Source
    from analysis.winner.predict import WinnerModel


def load_winner(run: "Source") -> "WinnerModel":
    """The winner of the run in a folder, ready to `predict` images; its weights are checked against the record.

    Raises:
        RequestError: no run folder, no winner, or its weights are gone or changed.
    """
    from analysis.winner.predict import load_winner as load

    return load(run)
