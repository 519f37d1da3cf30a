"""The one way into a run folder: manifest, split and configuration, each as it was written, or refused by name."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sweep.request.config import SweepConfig, check_config
from sweep.request.yaml_text import keys_in
from trainable.config import RunSettings
from trainable.errors import RequestError
from trainable.records.files import sha256_of, write_atomically
from trainable.records.manifest import REMEDY, Manifest, digest_of, read_manifest
from trainable.records.paths import readable
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord


@dataclass(frozen=True)
class Run:
    """A run as its folder has it at one moment."""

    folder: RunFolder
    manifest: Manifest
    config: SweepConfig
    """What the run is asked for."""

    @property
    def settings(self) -> RunSettings | None:
        """What all trials share: as the first session resolved it, with the places and epochs that the run has now.

        None before that.
        """
        recorded = self.manifest.settings
        return recorded and recorded.model_copy(
            update={
                "folder": self.folder.path.absolute(),
                "images": self.manifest.image_folder,
                "weights": self.config.model.weights,
                "epochs": self.config.epochs,
            }
        )


@dataclass(frozen=True)
class HeldRun:
    """A run in the hands of this driver, whose session it is in: what it is asked for, and what it may write to."""

    folder: RunFolder
    config: SweepConfig
    session: int
    """The number under which the run is held."""

    def trial(self, trial_id: str) -> TrialRecord:
        """The record of a trial; it is written by this session alone."""
        return self.folder.trial(trial_id, self.session)


def open_run(path: str | PathLike[str]) -> Run:
    """The run in folder `path`; nothing is written. A sweep.yaml that is gone is no matter: the manifest has its text.

    Raises:
        RequestError: no run folder, one of a newer format, or manifest, split or sweep.yaml were changed.
    """
    folder = run_folder(path)
    manifest = read_manifest(folder)
    refuse_another_split(folder, manifest)
    refuse_another_text(folder, manifest)
    return Run(folder, manifest, config_of(folder, manifest))


def run_folder(path: str | PathLike[str]) -> RunFolder:
    """The paths of a run that is there.

    Raises:
        RequestError: no run folder.
    """
    folder = RunFolder(Path(path))
    if not folder.manifest.is_file():
        raise RequestError(f"RUN must be a run folder, but {path} has no manifest.json")
    return folder


def open_held_run(folder: RunFolder) -> Run:
    """The run in a folder that the caller holds; a sweep.yaml that is gone, or that a kill left behind, is made again.

    Raises:
        RequestError: as open_run.
    """
    run = open_run(folder.path)
    asked = run.manifest.configuration
    if not folder.config.exists() or digest_of(_text(folder)) != asked.sha256:
        write_atomically(folder.config, asked.text.encode())
    return run


def config_of(folder: RunFolder, manifest: Manifest) -> SweepConfig:
    """What the run is asked for; as the manifest has it, since sweep.yaml is a copy for reading.

    Raises:
        RequestError: the text on record is no configuration.
    """
    source = f"the configuration in {folder.manifest}"
    with readable(folder.manifest, REMEDY):
        return check_config(*keys_in(manifest.configuration.text, source), source)


def refuse_another_split(folder: RunFolder, manifest: Manifest) -> None:
    """Raises RequestError where the split is not the one that the run began with."""
    recorded = manifest.digests.split
    try:
        digest = sha256_of(folder.split)
    except OSError as error:
        raise RequestError(
            f"there must be a split at {folder.split}, but it can't be read: {error.strerror}; put it back"
        ) from None
    if digest != recorded:
        raise RequestError(
            f"{folder.split} must have the SHA-256 {recorded} that was recorded at the start, but it has {digest}: "
            "it was changed, and training images may now be in the test part; put the old one back"
        )


def refuse_another_text(folder: RunFolder, manifest: Manifest) -> None:
    """Raises RequestError where sweep.yaml was changed; an earlier request's text is an extension killed half-way."""
    if not folder.config.exists():
        return
    if digest_of(_text(folder)) not in [asked.sha256 for asked in manifest.configurations]:
        raise RequestError(
            f"{folder.config} must stay as the run has it, but it was changed; take the change back or delete the "
            "file (it is made again), and change the run by `sweep extend` or `sweep resume RUN KEY=VALUE`"
        )


def _text(folder: RunFolder) -> str:
    return folder.config.read_bytes().decode("utf-8", errors="replace")
