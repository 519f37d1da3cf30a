"""SweepConfig: the YAML file, validated; key=value overrides; errors that name the line and the remedy."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from sweep.request.explain import explain, say
from sweep.request.space import (
    LARGEST_GRID,
    Choice,
    Range,
    SearchSpace,
    SettingError,
    parse_space,
)
from sweep.request.yaml_text import parse_yaml, read_yaml, write_yaml
from trainable.config import DataConfig, ModelConfig, StrictModel, TrialConfig, absolute
from trainable.errors import RequestError, did_you_mean
from trainable.metric import Metric

Sampler = Literal["tpe", "gp"]
"""Optuna's samplers: they propose from all trials on record. `SAMPLERS` in sweep.search.study creates them."""
Method = Literal["grid", "random", "qmc", Sampler]
EPOCHS: Final = 10
"""Default epochs of a trial; assumed. The source report of Smiling trains for as many."""
STORAGE: Final = Path("runs")
"""The default folder for run folders, relative to the current folder."""
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """8h, 90m, 45s; records may also hold plain seconds, which requests may not (sweep.request.refusals)."""
    if value is None or isinstance(value, int | float):
        return value
    found = isinstance(value, str) and re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value)
    if not found:
        raise ValueError("must be a duration such as 8h, 90m or 45s")
    return float(found[1]) * UNITS[found[2] or "s"]


def _in_seconds(value: float | None) -> object:
    """28800s: with its unit, so that a recorded value can be used in a new request."""
    if value is None or math.isinf(value):
        return value
    return f"{Decimal(repr(value)).normalize():f}s"


def _in_seconds_or_off(value: float | None) -> object:
    return "off" if value is None else _in_seconds(value)


def _bytes(value: object) -> object:
    """200GB, 1.5TB or plain bytes."""
    if value is None or isinstance(value, int | float):
        return value
    found = isinstance(value, str) and re.fullmatch(
        r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", value.strip(), re.IGNORECASE
    )
    if not found:
        raise ValueError("must be a size such as 200GB, 1.5TB or 500MB")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def parse_bytes(name: str, text: str) -> int:
    """A size on the command line, in bytes.

    Raises:
        RequestError: it is not a size.
    """
    try:
        size = _bytes(text)
    except ValueError as error:
        raise RequestError(f"{name} {error}, but it is {text!r}") from None
    assert isinstance(size, int)
    return size


def _share(value: object) -> object:
    """0.5, 1/2 or a whole number of GPUs; any other fraction would not divide a GPU evenly among trials."""
    if value == "auto":
        return value
    try:
        number = float(Fraction(value)) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError("must be auto, a whole number, or 1/k such as 1/2") from None
    if number >= 0 and number.is_integer():
        return number
    if 0 < number < 1 and abs(1 / number - round(1 / number)) < 0.02:
        return 1 / round(1 / number)
    raise ValueError("must be auto, a whole number, or 1/k such as 1/2")


def _off(value: object) -> object:
    return None if value in ("off", False) else value


def _or_off(value: object) -> object:
    return "off" if value is None else value


OrOff = (BeforeValidator(_off), PlainSerializer(_or_off))
Seconds = Annotated[
    float | None, BeforeValidator(_seconds), PlainSerializer(_in_seconds, when_used="json")
]


class SearchConfig(StrictModel):
    """Which settings are tried, and how many."""

    method: Method = "tpe"
    """How settings are chosen: every point of a grid, at random, by Sobol points (qmc), or from the results so far."""
    trials: int | None = Field(None, ge=1)
    """Distinct settings; every point under grid."""
    seed: int = Field(0, ge=0)
    """Seed of the search method, of a grid's order, and of the choice of pruned trials to audit."""
    first: tuple[dict[str, Any], ...] = ()
    """Settings, complete or partial, to try before the method's own."""
    time_limit: Seconds = Field(None, gt=0)
    """8h, 90m, 45s from a session's first trial; the session then ends cleanly and can be resumed."""


class AshaConfig(StrictModel):
    """Asynchronous successive halving: rungs at grace_period · reduction_factor^k epochs."""

    grace_period: int = Field(1, ge=1)
    """Epochs that every trial trains before it is first compared."""
    reduction_factor: int = Field(3, ge=2)
    """η: one trial in this many continues from each rung, and each rung has this many times the epochs of the last."""
    rungs_of: Literal["all", "strategy"] = "all"
    """What a trial is compared with: all trials, or those of its own strategy."""

    def rungs(self, epochs: int) -> list[int]:
        """Epochs at which trials are compared; not at the last, where nothing is left to stop."""
        found, rung = [], self.grace_period
        while rung < epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return found


class GuardsConfig(StrictModel):
    """When a trial that will not recover is stopped."""

    collapse_epochs: Annotated[int | None, *OrOff] = Field(2, ge=1)
    """Consecutive epochs that predict a single class before a trial ends as collapsed."""
    hung_after: Annotated[
        float | None,
        BeforeValidator(_seconds),
        BeforeValidator(_off),
        PlainSerializer(_in_seconds_or_off),
    ] = Field(None, gt=0)
    """30m or 90s without a row, a note or a growing file from a trial: its worker is killed, and the trial retried."""


class KeepConfig(StrictModel):
    """Which weights are kept on disk."""

    best: int = Field(3, ge=1)
    """Number of trials whose weights and state are kept."""


class ResourcesConfig(StrictModel):
    """What one trial gets."""

    gpus_per_trial: Annotated[float | Literal["auto"], BeforeValidator(_share)] = "auto"
    """Share of a GPU: 1/2 puts two trials on one, 0 trains on CPUs, auto measures whether one or two are faster."""
    cpus_per_trial: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPUs of a trial, and its torch threads; auto shares the CPUs evenly."""
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Trials at a time; auto: as many as the devices can hold."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: on GPUs bfloat16 autocast if all of them compute in it, otherwise float16; float32 on CPUs."""
    graphs: Literal["auto", "on", "off"] = "auto"
    """Run training steps on a GPU as CUDA graphs; auto: if a test at the run's start shows that they work."""
    retries: int = Field(2, ge=0)
    """How often a failed trial is retried."""


class StoreConfig(StrictModel):
    """The store of frozen features that all trials of a node share."""

    limit: Annotated[int | None, BeforeValidator(_bytes)] = Field(None, ge=0)
    """Disk space of a node that it may use, such as 200GB; by default half of what is free."""
    format: Literal["computed", "float16"] = "computed"
    """float16 halves the size of features computed in float32, and rounds them."""


def _name(given: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", given):
        return given
    raise ValueError(
        "must consist of the letters A to Z and a to z, digits, dots, _ and -, and begin with a letter or digit"
    )


def _section(value: object) -> object:
    if isinstance(value, dict):
        return value
    raise ValueError(
        f"must be a section with keys ({', '.join((*TrialConfig.model_fields, 'epochs'))})"
    )


def _resolved_trial(given: dict[str, Any]) -> dict[str, Any]:
    """The trial section with every default written out."""
    epochs = given.get("epochs", EPOCHS)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise SettingError(
            "epochs",
            f"trial.epochs must be one whole number of at least 1 (it is a budget), but it is {say(epochs)}",
        )
    defaults = {name: info.default for name, info in TrialConfig.model_fields.items()}
    defaults |= {"schedule_epochs": epochs}
    settings = {k: v for k, v in given.items() if k != "epochs"}
    parse_space(settings)  # as given, so that errors refer to the file
    return {"epochs": epochs, **{**defaults, **settings}}


class SweepConfig(StrictModel):
    """A whole sweep: data, model, space, search, and how weak trials are stopped.

    An instance is always valid: defaults written out, paths absolute, a search that can run.
    """

    name: Annotated[str, AfterValidator(_name)]
    """The run folder's name."""
    storage: Annotated[Path, AfterValidator(lambda given: absolute(given, "storage"))] = STORAGE
    """The folder for run folders."""
    data: DataConfig
    """Images, their table, and the column to predict."""
    model: ModelConfig = ModelConfig()
    """The pretrained network."""
    trial: Annotated[dict[str, Any], BeforeValidator(_section), AfterValidator(_resolved_trial)]
    """Settings of a trial, fixed or searched, and its maximum number of epochs."""
    search: SearchConfig = SearchConfig()
    """Which settings are tried."""
    metric: Metric = Metric.VAL_ACCURACY
    """The metric that decides everywhere: in ASHA, the search, the best epoch and the winner."""
    asha: Annotated[AshaConfig | None, *OrOff] = AshaConfig()
    """How weak trials are stopped early; off: every trial runs to its end."""
    guards: Annotated[
        GuardsConfig, BeforeValidator(lambda v: {"collapse_epochs": None} if v == "off" else v)
    ] = GuardsConfig()
    """When a trial that will not recover is stopped; off: never."""
    keep: KeepConfig = KeepConfig()
    """Which weights are kept on disk."""
    resources: ResourcesConfig = ResourcesConfig()
    """What each trial gets of the machines."""
    sharing: Literal["on", "off"] = "on"
    """Frozen layers run once per node for all trials; off: for every batch of every trial, with the same result."""
    store: StoreConfig = StoreConfig()
    """Where data shared between trials is stored."""

    @model_validator(mode="after")
    def _search_can_be_made(self) -> "SweepConfig":
        _check_search(self)
        return self

    @property
    def epochs(self) -> int:
        """The budget of a trial."""
        epochs: int = self.trial["epochs"]
        return epochs

    @property
    def folder(self) -> Path:
        return self.storage / self.name

    @cached_property
    def space(self) -> SearchSpace:
        return parse_space({k: v for k, v in self.trial.items() if k != "epochs"})

    def values_of(self, name: str) -> list[object]:
        """Every value that setting `name` can take, if they can be listed."""
        for dimension in self.space.dimensions:
            if dimension.name == name:
                return list(dimension.domain.values) if isinstance(dimension.domain, Choice) else []
        return [dict(self.space.fixed).get(name, TrialConfig.model_fields[name].default)]

    @property
    def trials(self) -> int:
        """How many distinct settings are asked for."""
        if self.search.method == "grid":
            points = len(self.space.points())
            return min(points, self.search.trials or points)
        assert self.search.trials is not None
        return self.search.trials

    @cached_property
    def _grid_ids(self) -> frozenset[str]:
        return frozenset(self.space.settings(point).trial_id for point in self.space.points())

    def asked_for(self, trial_ids: Iterable[str]) -> int:
        """How many trials there will be in total; recorded ones that a changed grid no longer has are added to it."""
        if self.search.method != "grid":
            return self.trials
        return self.trials + len(frozenset(trial_ids) - self._grid_ids)


# ---------------------------------------------------------------- from a file, and into one


def load_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The configuration in `path` with `key.inner=value` overrides, checked, defaults filled in, paths absolute.

    Raises:
        RequestError: in one line: the place, what must hold and what was given.
    """
    facts, places = read_given(path, overrides)
    return check_config(facts, places, str(path))


def read_given(
    source: Path | Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The keys in a file, or in a mapping, with `key.inner=value` overrides, and where each was given.

    Raises:
        RequestError: the file holds no keys, or an override is not KEY=VALUE.
    """
    facts, places = read_yaml(source) if isinstance(source, Path) else (deepcopy({**source}), {})
    for override in overrides:
        apply_override(override, facts, places)
    return facts, places


def apply_override(
    override: str, facts: dict[str, Any], places: dict[tuple[str, ...], str]
) -> None:
    """Put `key.inner=value` into `facts`, and note in `places` where it was given.

    Raises:
        RequestError: it is not KEY=VALUE.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RequestError(
            f"an override must be KEY=VALUE such as search.time_limit=2h, but it is {override!r}"
        )
    *parents, last = path = tuple(key.split("."))
    inner = facts
    for parent in parents:
        if not isinstance(inner.get(parent), dict):
            inner[parent] = {}
        inner = inner[parent]
    inner[last], _ = parse_yaml(text, f"the override {override!r}")
    places[path] = f"the override {override}"


def place_of(path: Sequence[str], places: Mapping[tuple[str, ...], str], source: str) -> str:
    """Where the key at `path` was given, or the nearest section around it that was."""
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in places:
            return places[tuple(path[:length])]
    return source


def check_config(
    facts: Mapping[str, Any], places: Mapping[tuple[str, ...], str], source: str
) -> SweepConfig:
    """The configuration that `facts` describe; `places` says where each key was given.

    Raises:
        RequestError: as in load_config.
    """

    def where(*path: str) -> str:
        return place_of(path, places, source)

    try:
        return SweepConfig(**facts)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, SettingError):
            raise RequestError(f"{cause}: see {where('trial', cause.name)}") from None
        path = tuple(str(part) for part in first["loc"])
        raise RequestError(f"{_say(error, path)}: see {where(*path)}") from None


def _say(error: ValidationError, path: tuple[str, ...]) -> str:
    first = error.errors()[0]
    known, keys = _named(path)
    dotted = ".".join(known)
    if first["type"] == "extra_forbidden":
        name = ".".join((*known, path[-1]))
        return f"there is no key {name!r}{did_you_mean(path[-1], keys)}; known here are {', '.join(keys)}"
    if first["type"] == "missing":
        return f"{dotted} must be given, but it is missing"
    must = f"must be {word}, or" if (word := WORDS.get(dotted)) else "must be"
    if keys and first["type"] == "model_type":
        section = f"a section with keys ({', '.join(keys)})"
        return f"{dotted} {must} {section}, but it is {say(first['input'])}"
    return f"{dotted} {explain(error, first['input']).replace('must be', must, 1)}"


WORDS: Final = {
    "asha": "off",
    "guards": "off",
    "guards.collapse_epochs": "off",
    "guards.hung_after": "off",
    "data.split": "official",
}
"""A word that is accepted besides the values that pydantic knows."""


def _named(path: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys that the user wrote on the path of a finding, which also names types; and the keys known there."""
    model: type[BaseModel] | None = SweepConfig
    named: list[str] = []
    for part in path:
        if model is None or part not in model.model_fields:
            break
        named.append(part)
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        sections = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        model = sections[0] if sections else None
    return named, list(model.model_fields) if model else []


def _check_search(config: SweepConfig) -> None:
    method, space = config.search.method, config.space
    if method == "grid":
        *others, last = (known for known in get_args(Method) if known != "grid")
        for dimension in space.dimensions:
            if isinstance(dimension.domain, Range):
                raise SettingError(
                    dimension.name,
                    f"search.method: grid needs lists, but trial.{dimension.name} is a range; "
                    f"list its values, or use {', '.join(others)} or {last}",
                )
        if space.combinations > LARGEST_GRID:
            raise SettingError(
                "strategy",
                f"a grid must have at most {LARGEST_GRID:,} points, but this one has {space.combinations:,}",
            )
    elif config.search.trials is None:
        raise RequestError(
            f"search.trials must say how many settings {method} tries, but it is missing"
        )
    for point in config.search.first:
        try:
            space.check(point)
        except ValueError as error:
            raise RequestError(f"search.first must be in the space, but {point}: {error}") from None


def dump_config(config: SweepConfig) -> str:
    """The configuration as YAML that `load_config` reads back as an equal one, whatever strings it holds.

    A default ASHA that compares nothing is left out: in a file, it would be refused by the next request.
    """
    facts = config.model_dump(mode="json")
    if config.asha == AshaConfig() and not config.asha.rungs(config.epochs):
        del facts["asha"]
    return write_yaml(facts)
