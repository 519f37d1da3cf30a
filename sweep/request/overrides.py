"""key=value on a recorded run: what leaves its results unchanged can be changed; anything else is refused by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweep.request.config import SweepConfig, apply_override, check_config, place_of
from sweep.request.open_run import Run
from sweep.request.refusals import check_resources, problems
from trainable.errors import RequestError, did_you_mean

CHANGEABLE: Final = {
    "resources.gpus_per_trial": "a trial's share of a GPU; it still trains on GPUs, or on CPUs, as before",
    "resources.cpus_per_trial": "how many trials fit on a node; their threads stay",
    "resources.concurrent": "how many trials run at a time",
    "resources.retries": "how often a failed trial is retried",
    "search.time_limit": "when a session ends",
    "guards.hung_after": "when a silent worker is killed",
    "store.limit": "which frozen work is kept, not its result",
    "data.images": "where the same images are",
    "data.table": "where the same table is",
    "model.weights": "where the same weights are",
}
"""Each key with what it decides, which is never a trial's result."""


@dataclass(frozen=True)
class Overrides:
    """What was given on the command line, all for keys that can be changed."""

    facts: Mapping[str, Mapping[str, Any]]
    """Section → name → value, as in a configuration."""
    places: Mapping[tuple[str, ...], str]
    """Section and name of each, and where it was given."""

    @property
    def keys(self) -> list[str]:
        """With dots, in the order given."""
        return [".".join(path) for path in self.places]


NO_OVERRIDES: Final = Overrides({}, {})


def read_overrides(given: Sequence[str]) -> Overrides:
    """Read a list of `section.name=value`.

    Raises:
        RequestError: not key=value, or a key that can't be changed.
    """
    facts: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    for override in given:
        apply_override(override, facts, places)
    overrides = Overrides(facts, places)
    for key in overrides.keys:
        if key not in CHANGEABLE:
            raise RequestError(
                f"a change to a run must leave its results unchanged, as {', '.join(CHANGEABLE)} do, but "
                f"{key} was given{did_you_mean(key, list(CHANGEABLE))}; `sweep extend` adds trials or epochs, and "
                "other results need another run: sweep run RUN/sweep.yaml name=OTHER KEY=VALUE"
            )
    return overrides


def overridden(run: Run, config: SweepConfig, overrides: Overrides) -> SweepConfig:
    """`config`, the request for `run`, with the overrides.

    Raises:
        RequestError: an invalid value, or another kind of device.
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
    """Raise RequestError if trials that trained on CPUs would get GPUs, or the other way round."""
    settings, gpus = run.manifest.settings, config.resources.gpus_per_trial
    if settings is None or gpus == "auto" or (gpus > 0) == (settings.device == "cuda"):
        return
    kind = "GPUs" if settings.device == "cuda" else "CPUs"
    raise RequestError(
        f"resources.gpus_per_trial must {'be more than 0' if kind == 'GPUs' else 'stay 0'}, since the run trains on "
        f"{kind} and another kind of device changes the last digits, but it is {gpus:g}; start another run: "
        f"sweep run {run.folder.config} name={run.config.name}-2 resources.gpus_per_trial={gpus:g}"
    )
