"""Did a trial learn anything of its classes?"""

from trainable.data.split import read_split
from trainable.metric import highest_auc_by_chance
from trainable.record import RunFolder


def is_flat(auc: float, positives: int, negatives: int) -> bool:
    """Does an area under the ROC curve on so many images show no order of the classes?

    It is within three standard errors of 0.5, sqrt((p + n + 1) / (12 p n)) each, of Mann and Whitney's statistic
    without ties (1947), or below; an area that is not a number shows none either. There is at least one image of each.
    """
    return not auc > highest_auc_by_chance(negatives, positives)


def validation_classes(run: RunFolder) -> tuple[int, int]:
    """How many validation images of the run are positive, and how many negative.

    Raises:
        RequestError: the split is missing or damaged.
    """
    labels = read_split(run.split, ("validation",))["label"]
    positives = int((labels > 0.5).sum())
    return positives, len(labels) - positives
