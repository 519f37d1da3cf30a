"""Did a trial learn anything about its classes?"""

from analysis.frames.snapshot import Snapshot
from analysis.frames.snapshot.rights import validation_labels
from trainable.metric import chance_area


def flat_until(positives: int, negatives: int) -> float:
    """The area under the ROC curve up to which a trial's ranking of the classes counts as chance.

    0 if there are too few images to distinguish any area from chance. Each class has an image: every part of a split
    has both.
    """
    reached = chance_area(negatives, positives)
    return reached if reached < 1 else 0.0


def is_flat(auc: float, positives: int, negatives: int) -> bool:
    """Does an area on this many images count as chance? One that is not a number does too."""
    return not auc > flat_until(positives, negatives)


def validation_classes(run: Snapshot) -> tuple[int, int]:
    """How many validation images of the run are positive, and how many are negative.

    Raises:
        RequestError: the split is missing or damaged.
    """
    labels = validation_labels(run)
    positives = int(labels.sum())
    return positives, len(labels) - positives
