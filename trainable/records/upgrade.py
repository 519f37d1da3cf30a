"""Upgrades manifests of older formats to the present one. A key that did not exist yet means what the code did then."""

from collections.abc import Mapping
from typing import Any, Final

OLDER: Final = 1
"""The format before 2; what it lacks gets the defaults of trainable.records.manifest and RunSettings."""
RETIRED: Final = {
    (): ("format_version", "command"),
    ("images",): ("duplicates",),
    ("settings",): ("pixel_cache_bytes",),
}
"""Keys that were once written and are no longer read."""


def upgraded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a manifest of format 1 as in format 2."""
    found = _without(facts, RETIRED[()])
    for name in ("images", "settings"):
        if isinstance(found.get(name), Mapping):
            found[name] = _without(found[name], RETIRED[name,])
    return found


def _without(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}
