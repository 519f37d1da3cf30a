"""Did a trial learn anything of its classes?"""

from trainable.metric import chance_area


def is_flat(auc: float, positives: int, negatives: int) -> bool:
    """Does an area under the ROC curve on so many images show no order of the classes?

    It is within three standard errors of 0.5, sqrt((p + n + 1) / (12 p n)) each, of Mann and Whitney's statistic
    without ties (1947), or below; an area that is not a number shows none either. There is at least one image of each.
    """
    return not auc > chance_area(negatives, positives)
