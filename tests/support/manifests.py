"""Manifests as tests need them: a small one that is whole, and one on disk changed with its digest made right again."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from trainable.records.files import now, read_json, write_json
from trainable.records.manifest import (
    Configuration,
    Digests,
    Images,
    Manifest,
    Session,
    SessionEnd,
    write_manifest,
)
from trainable.records.run_folder import RunFolder


def small_manifest(run: RunFolder, **facts: Any) -> Manifest:
    """All that must be there, of a run that no session has begun; `facts` besides or instead."""
    nothing = hashlib.sha256(b"").hexdigest()
    given: dict[str, Any] = {
        "project_version": "0.1.0",
        "git_commit": "0" * 40,
        "git_dirty": False,
        "python": "3.11.7",
        "packages": {"torch": "2.15.0"},
        "host": "here",
        "created": now(),
        "seeds": {"split": 42, "search": 0},
        "target": "Smiling",
        "classes": ("0", "1"),
        "configurations": (Configuration.of("name: run\n", ["sweep", "run", "sweep.yaml"]),),
        "images": Images(count=44),
        "digests": Digests(table=nothing, images=nothing, split=nothing, weights=nothing),
        "image_folder": run.path / "images",
    }
    return Manifest(**given | facts)


def put_manifest(run: RunFolder, **facts: Any) -> None:
    """Make the folder a run folder."""
    write_manifest(run, small_manifest(run, **facts))


def session(number: int, how: SessionEnd | None = None) -> Session:
    return Session(number=number, host="here", pid=1, started=now(), ended=how and now(), how=how)


def edit_manifest(run: RunFolder, change: Callable[[dict[str, Any]], object]) -> None:
    """Let the manifest on disk have been written with other facts: `change` changes them in place."""
    facts = read_json(run.manifest)
    facts.pop("sha256", None)
    change(facts)
    if facts["format_version"] != 1:
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        facts["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    write_json(run.manifest, facts)


def ask_instead(run: RunFolder, text: str) -> None:
    """Let the run have been asked for another configuration."""
    entry = Configuration.of(text, ["sweep", "run", "sweep.yaml"]).model_dump(mode="json")
    edit_manifest(run, lambda facts: facts.update(configurations=[entry]))
    run.config.write_text(text, encoding="utf-8")
