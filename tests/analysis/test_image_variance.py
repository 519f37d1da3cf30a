"""The error of a comparison, by training again and by other images, against formulas and a known truth."""

import numpy as np
import pytest
from scipy import stats

from analysis.image_variance import jointly, uncertain


def groups(first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a difference of two means, and a column for each group."""
    weights = np.r_[np.full(first, 1 / first), np.full(second, -1 / second)]
    design = np.repeat(np.eye(2), [first, second], axis=0)
    return weights, design


def test_without_images_it_is_students_t_test() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(0.91, 0.01, 5), draw.normal(0.90, 0.01, 7)
    found = uncertain(*groups(5, 7), np.r_[first, second][:, None])
    witness = stats.ttest_ind(first, second)
    assert found.p == pytest.approx(witness.pvalue)
    assert found.interval() == pytest.approx(witness.confidence_interval(0.95))
    assert found.degrees == pytest.approx(10)


def test_trained_twice_without_any_difference_it_is_the_paired_test_over_images() -> None:
    """Trials of one setting that agree in every image leave nothing but images to chance."""
    draw = np.random.default_rng(1)
    one, other = draw.random(400) < 0.9, draw.random(400) < 0.8
    found = uncertain(*groups(2, 2), np.array([one, one, other, other], float))
    witness = stats.ttest_rel(one.astype(float), other.astype(float))
    assert found.p == pytest.approx(witness.pvalue)
    assert found.degrees == pytest.approx(399)


def test_several_contrasts_without_images_are_fishers_analysis_of_variance() -> None:
    draw = np.random.default_rng(2)
    values = draw.normal(0, 1, 15)
    design = np.repeat(np.eye(3), 5, axis=0)
    weights = np.array([design[:, 0] - design[:, 1], design[:, 0] - design[:, 2]]) / 5
    found = jointly(weights, design, values[:, None])
    assert found.p == pytest.approx(stats.f_oneway(*values.reshape(3, 5)).pvalue)


def crossed(draw: np.random.Generator, trials: int, images: int) -> np.ndarray:
    """Two settings with nothing between them but seeds and images: image, image in a setting, trial, rest."""
    image, in_setting = draw.normal(0, 0.3, images), draw.normal(0, 0.15, (2, images))
    trial = draw.normal(0, 0.0045, (2 * trials, 1))
    rest = draw.normal(0, 0.2, (2 * trials, images))
    values: np.ndarray = image + np.repeat(in_setting, trials, axis=0) + trial + rest
    return values


def test_the_error_is_that_of_new_seeds_and_new_images() -> None:
    """Over 400 draws of both: the interval holds 0 as often as said, which that of trials alone does not."""
    draw = np.random.default_rng(3)
    held = held_by_trials = 0
    estimates, errors = [], []
    for _ in range(400):
        values = crossed(draw, 6, 200)
        found = uncertain(*groups(6, 6), values)
        alone = uncertain(*groups(6, 6), values.mean(axis=1, keepdims=True))
        held += found.p > 0.05
        held_by_trials += alone.p > 0.05
        estimates.append(found.estimate)
        errors.append(found.error)
    assert 0.93 < held / 400 < 0.98
    assert held_by_trials / 400 < 0.85
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.1)


def test_what_could_have_been_seen_is_seen_in_four_of_five_runs() -> None:
    draw = np.random.default_rng(4)
    weights, design = groups(6, 6)
    visible = float(
        np.mean([uncertain(weights, design, crossed(draw, 6, 200)).visible() for _ in range(50)])
    )
    lifted = np.repeat([[visible], [0]], 6, axis=0)
    seen = [uncertain(weights, design, crossed(draw, 6, 200) + lifted).p < 0.05 for _ in range(400)]
    assert 0.74 < np.mean(seen) < 0.87


def test_no_spread_at_all_is_said_and_does_not_divide_by_nothing() -> None:
    weights, design = groups(2, 2)
    same = np.ones((4, 3))
    assert uncertain(weights, design, same).p == 1
    same[:2] = 0.5
    assert uncertain(weights, design, same).p == 0


def test_as_many_parameters_as_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="more trials than parameters"):
        uncertain(*groups(1, 1), np.ones((2, 1)))


def test_what_weights_leave_of_freedom_is_that_of_a_quadratic_form() -> None:
    """Of e'Ae, by the whole matrices (Satterthwaite)."""
    draw = np.random.default_rng(5)
    weights, design = groups(5, 7)
    stands_for, values = draw.uniform(1, 5, 12), draw.normal(0.9, 0.01, 12)
    scale = np.diag(stands_for)
    estimator = np.linalg.inv(design.T @ scale @ design) @ design.T @ scale
    remover = np.eye(12) - design @ estimator
    quadratic = remover.T @ scale @ remover
    weights = estimator[0] - estimator[1]
    found = uncertain(weights, design, values[:, None], stands_for)
    variance = values @ quadratic @ values / np.trace(quadratic)
    assert found.error == pytest.approx((variance * (weights @ weights)) ** 0.5)
    assert found.degrees == pytest.approx(
        np.trace(quadratic) ** 2 / np.trace(quadratic @ quadratic)
    )
    first, second = (slice(0, 5), slice(5, 12))
    assert found.estimate == pytest.approx(
        np.average(values[first], weights=stands_for[first])
        - np.average(values[second], weights=stands_for[second])
    )


def test_six_drawn_from_those_that_were_stopped_for_their_values_speak_for_all_of_them() -> None:
    """Two equal settings of 40; of one the lower three quarters are stopped, of the other the lower quarter."""
    draw = np.random.default_rng(6)
    held = held_unweighted = 0
    for _ in range(600):
        values, stands_for = [], []
        for stopped in (30, 10):
            reached = np.sort(draw.normal(0, 1, 40))
            values.append(
                np.r_[draw.choice(reached[:stopped], 6, replace=False), reached[stopped:]]
            )
            stands_for.append(np.r_[np.full(6, stopped / 6), np.ones(40 - stopped)])
        weight = np.concatenate(
            [w / w.sum() * sign for w, sign in zip(stands_for, (1, -1), strict=True)]
        )
        plain, design = groups(*map(len, values))
        column = np.concatenate(values)[:, None]
        held += uncertain(weight, design, column, np.concatenate(stands_for)).p > 0.05
        held_unweighted += uncertain(plain, design, column).p > 0.05
    assert 0.94 < held / 600 < 0.995
    assert held_unweighted / 600 < 0.8
