"""The metric that decides, held against scikit-learn."""

import math
import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score

from trainable.metric import (
    Measured,
    Metric,
    chance_area,
    constant_loss,
    is_collapsed,
    measure,
)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits, ties among them, and labels of both classes."""
    n = draw(st.integers(2, 30))
    values = st.sampled_from([-1.0, 0.0, 1.0]) | st.floats(-15, 15, width=32).filter(
        lambda value: value == 0 or abs(value) > 1e-6
    )
    logits = draw(hnp.arrays(np.float32, n, elements=values))
    labels = draw(hnp.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])))
    labels[:2] = 0, 1
    return logits, labels


@given(predictions())
def test_every_metric_is_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = case
    measured = measure(torch.tensor(logits), torch.tensor(labels))
    chance = expit(logits.astype(float))
    predicted = chance > 0.5
    assert measured.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert measured.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert measured.auc == roc_auc_score(labels, logits)
    assert measured.loss == pytest.approx(log_loss(labels, chance), rel=1e-6)
    assert measured.one_class == (len(set(predicted)) == 1)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_area_and_raises_nothing(label: float) -> None:
    assert math.isnan(measure(torch.tensor([0.5, -2.0]), torch.full((2,), label)).auc)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_makes_the_loss_nan_and_raises_nothing(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = measure(torch.tensor([0.5, bad, -2.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert math.isnan(measured.loss)
    assert 0 <= measured.accuracy <= 1


def test_huge_but_finite_logits_are_measured() -> None:
    measured = measure(torch.tensor([3e38, -3e38]), torch.tensor([0.0, 1.0]))
    assert measured.loss == pytest.approx(3e38)
    assert measured.auc == 0


@given(st.sampled_from(Metric), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_score_is_higher_exactly_when_the_value_is_better(
    metric: Metric, one: float, other: float
) -> None:
    better = one < other if metric == "val_loss" else one > other
    assert (metric.score(one) > metric.score(other)) == better
    assert metric.score(metric.score(one)) == one


@given(st.integers(1, 99), st.floats(0.01, 0.99))
def test_no_constant_answer_beats_the_constant_loss(positives: int, answer: float) -> None:
    labels = np.arange(100) < positives
    floor = constant_loss(positives / 100)
    assert floor == pytest.approx(log_loss(labels, np.full(100, positives / 100)))
    assert log_loss(labels, np.full(100, answer)) >= floor - 1e-12


@pytest.mark.parametrize(
    ("one_class", "loss", "auc", "collapsed"),
    [
        (True, 0.70, 0.50, True),
        (False, 0.70, 0.50, False),
        (True, 0.60, 0.50, False),  # knows more than the share
        (True, 0.70, 0.95, False),  # learns slowly: the order is right, the threshold is not yet
    ],
)
def test_a_collapse_is_one_class_without_any_sign_of_learning(
    one_class: bool, loss: float, auc: float, collapsed: bool
) -> None:
    measured = Measured(loss, 0.575, 0.5, auc, one_class)
    assert is_collapsed(measured, negatives=115, positives=85) == collapsed


def test_the_area_that_chance_may_reach_is_three_of_its_own_standard_errors() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 200))
    ranks = draws.argsort(axis=1).argsort(axis=1)[:, :85].sum(axis=1)
    areas = (ranks - 85 * 84 / 2) / (115 * 85)
    limit = 0.5 + 3 * areas.std()
    for auc, collapsed in ((limit - 0.01, True), (limit + 0.01, False)):
        assert is_collapsed(Measured(0.7, 0.575, 0.5, auc, True), 115, 85) == collapsed


@pytest.mark.parametrize(("negatives", "positives"), [(1, 1), (2, 1), (3, 4), (7, 2)])
def test_what_chance_may_reach_is_exact_for_few_images(negatives: int, positives: int) -> None:
    """By all orders of the images, each as likely as any other: the share of pairs whose positive one is last."""
    images = negatives + positives
    areas = [
        sum(place - before for before, place in enumerate(places)) / (negatives * positives)
        for places in combinations(range(images), positives)
    ]
    assert np.mean(areas) == pytest.approx(0.5)
    assert chance_area(negatives, positives) == pytest.approx(0.5 + 3 * np.std(areas))


def test_who_comes_just_as_far_as_chance_and_a_constant_answer_has_collapsed() -> None:
    loss, area = constant_loss(40 / 100), chance_area(60, 40)
    assert is_collapsed(Measured(loss, 0.6, 0.5, area, True), 60, 40)
    for better in (
        Measured(loss - 1e-9, 0.6, 0.5, area, True),
        Measured(loss, 0.6, 0.5, area + 1e-9, True),
    ):
        assert not is_collapsed(better, 60, 40)


def test_a_logit_of_zero_is_no_sign_of_the_positive_class() -> None:
    """sigmoid(0) is 0.5, and not above it."""
    measured = measure(torch.tensor([0.0, 0.0, 1e-4]), torch.tensor([0.0, 1.0, 1.0]))
    assert measured.accuracy == pytest.approx(2 / 3)
    assert measured.balanced_accuracy == pytest.approx(3 / 4)
    assert not measured.one_class
