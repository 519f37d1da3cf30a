"""Checks of a new request: stricter than those of a recorded configuration, whose run must be able to continue.

`sweep plan` and `sweep run` read their YAML here; only sweep.request.open_run reads a run's own.
"""

import math
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sweep.request.config import SweepConfig, check_config, place_of, read_given
from trainable.errors import RequestError

DURATIONS: Final[tuple[tuple[str, ...], ...]] = (("search", "time_limit"), ("guards", "hung_after"))
PATHS: Final[tuple[tuple[str, ...], ...]] = (
    ("storage",),
    ("data", "images"),
    ("data", "table"),
    ("model", "weights"),
)
ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")
VARIABLE: Final = re.compile(r"\$\{?[A-Za-z_]\w*\}?")
Facts = Mapping[str, Any]
Places = Mapping[tuple[str, ...], str]


def load_request(source: Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> SweepConfig:
    """As load_config, of a configuration that a new run is asked for with: a file, or its keys in a mapping.

    Raises:
        RequestError: also a duration without its unit, an address or a variable instead of a path, an ASHA that can
            never prune.
    """
    facts, places = read_given(source, overrides)
    said = str(source) if isinstance(source, Path) else "the configuration"
    config = check_config(facts, places, said)
    for problem, key in problems(facts, config):
        raise RequestError(f"{problem}: see {place_of(key, places, said)}")
    return config


def problems(facts: Facts, config: SweepConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is wrong with what the user wrote, and at which key; `config` is what was made of it."""
    for key in DURATIONS:
        if problem := _of_duration(".".join(key), _given(facts, key)):
            yield problem, key
    for key in PATHS:
        if problem := _of_path(".".join(key), _given(facts, key)):
            yield problem, key
    if "asha" in facts and config.asha and not config.asha.rungs(config.epochs):
        yield (
            f"asha must compare trials before their last epoch, but its first comparison is after epoch "
            f"{config.asha.grace_period} (asha.grace_period) of {config.epochs} (trial.epochs): it can prune nothing; "
            "lower asha.grace_period, raise trial.epochs, or set asha=off",
            ("asha", "grace_period"),
        )


def _given(facts: Facts, key: tuple[str, ...]) -> object:
    inner: object = facts
    for part in key:
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    return inner


def _of_duration(name: str, given: object) -> str:
    if given is None or given is False or given == "off":
        return ""
    if isinstance(given, str) and not re.fullmatch(r"[\d.]+", given):
        return ""  # it has a unit
    if given is True or given == math.inf:
        return f"{name} must be a duration such as 8h, but it is {given}; leave it out for no limit"
    return f"{name} must have a unit, but it is {given}: write {given}s, {given}m or {given}h"


def _of_path(name: str, given: object) -> str:
    if not isinstance(given, str):
        return ""
    if "\0" in given:
        return f"{name} must be a path, but {given!r} contains a null character"
    if (found := ADDRESS.match(given)) and (found[2] or not Path(given).exists()):
        mount = (
            "mount it, and give its path" if name == "storage" else "fetch it, and give its path"
        )
        return f"{name} must be a path on this machine's file systems, but {given} is an address ({found[1]}); {mount}"
    if (found := VARIABLE.search(given)) and not Path(given).expanduser().exists():
        return f"{name} must be a literal path, but {found[0]} in {given} is not expanded; write it out"
    return ""


def check_resources(config: SweepConfig) -> None:
    """Check that a trial can use what it will get. For new requests only: a recorded run can continue.

    Raises:
        RequestError: several GPUs per trial.
    """
    gpus = config.resources.gpus_per_trial
    if gpus != "auto" and gpus > 1:
        raise RequestError(
            f"resources.gpus_per_trial must be auto, 1, 0 or 1/k, since a trial trains on one GPU and others would "
            f"be idle, but it is {gpus:g}; use 1, and more trials run at a time"
        )


# ---------------------------------------------------------------- where the run folder would be


def refuse_existing(folder: Path) -> None:
    """Refuse to overwrite a run.

    Raises:
        RequestError: the folder exists.
    """
    if folder.exists() or folder.is_symlink():
        raise RequestError(
            f"the run folder {folder} must be new, but it exists; "
            f"`sweep resume {folder}` continues it, `name={folder.name}-2` starts another beside it"
        )


def partial_of(folder: Path) -> Path:
    """A path beside a run folder where it can be built; no other process on any machine gets the same one."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")


def check_folder(config: SweepConfig) -> None:
    """Check that the run folder can be created: create it for a moment, and remove it.

    Raises:
        RequestError: it already exists, or can't be created.
    """
    with tried_folder(config):
        pass


@contextmanager
def tried_folder(config: SweepConfig) -> Iterator[Path]:
    """A folder beside where the run's would be, for as long as the context lasts; then it is removed.

    Raises:
        RequestError: the run folder already exists, or can't be created.
    """
    refuse_existing(config.folder)
    folder = partial_of(config.folder)
    made = missing(config.storage)
    try:
        try:
            folder.mkdir(parents=True)
            (folder / "mark").write_text("")
        except OSError as error:
            raise RequestError(
                f"the run folder {config.folder} can't be created: {error.strerror}; set `storage` to a folder where "
                "it can"
            ) from None
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        take_back(made)


def nearest(folder: Path) -> Path:
    """The folder itself, or the nearest parent that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def missing(folder: Path) -> list[Path]:
    """Which of the folder and its parents do not exist, innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def take_back(made: Sequence[Path]) -> None:
    """Remove folders that were missing, if they are empty."""
    for each in made:
        with suppress(OSError):  # another has begun to use it
            each.rmdir()
