"""Which settings a search proposes: inside the space, never twice, the same again after a restart."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.request.config import Method, Sampler, SweepConfig, check_config
from sweep.request.space import SearchSpace, parse_space
from sweep.search.proposals import Proposals
from sweep.search.study import SAMPLERS, Recorded, build_study, sampler_for
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.rows import Status

MIXED: dict[str, object] = {
    "strategy": ["head", "block5"],
    "lr": {"loguniform": [1e-5, 1e-2]},
    "optimizer": ["adam", "sgd"],
    "momentum": {"when": {"optimizer": "sgd"}, "uniform": [0.8, 0.99]},
    "batch_size": {"logint": [8, 64]},
    "dropout": {"quniform": [0.0, 0.6, 0.2]},
    "head": "512-64",
}
SMALL: dict[str, object] = {
    "strategy": ["head", "block5"],
    "lr": [1e-4, 1e-3, 1e-2],
    "augmentation": ["none", "flip"],
}

METHODS = get_args(Method)
PROPOSING = tuple(method for method in METHODS if method != "grid")
"""A grid is listed."""


def slowly(methods: Sequence[str]) -> list[Any]:
    """The same for a parametrized test; a Gaussian process is fitted for each proposal, which takes seconds."""
    return [pytest.param(m, marks=pytest.mark.whole) if m == "gp" else m for m in methods]


def configure(trial: dict[str, object], **search: object) -> SweepConfig:
    facts = {
        "name": "x",
        "data": {"images": Path("faces"), "target": "Smiling"},
        "trial": trial,
        "search": {"method": "grid", **search},
    }
    return check_config(facts, {}, "test")


def run(
    config: SweepConfig, trials: list[Recorded] | None = None, most: int = 200
) -> list[Recorded]:
    """Propose until the search says that it is over; every trial finishes with a value that depends on its rate."""
    done = list(trials or [])
    for _ in range(most):
        proposed = Proposals(config).next(done)
        if proposed is None:
            break
        number, setting = proposed
        value = 1 - abs(np.log10(setting.lr) + 3) / 10
        done.append(Recorded(setting, number, Status.FINISHED, (value / 2, value)))
    return done


def test_every_method_of_optunas_has_a_sampler_of_its_own() -> None:
    """None falls through to another's."""
    kinds = [type(sampler_for(method, 0, 0)) for method in get_args(Sampler)]
    assert tuple(SAMPLERS) == get_args(Sampler)
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("method", slowly(PROPOSING))
def test_every_proposal_lies_in_the_space_and_none_comes_twice(method: str) -> None:
    config = configure(MIXED, method=method, trials=16)
    done = run(config)
    assert len({trial.trial_id for trial in done}) == 16
    for trial in done:
        setting = trial.settings
        assert 1e-5 <= setting.lr <= 1e-2
        assert 8 <= setting.batch_size <= 64
        assert min(abs(setting.dropout - x) for x in (0.0, 0.2, 0.4, 0.6)) < 1e-9
        assert setting.head == "512-64"
        assert (
            setting.momentum == 0.9
            if setting.optimizer == "adam"
            else 0.8 <= setting.momentum <= 0.99
        )
        assert config.space.place(setting) is not None


@pytest.mark.parametrize("method", slowly(METHODS))
def test_a_search_cut_anywhere_goes_on_as_if_it_had_not_been(method: str) -> None:
    trial = SMALL if method == "grid" else MIXED
    config = configure(trial, method=method, trials=12)
    whole = run(config)
    for cut in (0, 1, 5, 11):
        assert run(config, whole[:cut]) == whole


@pytest.mark.parametrize("method", [method for method in PROPOSING if method != "gp"])  # slow
def test_a_small_space_is_searched_whole_without_repeating(method: str) -> None:
    done = run(configure(SMALL, method=method, trials=30))
    assert len({trial.trial_id for trial in done}) == len(done) == 12


def test_a_grid_is_every_point_once_in_an_order_that_its_seed_shuffles() -> None:
    orders = [[trial.settings for trial in run(configure(SMALL, seed=seed))] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert {s.trial_id for s in orders[0]} == {s.trial_id for s in orders[2]}
    assert len(orders[0]) == 12


def test_a_grid_in_which_every_trial_runs_to_its_end_begins_with_the_longest() -> None:
    """So the short ones fill the slots at the end; with ASHA or a time limit the order stays as it was shuffled."""
    trial = {"strategy": ["head", "block5", "full"], "lr": [1e-4, 1e-3, 1e-2]}
    facts = {"asha": "off", "trial": trial}

    def strategies(**changed: object) -> list[str]:
        config = check_config(configure(trial).model_dump(mode="json") | facts | changed, {}, "t")
        return [trial.settings.strategy for trial in run(config)]

    assert strategies() == ["full"] * 3 + ["block5"] * 3 + ["head"] * 3
    limited = {"method": "grid", "time_limit": "1h"}
    first = {"method": "grid", "first": [{"strategy": "head", "lr": 1e-3}]}
    assert strategies(search=first) == ["head"] + ["full"] * 3 + ["block5"] * 3 + ["head"] * 2
    shuffled = [strategies(search=limited), strategies(asha={"grace_period": 1})]
    assert all(found != strategies() for found in shuffled) and shuffled[0] == shuffled[1]


def test_who_keeps_the_trials_by_id_is_told_the_same_next_setting() -> None:
    for method in METHODS:
        config = configure(SMALL if method == "grid" else MIXED, method=method, trials=9)
        done = run(config)[:7]
        by_id = {trial.trial_id: trial for trial in done}
        assert Proposals(config).numbered(7, by_id) == Proposals(config).next(done)


def test_a_grid_with_conditions_lists_each_trial_once() -> None:
    trial: dict[str, object] = {
        "strategy": "head",
        "optimizer": ["adam", "sgd"],
        "momentum": {"when": {"optimizer": "sgd"}, "choice": [0.8, 0.9]},
        "backbone_lr_ratio": [0.1, 1.0],  # does nothing where only the head trains
    }
    done = run(configure(trial))
    assert Counter(t.settings.optimizer for t in done) == {"sgd": 2, "adam": 1}


@pytest.mark.parametrize("method", METHODS)
def test_first_points_come_first_with_missing_values_filled_in(method: str) -> None:
    first = ({"strategy": "block5", "lr": 1e-3}, {"lr": 1e-4})
    done = run(configure(SMALL, method=method, trials=8, first=first))
    if method == "grid":
        assert all(t.settings.lr in (1e-3, 1e-4) for t in done[:2])
    else:
        assert (done[0].settings.strategy, done[0].settings.lr) == ("block5", 1e-3)
        assert done[1].settings.lr == 1e-4


def test_random_proposals_cover_their_range_evenly() -> None:
    config = configure(
        {"strategy": "head", "lr": {"loguniform": [1e-5, 1e-3]}}, method="random", trials=200
    )
    rates = sorted(np.log10(trial.settings.lr) for trial in run(config))
    assert (
        np.abs(np.array(rates) - np.linspace(-5, -3, 200)).max() < 0.25
    )  # Kolmogorov's bound at 1 %: 0.23


def test_qmc_proposals_are_scipys_scrambled_sobol_sequence() -> None:
    from scipy.stats import qmc

    config = configure(
        {"strategy": "head", "lr": {"uniform": [0.001, 1.001]}}, method="qmc", trials=8, seed=3
    )
    expected = qmc.Sobol(1, scramble=True, rng=3).random(8)[:, 0] + 0.001
    assert [trial.settings.lr for trial in run(config)] == pytest.approx(list(expected))


@pytest.mark.parametrize("method", SAMPLERS)
def test_a_sampler_learns_from_what_is_on_record(method: str) -> None:
    config = configure(
        {"strategy": "head", "lr": {"loguniform": [1e-6, 1.0]}}, method=method, trials=40
    )
    distances = [abs(np.log10(trial.settings.lr) + 3) for trial in run(config)]
    assert np.median(distances[20:]) < 0.6 * np.median(distances[:10])


# ---------------------------------------------------------------- what Optuna is told


def space_of(trial: dict[str, object]) -> SearchSpace:
    return parse_space(trial)


def told(status: Status, values: tuple[float, ...]) -> optuna.trial.FrozenTrial:
    setting = TrialConfig(strategy="head", lr=1e-3)
    study, outside = build_study(
        space_of({"strategy": "head", "lr": [1e-3, 1e-2]}),
        Metric.VAL_ACCURACY,
        [Recorded(setting, 7, status, values)],
    )
    assert outside == 0
    return study.trials[0]


@pytest.mark.parametrize(
    ("status", "values", "state"),
    [
        (Status.FINISHED, (0.5, 0.6), "COMPLETE"),
        (Status.DIVERGED, (0.5, 0.6), "COMPLETE"),
        (Status.COLLAPSED, (0.5, 0.6), "COMPLETE"),
        (Status.DIVERGED, (), "PRUNED"),
        (Status.PRUNED, (0.5, 0.6), "PRUNED"),
        (Status.FAILED, (0.5,), "FAIL"),
        (Status.RUNNING, (0.5,), "RUNNING"),
        (Status.PENDING, (), "RUNNING"),
        (Status.INTERRUPTED, (0.5,), "RUNNING"),
    ],
)
def test_optuna_is_told_the_truth(status: Status, values: tuple[float, ...], state: str) -> None:
    trial = told(status, values)
    assert trial.state.name == state
    if state == "COMPLETE":
        assert trial.value == 0.6
    if state == "PRUNED":
        assert trial.intermediate_values == dict(enumerate(values, start=1))
    assert trial.user_attrs["trial_id"] == TrialConfig(strategy="head", lr=1e-3).trial_id
    assert trial.user_attrs["number"] == 7


def test_a_trial_outside_the_present_space_stays_out_of_the_study_and_is_counted() -> None:
    trials = [
        Recorded(TrialConfig(strategy="head", lr=lr), number, Status.FINISHED, (0.5,))
        for number, lr in enumerate((1e-3, 0.5))
    ]
    study, outside = build_study(
        space_of({"strategy": "head", "lr": {"loguniform": [1e-4, 1e-2]}}),
        Metric.VAL_ACCURACY,
        trials,
    )
    assert (len(study.trials), outside) == (1, 1)


def test_the_study_has_the_direction_of_the_metric() -> None:
    space = space_of({"strategy": "head", "lr": [1e-3]})
    for metric in Metric:
        study, _ = build_study(space, metric, [])
        assert (study.direction.name == "MAXIMIZE") == metric.higher_is_better


# ---------------------------------------------------------------- the space itself


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6))
def test_a_point_drawn_from_the_space_lies_in_it(units: list[float]) -> None:
    space = space_of(MIXED)
    point = space.at(units)
    assert space.check(point) == point
    assert space.place(space.settings(point)) == point


def test_whole_numbers_are_drawn_with_both_ends() -> None:
    space = space_of({"strategy": "head", "batch_size": {"int": [3, 5]}})
    drawn = Counter(space.at([unit])["batch_size"] for unit in np.linspace(0, 0.9999, 300))
    assert set(drawn) == {3, 4, 5} and max(drawn.values()) - min(drawn.values()) <= 2
    log = space_of({"strategy": "head", "batch_size": {"logint": [1, 64]}})
    assert {log.at([0.0])["batch_size"], log.at([0.99999])["batch_size"]} == {1, 64}


def test_settings_are_frozen_data() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        space_of(SMALL).fixed = ()  # type: ignore[misc]


def test_a_space_too_large_to_list_is_drawn_from_until_something_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here a small one is said to be large, so that proposals repeat, and in the end nothing is new."""
    monkeypatch.setattr("sweep.search.proposals.LARGEST_GRID", 1)
    done = run(configure(SMALL, method="random", trials=30))
    assert len(done) == len({trial.trial_id for trial in done}) == 12


@pytest.mark.parametrize("method", sorted(set(get_args(Method)) - {"grid"}))
def test_where_nothing_is_searched_there_is_one_trial(method: str) -> None:
    (only,) = run(configure({"strategy": "full"}, method=method, trials=3))
    assert only.settings.strategy == "full"


@pytest.mark.parametrize("kind", ["int", "logint", "uniform", "loguniform"])
def test_ranges_of_each_kind_are_proposed_up_to_their_ends_and_no_further(kind: str) -> None:
    name, low, high = ("batch_size", 2, 4) if "int" in kind else ("weight_decay", 1e-4, 2e-4)
    config = configure({"strategy": "full", name: {kind: [low, high]}}, method="tpe", trials=60)
    found = {getattr(trial.settings, name) for trial in run(config)}
    if "int" in kind:
        assert found == {2, 3, 4}
    else:
        assert len(found) == 60 and low <= min(found) and max(found) <= high
