"""The winner beside the runners-up, on the same validation images: is it really better? The test set stays closed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from analysis import results
from analysis.select import select
from analysis.snapshot import ReadTrial, Snapshot, Source
from analysis.statistics import Interval, Paired, Right, holm, mcnemar, optimism, wilson
from analysis.wording import counted, percent, points, setting
from trainable.config import RequestError
from trainable.rows import Status

ALPHA: Final = 0.05


@dataclass(frozen=True)
class Finalist:
    """A trained model at its best epoch, on the validation images."""

    trial_id: str
    setting: str
    right: int
    accuracy: float
    interval: Interval
    versus: Paired | None
    """The winner (first) against this one (second); None for the winner itself."""
    p_holm: float | None
    """The comparison's p-value among all of this table."""


@dataclass(frozen=True)
class Finalists:
    """The best trials by the metric, the winner first."""

    images: int
    each: tuple[Finalist, ...]
    candidates: int
    """Finished trials that the winner was chosen from."""
    optimism: float
    """By how much the winner's validation accuracy is too high for having been chosen among the candidates."""

    def said(self) -> Iterator[str]:
        """What follows, and what does not."""
        winner = self.each[0]
        for other in self.each[1:]:
            assert other.versus is not None and other.p_holm is not None
            difference = winner.accuracy - other.accuracy
            split = f"{other.versus.only_first} to {other.versus.only_second} images"
            if other.p_holm < ALPHA:
                yield (
                    f"the trained model {winner.trial_id} beats the trained model {other.trial_id} on these images by "
                    f"{points(difference)} ({split}; p = {other.p_holm:.2g} after Holm)"
                )
            else:
                yield (
                    f"the trained models {winner.trial_id} and {other.trial_id} can't be told apart on these images "
                    f"({points(difference)}, {split}; p = {other.p_holm:.2g} after Holm)"
                )
        models = counted(len(self.each), "trained model")
        yield (
            f"these are {models} on {counted(self.images, 'validation image')} that they were selected on; "
            "of settings they say nothing, since another seed may turn them round"
        )
        yield (
            f"chosen as the best of {counted(self.candidates, 'finished trial')}, the winner's "
            f"{percent(winner.accuracy)} is too high by about {self.optimism * 100:.2f} points "
            "(bootstrap over images; that its epoch was chosen too comes on top)"
        )

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "said": list(self.said())}


def compare_finalists(run: Source, top: int) -> Finalists:
    """The winner and the best finished trials after it, `top` in all.

    Raises:
        RequestError: no run folder, fewer than two finished trials, or damaged predictions.
    """
    read = Snapshot.of(run)
    frame = results.trials(read)
    names = results.varied(frame)
    settings = {row["trial_id"]: setting(row, names) for row in results.to_records(frame)}
    finished = [
        standing
        for standing in select(read).ranked
        if standing.status is Status.FINISHED and standing.origin == "search"
    ]
    if len(finished) < 2:
        raise RequestError(
            f"a comparison needs two finished trials, but {read.folder.path} has {len(finished)}; "
            f"`sweep status {read.folder.path}` shows how it stands"
        )
    right = [_right(read.by_id[each.trial_id], each.best.epoch) for each in finished]
    versus = [mcnemar(right[0], other) for other in right[1:top]]
    adjusted = holm([pair.p for pair in versus])
    each = tuple(
        Finalist(
            standing.trial_id,
            settings[standing.trial_id],
            int(mine.sum()),
            float(mine.mean()),
            wilson(int(mine.sum()), len(mine)),
            pair,
            p,
        )
        for standing, mine, pair, p in zip(
            finished, right, [None, *versus], [None, *adjusted], strict=False
        )
    )
    return Finalists(len(right[0]), each, len(finished), optimism(np.stack(right)))


def _right(trial: ReadTrial, epoch: int) -> Right:
    """Which validation images the trial got right at its best epoch, in the split's order."""
    found = trial.record.predictions(epoch, ["label", "logit"])
    right: Right = ((found["logit"] > 0) == (found["label"] > 0.5)).to_numpy()
    return right
