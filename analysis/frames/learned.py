"""Did a trial learn anything of its classes?"""

from analysis.frames.snapshot import Snapshot
from analysis.frames.snapshot.rights import validation_labels
from trainable.metric import chance_area


def flat_until(positives: int, negatives: int) -> float:
    """The area under the ROC curve up to which a trial shows no order of the classes: that which chance reaches.

    0 where so few images can't tell any area from chance.
    """
    if not positives or not negatives:
        return 0.0
    reached = chance_area(negatives, positives)
    return reached if reached < 1 else 0.0


def is_flat(auc: float, positives: int, negatives: int) -> bool:
    """Does an area on so many images show no order of the classes? One that is not a number shows none either."""
    return not auc > flat_until(positives, negatives)


def validation_classes(run: Snapshot) -> tuple[int, int]:
    """How many validation images of the run are positive, and how many negative.

    Raises:
        RequestError: the split is missing or damaged.
    """
    labels = validation_labels(run)
    positives = int(labels.sum())
    return positives, len(labels) - positives
