"""Is what is said of the winner true? Simulations with a known truth (benchmarks/winner.py has more of them)."""

import pytest

from benchmarks.winner import best_of_searches, equal, replicated


@pytest.mark.slow
def test_the_best_of_equal_trials_is_corrected_by_what_it_is_too_high() -> None:
    found = best_of_searches("equal", equal(24), 200, 120)
    assert 2.2 < found.said < 3.3
    assert abs(found.said - found.real) < 0.5
    assert found.held >= 0.93 > 0.85 > found.held_by_wilson


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_of_equal_settings_hardly_any_is_called_better(seeds: int) -> None:
    found = replicated("equal", [0.92] * 3, seeds, 200, 150)
    assert found.claimed <= 0.07 and found.meaningful <= 0.07
    assert found.held >= 0.92
    assert found.claimed_by_trials_alone > 0.08
