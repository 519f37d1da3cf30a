"""What each image adds to a metric: its mean is the metric, its error that of other images."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from analysis.findings.per_image import shares_of_images
from trainable.metric import Metric

LABELS = np.repeat([0, 1], [140, 60])


def scored(draw: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    logits: np.ndarray = np.round(draw.normal(1.5 * labels - 0.7, 1), 1)  # with ties
    return logits


def witness(metric: Metric, labels: np.ndarray, logits: np.ndarray) -> float:
    probability = 1 / (1 + np.exp(-logits))
    found: dict[Metric, Callable[[], float]] = {
        Metric.VAL_ACCURACY: lambda: ((logits > 0) == labels).mean(),
        Metric.VAL_BALANCED_ACCURACY: lambda: balanced_accuracy_score(labels, logits > 0),
        Metric.VAL_AUC: lambda: roc_auc_score(labels, logits),
        Metric.VAL_LOSS: lambda: log_loss(labels, probability),
    }
    return found[metric]()


@pytest.mark.parametrize("metric", Metric)
def test_the_mean_over_images_is_the_metric(metric: Metric) -> None:
    logits = scored(np.random.default_rng(0), LABELS)
    found = shares_of_images(metric, LABELS, logits)
    assert found is not None and found.mean() == pytest.approx(witness(metric, LABELS, logits))


@pytest.mark.parametrize("metric", [Metric.VAL_BALANCED_ACCURACY, Metric.VAL_AUC])
def test_their_spread_is_the_error_of_the_metric_over_other_images(metric: Metric) -> None:
    draw = np.random.default_rng(1)
    each = [scored(draw, LABELS) for _ in range(250)]
    values = np.std([witness(metric, LABELS, logits) for logits in each])
    found = [shares_of_images(metric, LABELS, logits) for logits in each[:50]]
    errors = [shares.std() / len(LABELS) ** 0.5 for shares in found if shares is not None]
    assert np.mean(errors) == pytest.approx(values, rel=0.15)


def test_a_class_without_an_image_has_no_area() -> None:
    assert shares_of_images(Metric.VAL_AUC, np.ones(5, int), np.ones(5)) is None
