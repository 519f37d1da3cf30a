"""Manifests of older formats → the present one. A key that was not written yet means what the code did then."""

from collections.abc import Mapping
from typing import Any, Final

OLDER: Final = 1
"""The format of before 2; what it lacks is filled in by the defaults of trainable.records.manifest and RunSettings."""
RETIRED: Final = {
    (): ("format_version", "command"),
    ("images",): ("duplicates",),
    ("settings",): ("pixel_cache_bytes",),
}
"""Keys that were written once and are read by nothing."""


def upgraded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a manifest of format 1 as format 2 has them."""
    found = _without(facts, RETIRED[()])
    for name in ("images", "settings"):
        if isinstance(found.get(name), Mapping):
            found[name] = _without(found[name], RETIRED[name,])
    return found


def _without(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}
