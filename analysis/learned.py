"""Did a trial learn anything of its classes?"""

import math

from trainable.data.split import read_split
from trainable.metric import highest_auc_by_chance
from trainable.record import RunFolder


def is_flat(auc: float, positives: int, negatives: int) -> bool:
    """Does an area under the ROC curve on so many images show no order of the classes?

    It is within three standard errors of 0.5, sqrt((p + n + 1) / (12 p n)) each, of Mann and Whitney's statistic
    without ties (1947), or below; an area that is not a number shows none either. Of images so few that not even an
    area of 1 lies beyond, nothing is said: False. There is at least one of each class.
    """
    limit = highest_auc_by_chance(negatives, positives)
    return math.isnan(auc) or auc <= limit < 1


def validation_classes(run: RunFolder) -> tuple[int, int]:
    """How many validation images of the run are positive, and how many negative.

    Raises:
        RequestError: the split is missing or damaged.
    """
    labels = read_split(run.split, ("validation",))["label"]
    positives = int((labels > 0.5).sum())
    return positives, len(labels) - positives
