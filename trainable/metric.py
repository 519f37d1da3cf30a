"""The metric that decides, for ASHA, Optuna, the best epoch and the winner.

torch and scikit-learn are imported where they are needed, so that commands that only read records start without them.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

Values = TypeVar("Values", "np.ndarray[Any, Any]", "pd.Series[Any]", "Tensor")


class Metric(StrEnum):
    """A column of `epochs.jsonl` that ranks epochs and trials."""

    VAL_ACCURACY = "val_accuracy"
    VAL_BALANCED_ACCURACY = "val_balanced_accuracy"
    VAL_AUC = "val_auc"
    VAL_LOSS = "val_loss"

    @property
    def higher_is_better(self) -> bool:
        return self is not Metric.VAL_LOSS

    def score(self, value: float) -> float:
        """The value with its sign turned so that higher is better; its own inverse."""
        return value if self.higher_is_better else -value


@dataclass(frozen=True)
class Measured:
    """How well logits agree with labels; rates and area in 0…1, loss in nats."""

    loss: float
    accuracy: float
    balanced_accuracy: float
    auc: float
    one_class: bool
    """The same class is predicted for every image."""


def predicted_classes(logits: Values) -> Values:
    """(images,) of bool: is class 1 predicted? It is if the logit is above 0: its sigmoid is above 0.5 then.

    The only place that defines it, for tensors on any device, arrays and data-frame columns.
    """
    predicted: Values = logits > 0
    return predicted


def is_right(logits: Values, labels: Values) -> Values:
    """(images,) of bool: is the image predicted right? Labels are 0 and 1, of any type."""
    right: Values = predicted_classes(logits) == (labels > 0.5)
    return right


def measure(logits: "Tensor", labels: "Tensor") -> Measured:
    """Loss and rates of `logits` (n,) against `labels` (n,) of 0 and 1.

    If a logit is not finite, loss and area are NaN, and the caller ends the trial as diverged.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    logits, labels = logits.double().cpu(), labels.double().cpu()
    predicted, actual = predicted_classes(logits), labels > 0.5
    right = is_right(logits, labels).double()
    recalls = [right[of_class].mean().item() for of_class in (actual, ~actual)]
    finite = bool(torch.isfinite(logits).all())
    return Measured(
        loss=binary_cross_entropy_with_logits(logits, labels).item() if finite else math.nan,
        accuracy=right.mean().item(),
        balanced_accuracy=sum(recalls) / 2,
        auc=_area(actual.numpy(), logits.numpy()) if finite else math.nan,
        one_class=bool(predicted.all() or not predicted.any()),
    )


def _area(actual: "np.ndarray[Any, Any]", logits: "np.ndarray[Any, Any]") -> float:
    """scikit-learn's `roc_auc_score` for two classes, without its slow checks; NaN for one class."""
    from sklearn.metrics import auc, roc_curve

    if actual.all() or not actual.any():
        return math.nan
    false_positives, true_positives, _ = roc_curve(actual, logits)
    return float(auc(false_positives, true_positives))


def is_collapsed(measured: Measured, negatives: int, positives: int) -> bool:
    """Has a model learnt nothing: one class for every image, and neither loss nor ranking better than chance?

    The loss is not below that of always predicting the positive share; the area is one that chance reaches, which even
    a model that learns slowly soon exceeds.
    """
    return (
        measured.one_class
        and measured.loss >= constant_loss(positives / (negatives + positives))
        and measured.auc <= chance_area(negatives, positives)
    )


def chance_area(negatives: int, positives: int) -> float:
    """The area under the ROC curve that chance reaches: 0.5 and three standard errors (Mann and Whitney 1947)."""
    return 0.5 + 3 * math.sqrt((negatives + positives + 1) / (12 * negatives * positives))


def constant_loss(positive_share: float) -> float:
    """Cross-entropy in nats of always predicting the positive share: what a model without features can reach."""
    p = positive_share
    return -p * math.log(p) - (1 - p) * math.log(1 - p)
