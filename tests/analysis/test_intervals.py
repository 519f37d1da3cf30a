"""Nineteen of twenty intervals hold the truth: by exact sums where that can be done, else by simulation."""

import numpy as np
import pytest
from scipy.stats import binom

from analysis.statistics import mean_of, welch, wilson


@pytest.mark.parametrize("images", [200, 300, 3_000])
@pytest.mark.parametrize("truth", [0.58, 0.9, 0.95])
def test_wilsons_interval_by_every_count_that_can_come(images: int, truth: float) -> None:
    likely = [k for k in range(images + 1) if binom.pmf(k, images, truth) > 1e-9]
    ends = {k: wilson(k, images) for k in likely}
    held = sum(binom.pmf(k, images, truth) for k in likely if ends[k].low <= truth <= ends[k].high)
    assert 0.93 <= held <= 0.97


def test_students_interval_of_a_mean_of_five_runs() -> None:
    draw, held = np.random.default_rng(0), 0
    for _ in range(1_000):
        interval = mean_of(draw.normal(0.9, 0.01, (5, 1))).interval
        held += interval.low <= 0.9 <= interval.high
    assert 0.93 <= held / 1_000 <= 0.97


@pytest.mark.whole
@pytest.mark.parametrize(("runs", "spread"), [((5, 5), (0.01, 0.01)), ((12, 9), (0.01, 0.03))])
def test_welchs_interval_of_a_difference_also_where_spreads_differ(
    runs: tuple[int, int], spread: tuple[float, float]
) -> None:
    draw, held = np.random.default_rng(0), 0
    for _ in range(1_000):
        first, second = (
            draw.normal(mean, deviation, count).tolist()
            for mean, deviation, count in zip((0.92, 0.9), spread, runs, strict=True)
        )
        interval = welch(first, second).interval
        held += interval.low <= 0.02 <= interval.high
    assert 0.93 <= held / 1_000 <= 0.97
