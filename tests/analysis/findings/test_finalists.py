"""Is the winner really better? Paired tests against textbooks, simulations, and counts made by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.findings.excess import Chosen
from analysis.findings.finalists import Finalist, Finalists, compare_finalists
from analysis.statistics import EXACT_BELOW, holm, mcnemar, wilson
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder


def pair(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    first = np.repeat([True, True, False, False], counts)
    return first, np.repeat([True, False, True, False], counts)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50))
def test_mcnemar_is_the_binomial_where_few_images_differ_and_else_chi_squared(
    only_first: int, only_second: int, both: int
) -> None:
    found = mcnemar(*pair(both, only_first, only_second, 3))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    differ = only_first + only_second
    if differ < EXACT_BELOW:
        expected = min(1.0, 2 * binom.cdf(min(only_first, only_second), differ, 0.5))
    else:
        expected = chi2.sf(max(abs(only_first - only_second) - 1, 0) ** 2 / differ, 1)
    if differ >= EXACT_BELOW and only_first == only_second:
        expected = chi2.sf(1 / differ, 1)  # the correction is not cut off at no difference
    assert found.p == pytest.approx(expected)


def test_mcnemar_gives_agrestis_example() -> None:
    """Approval ratings (Agresti 2002, table 10.1): 794, 150, 86, 570."""
    found = mcnemar(*pair(794, 150, 86, 570))
    assert found.p == pytest.approx(chi2.sf((150 - 86 - 1) ** 2 / 236, 1))
    assert 4e-5 < found.p < 4.2e-5


def test_holm_gives_what_is_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_finalists_are_compared_on_the_images_that_each_got_right(run: Path) -> None:
    found = compare_finalists(run, 3)
    folder = RunFolder(run)
    finished = [r for r in folder.trials() if r.status().status is Status.FINISHED]
    assert found.chosen.trials == sum(bool(r.rows()) for r in folder.trials())
    right = {}
    for each in found.each:
        (path,) = (folder.path / "trials" / each.trial_id).glob("best-*.parquet")
        table = pd.read_parquet(path)
        right[each.trial_id] = [
            (logit > 0) == (label == 1)
            for logit, label in zip(table["logit"], table["label"], strict=True)
        ]
        assert each.right == sum(right[each.trial_id])
        assert each.interval.low < each.accuracy <= each.interval.high or each == found.each[0]
    winner = found.each[0]
    assert winner.versus is None and winner.accuracy == max(each.accuracy for each in found.each)
    for other in found.each[1:]:
        assert other.versus is not None
        pairs = list(zip(right[winner.trial_id], right[other.trial_id], strict=True))
        assert other.versus.only_first == pairs.count((True, False))
        assert other.versus.only_second == pairs.count((False, True))
    ground, *comparisons, about, bias = found.said()
    assert ground == (
        f"the winner is {winner.trial_id}, chosen by single runs, as the best of {len(finished)} finished trials"
    )
    assert len(comparisons) == len(found.each) - 1
    assert all("trained models" in text or "trained model" in text for text in comparisons)
    assert "says nothing about settings" in about
    assert "too high by about" in bias


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((60, 15, 2, 23), "the trained model won beats the trained model other on these images by +13.00 points "
            "(15 images that only won gets right, 2 that only other does; p = {p:.2g} after Holm's correction)"),
        ((60, 2, 15, 23), "the trained model other beats the trained model won on these images by +13.00 points "
            "(2 images that only won gets right, 15 that only other does; p = {p:.2g} after Holm's correction), "
            "but won is the winner, because the run's metric and its replicates decide, not this accuracy"),
        ((60, 8, 2, 30), "the trained models won and other do not differ significantly on these images "
            "(+6.00 points, 8 images that only won gets right, 2 that only other does; p = {p:.2g} after Holm's "
            "correction)"),
    ],
)  # fmt: skip
def test_the_model_that_is_right_more_often_beats_the_other_whichever_is_the_winner(
    counts: tuple[int, int, int, int], said: str
) -> None:
    models, (_, only_won, only_other, _) = pair(*counts), counts
    p = 2 * binom.cdf(min(only_won, only_other), only_won + only_other, 0.5)
    versus = mcnemar(*models)
    each = tuple(
        Finalist(name, "", int(right.sum()), right.mean(), wilson(int(right.sum()), 100), *against)
        for name, right, against in zip(
            ("won", "other"), models, [(None, None), (versus, versus.p)], strict=True
        )
    )
    ground, compared, *_ = Finalists(
        100, each, "chosen by replicates", Chosen(Metric.VAL_AUC, None, 2, 0, 0, 0, 0)
    ).said()
    assert ground == "the winner is won, chosen by replicates"
    assert compared.replace("\u202f", " ") == said.format(p=p)


def test_the_command_compares_and_leaves_the_test_set_closed(run: Path) -> None:
    done = CliRunner().invoke(app, ["select", str(run), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert facts["finalists"]["each"][0]["versus"] is None
    assert facts["replication"]["each"] == []
    assert not RunFolder(run).test.exists()


def test_one_finished_trial_can_not_be_compared(run: Path) -> None:
    folder = RunFolder(run)
    finished = [r for r in folder.trials() if r.status().status is Status.FINISHED]
    for record in finished[1:]:
        (record.folder / "status.json").unlink()
    with pytest.raises(RequestError, match=r"needs two finished trials, but .* has 1"):
        compare_finalists(run, 5)
