"""How well a model ranks images, independent of the threshold: ROC and precision–recall curves and their areas."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from analysis.judgement.bootstrap import Estimate, areas_and_bands
from analysis.judgement.predicted import labels_of
from analysis.statistics import sigmoid
from analysis.wording import number, percent

FAR: Final = 1e300  # stands for an infinite logit: finite, and beyond any that a model outputs


@dataclass(frozen=True)
class Operating:
    """Where threshold 0.5 lies on the curves; shares in 0…1."""

    false_positive_rate: float
    recall: float
    precision: float | None
    """None if no image is predicted positive."""


@dataclass(frozen=True)
class Ranking:
    """How well the model ranks positive images above negative ones, independent of the threshold."""

    auc: Estimate
    """Area under the ROC curve: the probability that a positive image has a higher score than a negative one."""
    average_precision: Estimate
    positive_share: float
    """Share of positive images, which is the average precision of a model without skill."""
    operating: Operating

    def said(self) -> Iterator[str]:
        """In sentences."""
        yield f"ROC AUC {self.auc.said()}"
        yield (
            f"average precision {self.average_precision.said()}; without skill, it would be "
            f"{number(self.positive_share)}"
        )
        yield (
            f"at threshold 0.5, which was fixed in advance and not tuned: recall {percent(self.operating.recall)}, "
            f"false positive rate {percent(self.operating.false_positive_rate)}, "
            f"precision {percent(self.operating.precision)}"
        )


@dataclass(frozen=True)
class RankingCurves:
    """The curves to be drawn; shares in 0…1, thresholds are probabilities."""

    roc: pd.DataFrame
    """false_positive_rate, recall, threshold."""
    precision_recall: pd.DataFrame
    """recall, precision, threshold."""
    band: pd.DataFrame
    """place, recall_low, recall_high, precision_low, precision_high; see bootstrap.py."""


def ranking_of(predictions: pd.DataFrame) -> tuple[Ranking, RankingCurves] | None:
    """From `predictions` (label, logit), no logit NaN; None if a class has no image."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    labels = labels_of(predictions)
    if labels.all() or not labels.any():
        return None
    scores = np.clip(predictions["logit"].to_numpy(np.float64), -FAR, FAR)
    auc, precision, band = areas_and_bands(scores, labels)
    false_rates, recalls, thresholds = roc_curve(labels, scores)
    roc = pd.DataFrame({"false_positive_rate": false_rates, "recall": recalls})
    roc["threshold"] = sigmoid(thresholds)
    precisions, found, thresholds = precision_recall_curve(labels, scores, drop_intermediate=True)
    curve = pd.DataFrame({"recall": found[:-1], "precision": precisions[:-1]})
    curve["threshold"] = sigmoid(thresholds)
    called = scores > 0
    operating = Operating(
        float(called[~labels].mean()),
        float(called[labels].mean()),
        float(labels[called].mean()) if called.any() else None,
    )
    ranking = Ranking(auc, precision, float(labels.mean()), operating)
    return ranking, RankingCurves(roc, curve.iloc[::-1].reset_index(drop=True), band)
