"""What each validation image contributes to a model's metric, so that the standard error over images is known."""

from typing import Any

import numpy as np

from analysis.statistics import Labels
from trainable.metric import Metric, is_right

Floats = np.ndarray[Any, np.dtype[np.float64]]


def shares_of_images(metric: Metric, labels: Labels, logits: Floats) -> Floats | None:
    """(images,): their mean is the metric; the variance of their mean is that of the metric over other images.

    labels (images,) of 0 and 1, logits (images,). Accuracy: right or wrong. Loss: the image's own, in nats. Balanced
    accuracy and the area under the ROC curve are means of class means: each image gets the metric plus its distance
    from its class mean, weighted like its class. For the area, an image's own value is its placement: the share of the
    other class that it is ranked correctly against (DeLong, DeLong and Clarke-Pearson 1988). None if a class is empty.
    """
    from scipy.stats import rankdata

    right: Floats = is_right(logits, labels).astype(np.float64)
    if metric is Metric.VAL_ACCURACY:
        return right
    if metric is Metric.VAL_LOSS:
        loss: Floats = np.logaddexp(0, np.where(labels == 1, -logits, logits))
        return loss
    positive = labels == 1
    counts = int(positive.sum()), int((~positive).sum())
    if not all(counts):
        return None
    if metric is Metric.VAL_BALANCED_ACCURACY:
        return _within(right, positive, 0.5)
    ranks = rankdata(logits)
    below, above = np.empty(len(logits)), np.empty(len(logits))
    below[positive] = (ranks[positive] - rankdata(logits[positive])) / counts[1]
    above[~positive] = 1 - (ranks[~positive] - rankdata(logits[~positive])) / counts[0]
    return _within(np.where(positive, below, above), positive, 1.0)


def _within(values: Floats, positive: np.ndarray[Any, np.dtype[np.bool_]], weight: float) -> Floats:
    """The mean of the class means plus each image's distance from its class mean times weight · images / class size."""
    found = np.full(len(values), (values[positive].mean() + values[~positive].mean()) / 2)
    for members in (positive, ~positive):
        distance = values[members] - values[members].mean()
        found[members] += distance * weight * len(values) / members.sum()
    return found
