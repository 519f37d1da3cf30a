"""What mattered is found where it was planted, and nowhere else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.effects import effects_of, interaction_of
from sweep.config import check_config
from sweep.prepare import prepare
from sweep.proposals import Proposals
from sweep.run_folder import open_session
from sweep.study import recorded
from tests.conftest import Faces, sweep_facts
from tests.made_runs import create_run
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.record import RunFolder, TrialRecord
from trainable.rows import Row, Status

EPOCHS = 3
SPACE = {
    "strategy": ["head", "block5"],
    "augmentation": ["none", "flip"],
    "lr": {"loguniform": [1e-5, 1e-2]},
    "epochs": EPOCHS,
}


def value(settings: TrialConfig, noise: float) -> float:
    """Block 5 is worth ten points and each decade of the rate two; augmentation nothing."""
    best = 0.7 + 0.1 * (settings.strategy == "block5") + 0.02 * (np.log10(settings.lr) + 5)
    return float(best + noise)


@pytest.fixture
def run(faces: Faces, tmp_path: Path, own_store: Path) -> Path:
    """Forty random trials, each better in its last epoch than before."""
    facts = sweep_facts(faces, tmp_path, SPACE, search={"method": "random", "trials": 40})
    config = check_config(facts, {}, "test")
    run = create_run(config, prepare(config), [])
    open_session(run, session := 1)
    draw = np.random.default_rng(0)
    while proposed := Proposals(config).next([recorded(r, config.metric) for r in run.trials()]):
        number, settings = proposed
        record = TrialRecord.create(run, settings, number, session)
        final = value(settings, draw.normal(0, 0.005))
        for epoch in range(1, EPOCHS + 1):
            reached = final - 0.05 * (EPOCHS - epoch)
            record.append(
                Row(
                    epoch,
                    0.5,
                    reached + 0.03 * epoch,
                    0.5,
                    reached,
                    reached,
                    0.8,
                    settings.lr,
                    1.0,
                    9.0,
                    0,
                    "",
                )
            )
        record.write_status(replace(record.status(), status=Status.FINISHED))
    return run.path


def test_what_matters_is_told_from_what_does_not(run: Path) -> None:
    found = effects_of(run)
    by_name = {effect.name: effect for effect in found.each}
    strategy, augmentation = by_name["strategy"], by_name["augmentation"]
    assert (strategy.first, strategy.second) == ("block5", "head")
    assert strategy.p_holm < 0.001
    assert strategy.versus.interval.low < 0.1 < strategy.versus.interval.high
    assert augmentation.p_holm > 0.05
    shares = found.importances
    assert shares["strategy"] > shares["lr"] > shares["augmentation"]
    assert sum(shares.values()) == pytest.approx(1)
    said = list(found.said())
    assert any(text.startswith("strategy block5 is better than head by") for text in said)
    assert any("augmentation" in text and "can't be told apart" in text for text in said)


def test_the_edge_and_the_range_to_try_next(run: Path) -> None:
    """The best rates are the highest."""
    (edge,) = effects_of(run).edges
    assert (edge.name, edge.low, edge.high) == ("lr", 1e-5, 1e-2)
    assert (edge.next_low, edge.next_high) == pytest.approx((10**-3.5, 10**-0.5))
    assert any("try 0.000316 to 0.316 next" in text for text in effects_of(run).said())


def test_curves_that_still_rise_and_the_gap_are_counted(run: Path) -> None:
    curves = effects_of(run).curves
    assert (curves.finished, curves.rising) == (40, 40)
    assert curves.gap_best == pytest.approx(0.09) and curves.gap_last == pytest.approx(0.09)
    assert any("--epochs" in text for text in effects_of(run).said())


def test_a_run_with_hardly_any_trial_says_hardly_anything(run: Path) -> None:
    for record in RunFolder(run).trials()[1:]:
        record.write_status(replace(record.status(), status=Status.FAILED))
        (record.folder / "epochs.jsonl").unlink()
    found = effects_of(run)
    assert found.importances == {} and found.each == ()
    found.to_json()


TEETH = {
    ("VC", 0.5): "4.2 11.5 7.3 5.8 6.4 10 11.2 11.2 5.2 7",
    ("VC", 1.0): "16.5 16.5 15.2 17.3 22.5 17.3 13.6 14.5 18.8 15.5",
    ("VC", 2.0): "23.6 18.5 33.9 25.5 26.4 32.5 26.7 21.5 23.3 29.5",
    ("OJ", 0.5): "15.2 21.5 17.6 9.7 14.5 10 8.2 9.4 16.5 9.7",
    ("OJ", 1.0): "19.7 23.3 23.6 26.4 20 25.2 25.8 21.2 14.5 27.3",
    ("OJ", 2.0): "25.5 26.4 22.4 24.5 24.8 30.9 26.4 27.3 29.4 23",
}
"""Bliss's guinea pigs (1952), as in every book: length of teeth by supplement and dose."""


def frame_of(strategies: Sequence[str], rates: Sequence[float], values: Sequence[float]) -> Any:
    return pd.DataFrame({"config/strategy": strategies, "config/lr": rates, "val_accuracy": values})


def test_strategy_with_rate_gives_the_textbooks_value() -> None:
    rows = [(*at, float(value)) for at, values in TEETH.items() for value in values.split()]
    found = interaction_of(frame_of(*zip(*rows, strict=True)), Metric.VAL_ACCURACY)
    assert found is not None and found.trials == 60
    assert found.p == pytest.approx(0.0218603, abs=1e-7)  # R's aov: F(2, 54) = 4.107
    assert found.best == {"OJ": 2.0, "VC": 2.0}


def test_an_interaction_is_seen_where_there_is_none_as_often_as_said() -> None:
    draw, alarms, runs = np.random.default_rng(0), 0, 600
    for _ in range(runs):
        strategies = draw.choice(["head", "block5"], 24).tolist()
        rates = 10 ** draw.uniform(-5, -2, 24)
        values = 0.9 - 0.02 * (np.log10(rates) + 4) ** 2 + draw.normal(0, 0.01, 24)
        found = interaction_of(frame_of(strategies, rates, values), Metric.VAL_ACCURACY)
        alarms += found is not None and found.p < 0.05
    assert 0.03 < alarms / runs < 0.07


def test_a_rate_that_suits_one_strategy_alone_is_named() -> None:
    draw = np.random.default_rng(4)
    strategies = ["head", "block5"] * 12
    rates = 10 ** draw.uniform(-5, -2, 24)
    best = np.array([-3, -4] * 12)
    values = 0.9 - 0.03 * (np.log10(rates) - best) ** 2 + draw.normal(0, 0.005, 24)
    found = interaction_of(frame_of(strategies, rates, values), Metric.VAL_ACCURACY)
    assert found is not None and found.p < 0.001
    assert found.best["block5"] < found.best["head"]


@pytest.mark.parametrize(
    ("strategies", "rates"), [(["head"] * 9, range(1, 10)), (["head", "block5"] * 4, [1] * 8)]
)
def test_what_does_not_vary_has_no_interaction(strategies: list[str], rates: list[float]) -> None:
    values = np.linspace(0.5, 0.9, len(strategies))
    assert interaction_of(frame_of(strategies, list(rates), values), Metric.VAL_ACCURACY) is None
