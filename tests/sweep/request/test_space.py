"""The search space: what a section means, which points lie in it, how a number in [0, 1) becomes one."""

import math
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.request.config import check_config
from sweep.request.space import (
    Choice,
    Point,
    Range,
    SearchSpace,
    SettingError,
    Value,
    parse_space,
)
from trainable.config import TrialConfig
from trainable.errors import RequestError

UNIT = st.floats(0, 1, exclude_max=True)
GRID = (np.arange(6_000) + 0.5) / 6_000


def number(value: Value) -> float:
    """Of a range, which has nothing else."""
    assert isinstance(value, int | float)
    return value


def space_of(**trial: Any) -> SearchSpace:
    return parse_space({"strategy": "head"} | trial)


def domain_of(name: str, given: Any) -> Choice | Range:
    (dimension,) = space_of(**{name: given}).dimensions
    return dimension.domain


# ---------------------------------------------------------------- values by a number in [0, 1)


@given(st.integers(1, 7), UNIT)
def test_a_choice_gives_each_value_an_equal_part_of_the_unit(count: int, unit: float) -> None:
    value = Choice(tuple(range(count))).at(unit)
    assert isinstance(value, int) and 0 <= value < count
    assert value / count <= unit + 1e-12 and unit < (value + 1) / count + 1e-12


def test_a_uniform_range_is_even_in_its_numbers_and_a_logarithmic_one_in_their_magnitude() -> None:
    even, magnitudes = Range("uniform", 0.2, 1.0), Range("loguniform", 1e-5, 1e-1)
    assert [even.at(unit) for unit in (0, 0.25, 0.5)] == pytest.approx([0.2, 0.4, 0.6])
    assert [magnitudes.at(unit) for unit in (0, 0.25, 0.5)] == pytest.approx([1e-5, 1e-4, 1e-3])


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"int": [3, 6]}, [3, 4, 5, 6]),
        ({"int": [1, 2]}, [1, 2]),
    ],
)
def test_whole_numbers_are_those_between_both_ends(
    given: dict[str, Any], values: list[int]
) -> None:
    domain = domain_of("batch_size", given)
    assert isinstance(domain, Range) and domain.values() == values
    shares = Counter(domain.at(unit) for unit in GRID)
    assert sorted(shares, key=number) == values
    assert max(shares.values()) - min(shares.values()) <= 1


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ([0.0, 0.6, 0.2], [0.0, 0.2, 0.4, 0.6]),
        ([0.1, 0.7, 0.3], [0.1, 0.4, 0.7]),
        ([0.1, 0.6, 0.2], [0.1, 0.3, 0.5]),
        ([0.1, 0.3, 0.2], [0.1, 0.3]),
        ([0.0, 0.9, 0.1], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
    ],
)
def test_steps_go_from_the_lower_end_as_far_as_they_fit_and_are_written_as_people_do(
    given: list[float], values: list[float]
) -> None:
    domain = domain_of("dropout", {"quniform": given})
    assert isinstance(domain, Range) and domain.values() == values
    shares = Counter(domain.at(unit) for unit in GRID)
    assert sorted(shares, key=number) == values
    assert max(shares.values()) - min(shares.values()) <= 1
    assert all(domain.holds(value) for value in values)
    assert not domain.holds(values[0] + 0.05) and not domain.holds(values[-1] + given[2])


def test_whole_numbers_of_a_logarithmic_range_have_the_shares_that_rounding_gives_them() -> None:
    """Each k stands for what lies from k - 1/2 to k + 1/2, both ends included."""
    domain = domain_of("batch_size", {"logint": [2, 9]})
    shares = Counter(domain.at(unit) for unit in GRID)
    whole = math.log(9.5 / 1.5)
    assert sorted(shares, key=number) == list(range(2, 10))
    for k, count in shares.items():
        assert isinstance(k, int)
        assert count / len(GRID) == pytest.approx(math.log((k + 0.5) / (k - 0.5)) / whole, abs=1e-3)


@pytest.mark.parametrize(
    "domain",
    [
        Choice((1, 2, 3)),
        Range("uniform", 0.1, 0.7),
        Range("loguniform", 1e-5, 3e-2),
        Range("int", 1, 3),
        Range("logint", 1, 3),
        Range("quniform", 0.1, 0.5, 0.2),
    ],
    ids=str,
)
def test_a_number_rounded_up_to_one_is_the_upper_end(domain: Choice | Range) -> None:
    assert domain.at(1.0) == (3 if isinstance(domain, Choice) else pytest.approx(domain.high))
    assert domain.holds(domain.at(1.0)) and domain.holds(domain.at(0.0))


@pytest.mark.parametrize("kind", ["int", "logint", "uniform", "loguniform"])
def test_a_range_holds_numbers_between_its_ends_and_no_truths_or_words(kind: Any) -> None:
    domain = Range(kind, 1, 4)
    held: list[Value] = [1, 2, 4, 4.0]
    others: list[Value] = [0, 0.999, 5, 4.001, True, "2", None]
    assert all(map(domain.holds, held)) and not any(map(domain.holds, others))
    assert domain.holds(2.5) == (kind in ("uniform", "loguniform"))


def test_a_choice_holds_its_values() -> None:
    domain = Choice(("adam", 0.5, None))
    held: tuple[Value, ...] = ("adam", 0.5, None)
    others: tuple[Value, ...] = ("sgd", 0.25, "0.5")
    assert all(map(domain.holds, held))
    assert not any(map(domain.holds, others))


# ---------------------------------------------------------------- points

NESTED: dict[str, Any] = {
    "momentum": {"when": {"optimizer": ["sgd", "adamw"]}, "choice": [0.8, 0.9]},
    "weight_decay": {"when": {"momentum": 0.9, "head": "linear"}, "choice": [0.0, 0.1, 0.2]},
    "optimizer": ["adam", "sgd"],
    "head": "linear",
}
"""Dimensions that stand before those that their conditions name."""


def by_hand() -> list[Point]:
    """The points of NESTED."""
    deep: list[Point] = [
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": decay} for decay in (0.0, 0.1, 0.2)
    ]
    return [{"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.8}, *deep]


def test_a_condition_holds_where_its_parent_is_searched_and_has_one_of_the_values() -> None:
    nested = space_of(**NESTED | {"momentum": NESTED["momentum"] | {"when": {"optimizer": "sgd"}}})
    names = [dimension.name for dimension in nested.dimensions]
    assert names == ["optimizer", "momentum", "weight_decay"]
    assert nested.points() == by_hand()
    assert nested.combinations == 2 * 2 * 3
    expected = Counter(str(point) for point in by_hand())
    cells = [(np.arange(n) + 0.5) / n for n in (2, 2, 3)]
    drawn = {str(nested.at(units)) for units in product(*cells)}
    assert drawn == set(expected)


def test_values_that_are_given_stand_and_decide_what_is_searched_besides() -> None:
    nested = space_of(**NESTED | {"momentum": NESTED["momentum"] | {"when": {"optimizer": "sgd"}}})
    assert nested.at([0, 0, 0], {"optimizer": "sgd"}) == {"optimizer": "sgd", "momentum": 0.8}
    assert nested.at([0.9, 0, 0], {"optimizer": "adam"}) == {"optimizer": "adam"}


@pytest.mark.parametrize(
    ("trial", "finite"),
    [
        ({"lr": [1e-3, 1e-2]}, True),
        ({"batch_size": {"int": [1, 3]}}, True),
        ({"batch_size": {"logint": [1, 3]}, "lr": [0.1, 0.2]}, True),
        ({"dropout": {"quniform": [0, 0.5, 0.1]}}, True),
        ({"lr": {"uniform": [0.1, 0.2]}}, False),
        ({"lr": {"loguniform": [0.1, 0.2]}, "batch_size": [1, 2]}, False),
        ({}, True),
    ],
)
def test_a_space_is_finite_where_each_setting_has_so_many_values(
    trial: dict[str, Any], finite: bool
) -> None:
    assert space_of(**trial).is_finite == finite


def test_points_that_give_the_same_trial_are_one() -> None:
    """A backbone's rate does nothing where the head alone trains."""
    space = space_of(strategy=["head", "block5"], backbone_lr_ratio=[0.1, 1.0])
    assert space.combinations == 4
    assert space.points() == [
        {"strategy": "head", "backbone_lr_ratio": 0.1},
        {"strategy": "block5", "backbone_lr_ratio": 0.1},
        {"strategy": "block5", "backbone_lr_ratio": 1.0},
    ]


CHECKED = {
    "optimizer": ["adam", "sgd", "adamw"],
    "momentum": {"when": {"optimizer": "sgd"}, "uniform": [0.8, 0.9]},
    "dropout": {"when": {"optimizer": ["sgd", "adamw"], "head": "512"}, "choice": [0.1, 0.2]},
    "head": "512",
}


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ({}, {}),
        ({"head": "512", "optimizer": "adam"}, {"optimizer": "adam"}),
        ({"momentum": 0.85}, {"momentum": 0.85}),
        ({"momentum": 0.9, "optimizer": "sgd"}, {"momentum": 0.9, "optimizer": "sgd"}),
        ({"dropout": 0.2}, {"dropout": 0.2}),
    ],
)
def test_a_point_that_may_be_partial_is_taken_without_what_is_fixed(
    point: Point, inside: Point
) -> None:
    assert space_of(**CHECKED).check(point) == inside


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ({"head": "mlp"}, "head is fixed at '512', but the point has 'mlp'"),
        ({"momentun": 0.9}, r"momentun is not searched \(did you mean momentum\?\)"),
        ({"lr": 0.1}, "lr is not searched"),
        ({"momentum": 0.7}, "0.7 of momentum is outside the space"),
        (
            {"momentum": 0.85, "optimizer": "adam"},
            "momentum is searched only when optimizer is sgd",
        ),
        (
            {"optimizer": "adam", "dropout": 0.1},
            "dropout is searched only when optimizer is sgd or adamw",
        ),
    ],
)
def test_a_point_outside_is_refused_by_what_does_not_hold(point: Point, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        space_of(**CHECKED).check(point)


def test_a_trial_has_a_place_where_the_space_has_all_that_acts_in_it() -> None:
    space = space_of(**CHECKED | {"lr": 1e-3})
    fixed = {"strategy": "head", "head": "512", "lr": 1e-3}
    adam = TrialConfig(**fixed, optimizer="adam")
    assert space.place(adam) == {"optimizer": "adam"}
    assert space.place(adam.model_copy(update={"momentum": 0.1})) == {"optimizer": "adam"}, "idle"
    assert space.place(adam.model_copy(update={"dropout": 0.1})) is None, "not idle"
    sgd = TrialConfig(**fixed, optimizer="sgd", momentum=0.85, dropout=0.1)
    assert space.place(sgd) == {"optimizer": "sgd", "momentum": 0.85, "dropout": 0.1}
    for changed in (
        {"momentum": 0.1},
        {"dropout": 0.3},
        {"lr": 2e-3},
        {"strategy": "full"},
        {"seed": 1},
    ):
        assert space.place(sgd.model_copy(update=changed)) is None


def test_a_point_matches_what_is_asked_of_some_of_its_settings() -> None:
    space, point = space_of(), Point(optimizer="sgd", lr=0.1)
    for partial in (Point(), Point(lr=0.1), Point(lr=0.1, optimizer="sgd")):
        assert space.matches(partial, point)
    for partial in (Point(lr=0.2), Point(momentum=0.9), Point(lr=0.1, optimizer="adam")):
        assert not space.matches(partial, point)


# ---------------------------------------------------------------- from the configuration


def test_a_value_is_fixed_as_the_trial_takes_it_and_the_rest_is_searched() -> None:
    space = space_of(
        lr=1, head=512, momentum={"value": 0.8}, dropout={"choice": 0.1}, optimizer=["adam"]
    )
    assert dict(space.fixed) == {"strategy": "head", "lr": 1.0, "head": "512"}
    assert {d.name: d.domain for d in space.dimensions} == {
        "momentum": Choice((0.8,)),
        "dropout": Choice((0.1,)),
        "optimizer": Choice(("adam",)),
    }


@pytest.mark.parametrize(
    ("name", "given", "domain"),
    [
        ("lr", {"uniform": [0.1, 0.2]}, Range("uniform", 0.1, 0.2)),
        ("lr", {"loguniform": [1e-9, 5]}, Range("loguniform", 1e-9, 5)),
        ("dropout", {"uniform": [0, 0.5]}, Range("uniform", 0, 0.5)),
        ("dropout", {"quniform": [0, 0.5, 0.5]}, Range("quniform", 0, 0.5, 0.5)),
        ("weight_decay", {"quniform": [1.5, 4.0, 2.5]}, Range("quniform", 1.5, 4.0, 2.5)),
        ("seed", {"int": [0, 1]}, Range("int", 0, 1)),
        ("seed", {"int": [2.0, 5]}, Range("int", 2.0, 5)),
        ("batch_size", {"logint": [1, 2]}, Range("logint", 1, 2)),
        ("views", {"int": [1, 9]}, Range("int", 1, 9)),
    ],
)
def test_a_range_is_read_as_it_is_written(name: str, given: dict[str, Any], domain: Range) -> None:
    assert domain_of(name, given) == domain


@pytest.mark.parametrize(
    ("trial", "setting", "told"),
    [
        ({"lrr": 1}, "lrr", "no setting 'lrr' (did you mean lr?); it has strategy, augmentation"),
        ({"lr": []}, "lr", "must have values, but it is empty"),
        ({"lr": [0.1, 0.2, 0.1]}, "lr", "not repeat a value, but 0.1 is repeated"),
        ({"lr": {}}, "lr", "and can have when, but it has nothing"),
        ({"lr": {"when": {}}}, "lr", "but it has when"),
        ({"lr": {"value": 1, "choice": [1, 2]}}, "lr", "but it has value, choice"),
        ({"lr": {"normal": [1, 2]}}, "lr", "uniform, loguniform, int, logint, quniform, choice, "),
        ({"lr": {"uniform": 3}}, "lr", "must be [low, high] with numbers, but it is 3"),
        ({"lr": {"uniform": [1, 2, 3]}}, "lr", "must be [low, high] with"),
        ({"lr": {"uniform": [1]}}, "lr", "must be [low, high] with"),
        ({"dropout": {"quniform": [0, 0.5]}}, "dropout", "must be [low, high, step] with"),
        ({"lr": {"uniform": ["a", 2]}}, "lr", "with numbers, but it is ['a', 2]"),
        ({"seed": {"int": [False, 2]}}, "seed", "with numbers"),
        ({"seed": {"int": [0, True]}}, "seed", "with numbers"),
        ({"lr": {"uniform": [1, math.inf]}}, "lr", "with numbers"),
        ({"lr": {"uniform": [math.nan, 1]}}, "lr", "with numbers"),
        ({"lr": {"uniform": [1, 1]}}, "lr", "go from low to high, but it is [1, 1]"),
        ({"lr": {"uniform": [2, 1]}}, "lr", "go from low to high"),
        ({"weight_decay": {"loguniform": [0, 1]}}, "weight_decay", "must begin above 0"),
        ({"seed": {"logint": [0, 3]}}, "seed", "must begin above 0"),
        ({"batch_size": {"int": [1, 2.5]}}, "batch_size", "must have whole numbers"),
        ({"batch_size": {"logint": [1.5, 2]}}, "batch_size", "must have whole numbers"),
        ({"dropout": {"quniform": [0, 0.5, 0]}}, "dropout", "step of trial.dropout must fit"),
        ({"dropout": {"quniform": [0.1, 0.5, 0.45]}}, "dropout", "must fit between low and high"),
        (
            {"optimizer": {"uniform": [1, 2]}},
            "optimizer",
            "not a number: it takes a value or a list",
        ),
        ({"dropout": {"uniform": [0, 1]}}, "dropout", "must be less than 1, but it is 1"),
        (
            {"dropout": {"uniform": [-1, 0.5]}},
            "dropout",
            "must be at least 0, but it is -1",
        ),
        ({"lr": {"when": 3, "value": 1}}, "lr", "must name settings and their values, but it is 3"),
        (
            {"lr": {"when": {"optimiser": "sgd"}, "value": 1}, "optimizer": "sgd"},
            "lr",
            "but 'optimiser' is not one (did you mean optimizer?)",
        ),
        (
            {"lr": {"when": {"optimizer": ["sgd", "adamw"]}, "value": 1}, "optimizer": "sgd"},
            "lr",
            "when of trial.lr can never hold: optimizer is never 'adamw'",
        ),
        (
            {"lr": {"when": {"momentum": 0.5}, "value": 1}, "momentum": [0.1, 0.2]},
            "lr",
            "momentum is never 0.5",
        ),
        (
            {
                "lr": {"when": {"momentum": 0.1}, "value": 1},
                "momentum": {"when": {"lr": 1}, "value": 0.1},
                "seed": [1, 2],
            },
            "lr",
            "when of trial.lr forms a cycle: lr → momentum",
        ),
        (
            {"optimizer": "sdg"},
            "optimizer",
            "must be one of adam, adamw, sgd, but it is 'sdg' (did you mean sgd?)",
        ),
        ({"optimizer": True}, "optimizer", "must be one of adam, adamw, sgd, but it is true"),
        ({"head": True}, "head", "must be text, but it is true, which YAML does not read as text"),
        ({"head": None}, "head", "must be text, but it is empty"),
        ({"head": "0-5"}, "head", "trial.head must be mlp, pretrained, linear, or hidden sizes"),
        ({"batch_size": 0}, "batch_size", "must be at least 1, but it is 0"),
    ],
    ids=lambda case: str(case)[:60],
)
def test_what_can_not_be_searched_is_refused_with_its_setting_and_what_must_hold(
    trial: dict[str, Any], setting: str, told: str
) -> None:
    with pytest.raises(SettingError) as caught:
        space_of(**trial)
    assert told in str(caught.value)
    assert caught.value.name == setting


def test_a_strategy_must_be_said() -> None:
    with pytest.raises(SettingError, match="which strategy to train") as caught:
        parse_space({"lr": 0.1})
    assert caught.value.name == "strategy"


def test_a_grid_of_more_than_a_hundred_thousand_points_is_taken_for_a_mistake() -> None:
    def grid(rates: int) -> dict[str, Any]:
        trial = {"strategy": "head", "lr": [n + 1 for n in range(rates)], "seed": list(range(1000))}
        data = {"images": "faces", "target": "Smiling"}
        return {"name": "x", "data": data, "trial": trial, "search": {"method": "grid"}}

    assert check_config(grid(100), {}, "test").space.combinations == 100_000
    with pytest.raises(RequestError, match="at most 100,000 points, but this one has 101,000"):
        check_config(grid(101), {}, "test")
