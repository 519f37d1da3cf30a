"""Which trials learned nothing: held against scores drawn at random and scikit-learn's own area."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from analysis.frames.learned import is_flat


@pytest.mark.parametrize(("positives", "negatives"), [(100, 100), (30, 170), (10, 600)])
def test_scores_without_an_order_are_flat_and_such_with_one_are_not(
    positives: int, negatives: int
) -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat([1, 0], [positives, negatives])
    scores = draw.normal(size=(60, len(labels)))
    flat = [is_flat(roc_auc_score(labels, each), positives, negatives) for each in scores]
    assert np.mean(flat) >= 0.95
    learned = [
        is_flat(roc_auc_score(labels, each + 3 * labels), positives, negatives) for each in scores
    ]
    assert not any(learned)


def test_an_order_that_is_turned_round_or_unknown_shows_nothing() -> None:
    assert is_flat(0.2, 100, 100) and is_flat(float("nan"), 100, 100)


def test_of_images_that_could_show_no_order_nothing_is_said() -> None:
    assert not is_flat(0.5, 5, 5) and is_flat(0.5, 8, 8) and not is_flat(1.0, 8, 8)
