"""The search space: lists, ranges and conditions; what a point must satisfy; all points of a grid."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from sweep.request.explain import explain
from trainable.config import TrialConfig
from trainable.errors import did_you_mean

Value = str | float | int | bool | None
Point = dict[str, Value]
"""Values of the searched settings that are active, by name."""
RangeKind = Literal["uniform", "loguniform", "int", "logint", "quniform"]
RANGES: Final[tuple[RangeKind, ...]] = get_args(RangeKind)
LARGEST_GRID: Final = 100_000  # points; a larger one is a mistake; assumed


class SettingError(ValueError):
    """A setting under `trial` is wrong: its name, and what must hold."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    def at(self, unit: float) -> Value:
        """The value at `unit` in [0, 1) of the choice."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def holds(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `step` apart for int (1) and quniform."""

    kind: RangeKind
    low: float
    high: float
    step: float | None = None

    @property
    def whole(self) -> bool:
        return self.kind in ("int", "logint")

    def at(self, unit: float) -> Value:
        """The value at `unit` in [0, 1) of the range, evenly in its own scale."""
        if self.kind == "uniform":
            return self.low + unit * (self.high - self.low)
        if self.kind == "loguniform":
            low, high = math.log(self.low), math.log(self.high)
            return min(max(math.exp(low + unit * (high - low)), self.low), self.high)
        if self.kind == "logint":
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return int(min(max(round(math.exp(low + unit * (high - low))), self.low), self.high))
        values = self.values()
        return values[min(int(unit * len(values)), len(values) - 1)]

    def values(self) -> list[Value]:
        """Every value of a stepped range."""
        if self.whole:
            return list(range(int(self.low), int(self.high) + 1))
        assert self.step is not None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [round(self.low + index * self.step, 12) for index in range(count)]

    def holds(self, value: Value) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind in ("uniform", "loguniform"):
            return self.low <= value <= self.high
        return value in self.values()


@dataclass(frozen=True)
class Dimension:
    """A searched setting; with `when`, searched only where other settings have one of these values."""

    name: str
    domain: Choice | Range
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()


@dataclass(frozen=True)
class SearchSpace:
    """Fixed settings and dimensions; a dimension comes after those that its condition names."""

    fixed: tuple[tuple[str, Value], ...]
    dimensions: tuple[Dimension, ...]

    def is_active(self, dimension: Dimension, point: Mapping[str, Value]) -> bool:
        known = dict(self.fixed) | dict(point)
        return all(known.get(name) in values for name, values in dimension.when)

    def settings(self, point: Mapping[str, Value]) -> TrialConfig:
        """The trial at `point`; settings that are not active there have their defaults."""
        return TrialConfig(**{**dict(self.fixed), **point})

    def at(self, units: Sequence[float], given: Mapping[str, Value] | None = None) -> Point:
        """The point at `units`, a number in [0, 1) per dimension, active or not; `given` values take precedence."""
        point: Point = {}
        for dimension, unit in zip(self.dimensions, units, strict=True):
            if self.is_active(dimension, point):
                drawn = dimension.domain.at(unit)
                point[dimension.name] = (given or {}).get(dimension.name, drawn)
        return point

    @cached_property
    def is_finite(self) -> bool:
        """Can every point be listed?"""
        return all(
            isinstance(d.domain, Choice) or d.domain.kind in ("int", "logint", "quniform")
            for d in self.dimensions
        )

    @cached_property
    def combinations(self) -> int:
        """An upper bound on the number of points of a finite space."""
        return math.prod(len(_listed(d.domain)) for d in self.dimensions)

    def points(self) -> list[Point]:
        """Every point of a finite space once, in its natural order; points with the same trial count as one."""
        found: dict[str, Point] = {}
        for units in product(*(_listed(d.domain) for d in self.dimensions)):
            point: Point = {}
            for dimension, value in zip(self.dimensions, units, strict=True):
                if self.is_active(dimension, point):
                    point[dimension.name] = value
            found.setdefault(self.settings(point).trial_id, point)
        return list(found.values())

    def check(self, point: Mapping[str, Value]) -> Point:
        """`point`, possibly partial, if it is in the space.

        Raises:
            ValueError: what does not hold.
        """
        dimensions = {d.name: d for d in self.dimensions}
        fixed = dict(self.fixed)
        for name, value in point.items():
            if name in fixed:
                if fixed[name] != value:
                    raise ValueError(
                        f"{name} is fixed at {fixed[name]!r}, but the point has {value!r}"
                    )
            elif name not in dimensions:
                hint = did_you_mean(name, dimensions)
                raise ValueError(f"{name} is not searched{hint}")
            elif not dimensions[name].domain.holds(value):
                raise ValueError(f"{value!r} of {name} is outside the space")
        inside = {name: value for name, value in point.items() if name not in fixed}
        for name in inside:
            for parent, values in dimensions[name].when:
                if parent in {**fixed, **inside} and {**fixed, **inside}[parent] not in values:
                    raise ValueError(f"{name} is searched only when {parent} is {_either(values)}")
        return inside

    def place(self, settings: TrialConfig) -> Point | None:
        """The point of `settings` in this space, or None if they are outside it."""
        known = settings.model_dump()
        point: Point = {}
        for dimension in self.dimensions:
            if self.is_active(dimension, point):
                if not dimension.domain.holds(known[dimension.name]):
                    return None
                point[dimension.name] = known[dimension.name]
        return point if self.settings(point).effective() == settings.effective() else None

    def matches(self, partial: Mapping[str, Value], point: Mapping[str, Value]) -> bool:
        """Does `point` have every value that `partial` asks for?"""
        return all(name in point and point[name] == value for name, value in partial.items())


def _listed(domain: Choice | Range) -> list[Value]:
    return list(domain.values) if isinstance(domain, Choice) else domain.values()


def _either(values: Sequence[Value]) -> str:
    return " or ".join(map(str, values))


# ---------------------------------------------------------------- from the configuration


def parse_space(section: Mapping[str, Any]) -> SearchSpace:
    """The `trial` section without `epochs`: a value is fixed; a list or a range is searched.

    Raises:
        SettingError: an unknown name, an empty list or a repeated value, an invalid range, a condition that can't hold.
    """
    known = TrialConfig.model_fields
    fixed: dict[str, Value] = {}
    dimensions: dict[str, Dimension] = {}
    for name, given in section.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise SettingError(
                name, f"trial has no setting {name!r}{hint}; it has {', '.join(known)}"
            )
        if isinstance(given, list):
            dimensions[name] = Dimension(name, _choice(name, given))
        elif isinstance(given, Mapping):
            dimensions[name] = _dimension(name, given)
        else:
            fixed[name] = _checked(name, given)
    if "strategy" not in section:
        raise SettingError("strategy", "trial must say which strategy to train, or list several")
    _check_conditions(fixed, dimensions)
    return SearchSpace(tuple(fixed.items()), tuple(_parents_first(dimensions)))


def _checked(name: str, value: Any) -> Value:
    """`value` as `TrialConfig` reads it."""
    try:
        checked: Value = _reader(name).validate_python(value)
    except ValidationError as error:
        raise SettingError(name, f"trial.{name} {explain(error, value)}") from None
    return checked


@cache
def _reader(name: str) -> TypeAdapter[Value]:
    """What reads one field of `TrialConfig`."""
    info = TrialConfig.model_fields[name]
    kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return TypeAdapter(kind)


def _choice(name: str, given: Sequence[Any]) -> Choice:
    if not given:
        raise SettingError(name, f"the list of trial.{name} must have values, but it is empty")
    values = [_checked(name, value) for value in given]
    for value in values:
        if values.count(value) > 1:
            raise SettingError(
                name, f"the list of trial.{name} must not repeat a value, but {value!r} is repeated"
            )
    return Choice(tuple(values))


def _dimension(name: str, given: Mapping[str, Any]) -> Dimension:
    domains = [key for key in given if key != "when"]
    if len(domains) != 1 or domains[0] not in (*RANGES, "choice", "value"):
        raise SettingError(
            name,
            f"trial.{name} must have one of {', '.join((*RANGES, 'choice', 'value'))}, and can have when, "
            f"but it has {', '.join(map(str, given)) or 'nothing'}",
        )
    kind = domains[0]
    inside = given[kind]
    if kind == "value":
        domain: Choice | Range = _choice(name, [inside])
    elif kind == "choice":
        domain = _choice(name, inside if isinstance(inside, list) else [inside])
    else:
        domain = _range(name, kind, inside)
    return Dimension(name, domain, _conditions(name, given.get("when", {})))


def _range(name: str, kind: Any, given: Any) -> Range:
    numbers = 3 if kind == "quniform" else 2
    shape = "[low, high, step]" if numbers == 3 else "[low, high]"
    good = (
        isinstance(given, list)
        and len(given) == numbers
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in given)
        and all(map(math.isfinite, given))
    )
    if not good:
        raise SettingError(
            name, f"{kind} of trial.{name} must be {shape} with numbers, but it is {given!r}"
        )
    low, high = given[:2]
    if low >= high:
        raise SettingError(
            name, f"{kind} of trial.{name} must go from low to high, but it is {given!r}"
        )
    if kind in ("loguniform", "logint") and low <= 0:
        raise SettingError(name, f"{kind} of trial.{name} must begin above 0, but it is {given!r}")
    if kind in ("int", "logint") and not all(float(x).is_integer() for x in given):
        raise SettingError(
            name, f"{kind} of trial.{name} must have whole numbers, but it is {given!r}"
        )
    step = given[2] if numbers == 3 else None
    # 0.3 - 0.1 is a little less than 0.2
    if step is not None and not (step > 0 and (high - low) / step > 1 - 1e-9):
        raise SettingError(
            name, f"the step of trial.{name} must fit between low and high, but it is {given!r}"
        )
    if TrialConfig.model_fields[name].annotation not in (float, int, int | None):
        raise SettingError(
            name, f"trial.{name} is not a number: it takes a value or a list, not {kind}"
        )
    for end in (low, high):
        _checked(name, end)
    return Range(kind, low, high, step)


def _conditions(name: str, given: Any) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if not isinstance(given, Mapping):
        raise SettingError(
            name, f"when of trial.{name} must name settings and their values, but it is {given!r}"
        )
    return tuple(
        (parent, tuple(values) if isinstance(values, list) else (values,))
        for parent, values in given.items()
    )


def _check_conditions(fixed: Mapping[str, Value], dimensions: Mapping[str, Dimension]) -> None:
    for dimension in dimensions.values():
        for parent, values in dimension.when:
            where = f"when of trial.{dimension.name}"
            if parent not in fixed and parent not in dimensions:
                hint = did_you_mean(parent, [*fixed, *dimensions])
                raise SettingError(
                    dimension.name,
                    f"{where} must name settings under trial, but {parent!r} is not one{hint}",
                )
            for value in values:
                possible = (
                    dimensions[parent].domain.holds(value)
                    if parent in dimensions
                    else fixed[parent] == value
                )
                if not possible:
                    raise SettingError(
                        dimension.name, f"{where} can never hold: {parent} is never {value!r}"
                    )


def _parents_first(dimensions: Mapping[str, Dimension]) -> Iterator[Dimension]:
    placed: set[str] = set()
    waiting = dict(dimensions)
    while waiting:
        free = [
            d
            for d in waiting.values()
            if all(p in placed or p not in dimensions for p, _ in d.when)
        ]
        if not free:
            name = next(iter(waiting))
            raise SettingError(name, f"when of trial.{name} forms a cycle: {' → '.join(waiting)}")
        for dimension in free:
            placed.add(dimension.name)
            yield waiting.pop(dimension.name)
