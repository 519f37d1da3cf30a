"""key=value on a run on record: what leaves its results as they are may be changed; all else is refused by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweep.request.config import SweepConfig, apply_override, check_config, place_of
from sweep.request.open_run import Run
from sweep.request.refusals import check_resources, problems
from trainable.errors import RequestError, did_you_mean

CHANGEABLE: Final = {
    "resources.gpus_per_trial": "what a trial gets of a GPU; it still trains on GPUs, or on CPUs, as before",
    "resources.cpus_per_trial": "how many trials fit on a node; their threads stay",
    "resources.concurrent": "how many trials run at a time",
    "resources.retries": "how often a trial that failed is tried again",
    "search.time_limit": "when a session ends",
    "guards.hung_after": "when a silent worker is ended",
    "store.limit": "what of the frozen work is kept, not what it gives",
    "data.images": "where the same images lie",
    "data.table": "where the same table lies",
    "model.weights": "where the same weights lie",
}
"""Each key with what it decides, which is no trial's result."""


@dataclass(frozen=True)
class Overrides:
    """What was given on the command line, each of a key that may be changed."""

    facts: Mapping[str, Mapping[str, Any]]
    """Section → name → value, as in a configuration."""
    places: Mapping[tuple[str, ...], str]
    """Section and name of each, and where it stands."""

    @property
    def keys(self) -> list[str]:
        """With dots, in the order in which they were given."""
        return [".".join(path) for path in self.places]


NO_OVERRIDES: Final = Overrides({}, {})


def read_overrides(given: Sequence[str]) -> Overrides:
    """`section.name=value`, several of them.

    Raises:
        RequestError: no key=value, or of a key that may not be changed.
    """
    facts: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    for override in given:
        apply_override(override, facts, places)
    overrides = Overrides(facts, places)
    for key in overrides.keys:
        if key not in CHANGEABLE:
            raise RequestError(
                f"what is changed of a run must leave its results as they are: {', '.join(CHANGEABLE)} may be, but not "
                f"{key}{did_you_mean(key, list(CHANGEABLE))}; `sweep extend` asks for more, and another result is "
                "another run: sweep run RUN/sweep.yaml name=OTHER KEY=VALUE"
            )
    return overrides


def overridden(run: Run, config: SweepConfig, overrides: Overrides) -> SweepConfig:
    """`config`, asked of `run`, with the overrides.

    Raises:
        RequestError: a value that can't be, or another kind of device.
    """
    facts = config.model_dump(mode="json")
    for section, values in overrides.facts.items():
        facts[section] |= values
    changed = check_config(facts, overrides.places, "what is asked for")
    for problem, key in problems(overrides.facts, changed):
        raise RequestError(f"{problem}: see {place_of(key, overrides.places, 'what is asked for')}")
    if "resources.gpus_per_trial" in overrides.keys:
        check_resources(changed)
        _refuse_another_device(run, changed)
    return changed


def _refuse_another_device(run: Run, config: SweepConfig) -> None:
    """Raises RequestError where trials that trained on CPUs are to get GPUs, or the other way round."""
    settings, gpus = run.manifest.settings, config.resources.gpus_per_trial
    if settings is None or gpus == "auto" or (gpus > 0) == (settings.device == "cuda"):
        return
    kind = "GPUs" if settings.device == "cuda" else "CPUs"
    raise RequestError(
        f"resources.gpus_per_trial must {'be more than 0' if kind == 'GPUs' else 'stay 0'}, since the run trains on "
        f"{kind} and other devices give other last digits, but it is {gpus:g}; begin another run: "
        f"sweep run {run.folder.config} name={run.config.name}-2 resources.gpus_per_trial={gpus:g}"
    )
