"""manifest.json: what a run began with, what was asked of it, and its sessions.

`Manifest` is frozen, and changed only by the methods here. Commands that only read never write it; those that hold the
run do, with `write_manifest`. Older formats are read through trainable.records.upgrade.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from trainable.config import CANONICAL, RunSettings, StrictModel
from trainable.errors import RequestError
from trainable.records.files import Time, now, read_json, write_atomically, write_json
from trainable.records.paths import readable
from trainable.records.run_folder import RunFolder
from trainable.records.upgrade import OLDER, upgraded

VERSION: Final = 2  # of manifest.json; trainable.records.upgrade reads older ones
REMEDY: Final = "put the old one back"
Facts = dict[str, Any]
"""JSON that is shown or compared, but never interpreted."""


class SessionEnd(StrEnum):
    """How a session ended."""

    FINISHED = "finished"
    SIGINT = "SIGINT"
    SIGTERM = "SIGTERM"
    TIME_LIMIT = "time limit"
    FAULT = "fault"
    """Something must be fixed first: a full disk, a changed image."""
    ERROR = "error"


class Granted(StrictModel):
    """What a trial gets, and how many run at a time."""

    gpus_per_trial: float
    cpus_per_trial: int
    concurrent: int


class Session(StrictModel):
    """One start of the run by `sweep run`, `resume`, `extend` or `replicate`."""

    number: int
    host: str
    pid: int
    started: Time
    ended: Time | None = None
    how: SessionEnd | None = None
    """None: it is running, or its driver was killed."""
    devices: tuple[Facts, ...] = ()
    """Each kind of device that its nodes have, with `hosts`; empty if not recorded."""
    granted: Granted | None = None
    """What a trial got in it; None if not recorded, or if no trial ran."""


class Configuration(StrictModel):
    """What was asked of the run at one moment, as uninterpreted text."""

    at: Time
    command: tuple[str, ...]
    """The words that were typed; a call from Python is a single word, with its parentheses."""
    text: str
    """The whole configuration as YAML."""
    sha256: str

    @property
    def said(self) -> str:
        """The command as a shell accepts it, or the call."""
        return self.command[0] if len(self.command) == 1 else shlex.join(self.command)

    @staticmethod
    def of(text: str, command: Sequence[str]) -> "Configuration":
        """`text`, asked for now."""
        return Configuration(at=now(), command=tuple(command), text=text, sha256=digest_of(text))


class Overlap(StrictModel):
    """What the parts of the split have in common; see trainable.data.overlap."""

    same: int
    near: int
    pairs_across_parts: tuple[tuple[str, str], ...]
    """Each image named as part/file."""
    persons_across_parts: int | None
    test_images_of_known_persons: int | None


class Images(StrictModel):
    """The images of the table, and the names of those left out."""

    count: int
    overlap: Overlap | None = None
    """None: not checked."""
    dropped: tuple[str, ...] = ()
    """Names in rows without an image."""
    unlabelled: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


class Digests(StrictModel):
    """SHA-256 of what the run began with."""

    table: str | None
    """None: there is no table, folders gave the classes."""
    images: str
    """Of all images together."""
    split: str
    weights: str
    """Of the backbone's parameters."""


class Graphs(StrictModel):
    """Are training steps captured as CUDA graphs?"""

    used: bool
    why: str


class Manifest(StrictModel):
    """See docs/reference/run-folder.md. None means not known, or not known yet."""

    format_version: Literal[2] = VERSION
    project_version: str
    git_commit: str | None
    git_dirty: bool | None
    python: str
    packages: dict[str, str]
    host: str
    created: Time
    seeds: dict[str, int]
    target: str
    classes: tuple[str, str]
    """The target's values that count as 0 and as 1."""
    configurations: tuple[Configuration, ...] = Field(min_length=1)
    """Everything that was asked of the run, oldest first; the last one is in force."""
    images: Images
    digests: Digests
    warnings: tuple[str, ...] = ()
    image_folder: Path
    """Where the images are."""
    table: Path | None = None
    """Where the table is; None also if not recorded."""
    file_column: str | None = None
    understood: tuple[str, ...] = ()
    """How the data was read, as printed on the terminal."""
    settings: RunSettings | None = None
    """What all trials share; None before the first session has resolved it."""
    resources: Granted | None = None
    graphs: Graphs | None = None
    """None: never tried, on CPUs, or not recorded."""
    packing: Facts | None = None
    """The measurement of how many trials should share a GPU."""
    sharing: Facts | None = None
    """Which frozen work is kept, with the rates that decided it; None: to be decided (again)."""
    sessions: tuple[Session, ...] = ()

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.configurations[-1]

    @property
    def devices(self) -> list[Facts]:
        """The devices of all sessions."""
        return [facts for session in self.sessions for facts in session.devices]

    def with_configuration(self, asked: Configuration, sharing_stays: bool = False) -> "Manifest":
        """With a new configuration in force; what is worth sharing will be decided anew, or stays."""
        sharing = self.sharing if sharing_stays else None
        return self._with(configurations=(*self.configurations, asked), sharing=sharing)

    def with_places(self, images: Path, table: Path | None) -> "Manifest":
        """With new paths of the same images and table; the caller has compared their digests."""
        return self._with(image_folder=images, table=table)

    def with_session(self, session: Session) -> "Manifest":
        return self._with(sessions=(*self.sessions, session))

    def with_session_ended(self, number: int, how: SessionEnd, at: str) -> "Manifest":
        """With the end of session `number`; unchanged if it is not on record."""
        ended = {"ended": at, "how": how}
        return self._with(
            sessions=tuple(
                session.model_copy(update=ended) if session.number == number else session
                for session in self.sessions
            )
        )

    def with_resources(
        self, granted: Granted, graphs: Graphs | None, packing: Facts | None
    ) -> "Manifest":
        """With what the first session found out about devices."""
        return self._with(resources=granted, graphs=graphs, packing=packing)

    def with_settings(self, settings: RunSettings, sharing: Facts) -> "Manifest":
        """With what all trials share, and why that frozen work is kept."""
        return self._with(settings=settings, sharing=sharing)

    def _with(self, **changed: object) -> "Manifest":
        return self.model_copy(update=changed)


def digest_of(text: str) -> str:
    """SHA-256 of a text in UTF-8, as the manifest records it for configurations."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(run: RunFolder) -> Manifest:
    """The manifest, whatever format it was written in; nothing is written.

    Raises:
        RequestError: not a run folder, one of a newer format, or a manifest that was changed.
    """
    facts = read_json(run.manifest)
    version = facts.get("format_version")
    if isinstance(version, bool) or version not in (OLDER, VERSION):
        raise RequestError(
            f"{run.manifest} must have format_version {OLDER} or {VERSION}, but it has {version}; "
            "use the version of this project that made it"
        )
    with readable(run.manifest, REMEDY):
        manifest = Manifest(**(upgraded(facts) if version == OLDER else _untouched(facts)))
        for number, asked in enumerate(manifest.configurations, start=1):
            if digest_of(asked.text) != asked.sha256:
                raise ValueError(f"the text of configuration {number} does not match its sha256")
    return manifest


def write_manifest(run: RunFolder, manifest: Manifest) -> None:
    """Replace the manifest of a run that the caller holds; one of an older format is kept beside it."""
    older = run.path / f"manifest.{OLDER}.json"
    if run.manifest.exists() and not older.exists():
        before = run.manifest.read_bytes()
        if json.loads(before).get("format_version") == OLDER:
            write_atomically(older, before)
    facts = manifest.model_dump(mode="json")
    write_json(run.manifest, facts | {"sha256": _digest(facts)})


def session_numbers(content: bytes) -> list[int]:
    """The numbers of the sessions in a manifest of any format, for drivers that hold the run or try to."""
    return [session["number"] for session in json.loads(content)["sessions"]]


def _untouched(facts: Mapping[str, Any]) -> Facts:
    """What is in the file, if it is what was written.

    Raises:
        ValueError: it is not.
    """
    rest = {name: value for name, value in facts.items() if name != "sha256"}
    if _digest(rest) != facts.get("sha256"):
        raise ValueError("it was changed since (it does not match its sha256)")
    return rest


def _digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON, whatever its layout and the order of its keys."""
    return digest_of(CANONICAL(facts))
