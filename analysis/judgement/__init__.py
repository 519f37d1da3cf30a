"""The winner beyond its accuracy: is it calibrated, how well does it rank, where is it wrong?

On the validation images, on which it was selected, and on the test images once they were opened, from the recorded
predictions. No image is opened here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Literal

import pandas as pd

from analysis.frames.ledger import Opening
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.judgement.areas import Ranking, RankingCurves, ranking_of
from analysis.judgement.bootstrap import FEWEST
from analysis.judgement.calibration import Calibration, calibration_of
from analysis.judgement.groups import Groups, groups_of, read_attributes
from analysis.judgement.mistakes import most_confident, read_checked
from analysis.judgement.predicted import probabilities, rights
from analysis.statistics import Difference, two_proportions
from analysis.wording import points
from trainable.errors import RequestError
from trainable.records.run_folder import RunFolder

LABELS: Final = {"validation": "validation set (used for its selection)", "test": "test set"}
Part = Literal["validation", "test"]


# ---------------------------------------------------------------- mistakes, gap


@dataclass(frozen=True)
class Mistake:
    """An image that the model gets wrong."""

    file: str
    label: int
    probability: float
    """Of class 1, as the model predicts."""


@dataclass(frozen=True)
class Gap:
    """Test minus validation accuracy of the tested model, on two disjoint samples of images."""

    test: float
    validation: float
    versus: Difference

    def said(self) -> Iterator[str]:
        """In sentences."""
        low, high = self.versus.interval.low, self.versus.interval.high
        outside = low > 0 or high < 0
        yield (
            f"test minus validation accuracy: {points(self.versus.difference)} (95 % confidence interval {points(low)} "
            f"to {points(high)}, Newcombe), {'' if outside else 'not '}significantly different from zero; the model "
            "was selected on the validation images, so some loss is expected"
        )


def gap_between(test: pd.DataFrame, validation: pd.DataFrame) -> Gap:
    """From predictions (label, logit) of the same model on the two parts."""
    counts = [(int(right.sum()), len(right)) for right in map(rights, (test, validation))]
    (test_right, test_images), (val_right, val_images) = counts
    return Gap(
        test_right / test_images,
        val_right / val_images,
        two_proportions(test_right, test_images, val_right, val_images),
    )


# ---------------------------------------------------------------- all of it


@dataclass(frozen=True)
class Judgement:
    """A trained model on one part of the split."""

    part: Part
    trial_id: str
    epoch: int
    images: int
    calibration: Calibration
    ranking: Ranking | None
    """None if a class has no image."""
    curves: RankingCurves | None
    mistaken: int
    """How many images it gets wrong."""
    mistakes: tuple[Mistake, ...]
    """The most confident mistakes."""
    groups: Groups | None
    """None if the table is missing or has changed."""

    @property
    def label(self) -> str:
        return LABELS[self.part]

    def ranking_said(self) -> Iterator[str]:
        """In sentences."""
        if self.ranking is None:
            yield "one class has no images here, so there is nothing to rank"
            return
        yield from self.ranking.said()
        if self.ranking.auc.interval is None:
            yield (
                f"no confidence interval: a class has fewer than {FEWEST} images, or resampling them changes nothing"
            )


@dataclass(frozen=True)
class Judged:
    """The winner on the validation set and the tested model on the test set, with remarks on what is missing."""

    parts: tuple[Judgement, ...]
    gap: Gap | None
    remarks: tuple[str, ...]

    def part(self, name: Part) -> Judgement | None:
        return next((each for each in self.parts if each.part == name), None)

    def briefly(self) -> Iterator[str]:
        """What `analysis test` prints about the test set besides the rates."""
        yield from self.remarks
        judgement = self.part("test")
        if judgement is not None:
            yield f"Brier score {judgement.calibration.brier.said()}"
            if judgement.ranking is not None:
                yield f"ROC AUC {judgement.ranking.auc.said()}"
        if self.gap is not None:
            yield from self.gap.said()


def judge(run: Source) -> Judged:
    """The judgement of the run; empty if it has no winner yet.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    read = Snapshot.of(run)
    config, folder = read.config, read.folder
    winner, openings = select(read).winner, read.openings
    tested = openings[-1] if openings and openings[-1].result is not None else None
    remarks: list[str] = []
    attributes = None
    if winner is not None or tested is not None:
        try:
            attributes = read_attributes(config, read.manifest)
        except RequestError as error:
            remarks.append(str(error))
    parts = []
    if winner is not None:
        epoch = winner.best.epoch
        try:
            found = folder.trial(winner.trial_id).predictions(epoch)
            target = config.data.target
            parts.append(
                judge_part("validation", winner.trial_id, epoch, found, attributes, target)
            )
        except RequestError as error:
            remarks.append(str(error))
    gap = None
    if tested is not None:
        model = tested.winner
        try:
            found = read_test_predictions(folder, tested)
            parts.append(
                judge_part(
                    "test", model.trial_id, model.epoch, found, attributes, config.data.target
                )
            )
            gap = gap_between(found, folder.trial(model.trial_id).predictions(model.epoch))
        except RequestError as error:
            remarks.append(str(error))
    return Judged(tuple(parts), gap, tuple(dict.fromkeys(remarks)))


def judge_part(
    part: Part,
    trial_id: str,
    epoch: int,
    predictions: pd.DataFrame,
    attributes: pd.DataFrame | None,
    target: str,
) -> Judgement:
    """One model on one part, from `predictions` (file, label, logit) and the table indexed by file, if there is one.

    Raises:
        RequestError: there is no prediction, or one is not a number.
    """
    if predictions.empty or predictions["logit"].isna().any():
        raise RequestError(
            f"each {part} image must have a prediction that is a number, but some of trial {trial_id} have none"
        )
    ranked = ranking_of(predictions)
    surest = most_confident(predictions)
    return Judgement(
        part,
        trial_id,
        epoch,
        len(predictions),
        calibration_of(predictions),
        ranked and ranked[0],
        ranked and ranked[1],
        int((~rights(predictions)).sum()),
        tuple(
            Mistake(str(file), int(label), float(probability))
            for file, label, probability in zip(
                surest["file"], surest["label"], probabilities(surest), strict=True
            )
        ),
        None if attributes is None else groups_of(predictions, attributes, target),
    )


def read_test_predictions(run: RunFolder, opening: Opening) -> pd.DataFrame:
    """file, label, logit of every test image, as the opening wrote them.

    Raises:
        RequestError: the file is missing or was changed.
    """
    assert opening.result is not None
    content = read_checked(run.test_predictions.name, run, opening.result.predictions_sha256)
    return pd.read_parquet(BytesIO(content))
