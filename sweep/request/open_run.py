"""The only way to open a run folder: manifest, split and configuration, each unchanged, or refused by name."""

from dataclasses import dataclass
from functools import lru_cache
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
    """A run as its folder describes it at one moment."""

    folder: RunFolder
    manifest: Manifest
    config: SweepConfig
    """What the run is asked for."""

    @property
    def settings(self) -> RunSettings | None:
        """What all trials share: as the first session resolved it, with the run's present paths and epochs.

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
    """A run that this driver's session holds: what is asked for, and where it may write."""

    folder: RunFolder
    config: SweepConfig
    session: int
    """The number under which the run is held."""

    def trial(self, trial_id: str) -> TrialRecord:
        """The record of a trial; only this session can write it."""
        return self.folder.trial(trial_id, self.session)


def open_run(path: str | PathLike[str]) -> Run:
    """The run in folder `path`; nothing is written. A missing sweep.yaml does not matter: the manifest has its text.

    Raises:
        RequestError: not a run folder, one of a newer format, or manifest, split or sweep.yaml were changed.
    """
    folder = run_folder(path)
    manifest = read_manifest(folder)
    refuse_another_split(folder, manifest)
    refuse_another_text(folder, manifest)
    return Run(folder, manifest, config_of(folder, manifest))


def run_folder(path: str | PathLike[str]) -> RunFolder:
    """The paths of an existing run.

    Raises:
        RequestError: not a run folder.
    """
    folder = RunFolder(Path(path))
    if not folder.manifest.is_file():
        raise RequestError(f"RUN must be a run folder, but {path} has no manifest.json")
    return folder


def open_held_run(folder: RunFolder) -> Run:
    """The run in a folder that the caller holds; writes sweep.yaml again if it is missing or left behind by a kill.

    Raises:
        RequestError: as in open_run.
    """
    run = open_run(folder.path)
    asked = run.manifest.configuration
    if not folder.config.exists() or digest_of(_text(folder)) != asked.sha256:
        write_atomically(folder.config, asked.text.encode())
    return run


def config_of(folder: RunFolder, manifest: Manifest) -> SweepConfig:
    """The run's configuration, from the manifest: sweep.yaml is only a copy for people to read.

    Raises:
        RequestError: the recorded text is not a configuration.
    """
    source = f"the configuration in {folder.manifest}"
    with readable(folder.manifest, REMEDY):
        return _configuration(manifest.configuration.text, source)


@lru_cache(maxsize=8)
def _configuration(text: str, source: str) -> SweepConfig:
    """What `text` says is always the same: who looks at a run again and again reads the YAML once."""
    return check_config(*keys_in(text, source), source)


def refuse_another_split(folder: RunFolder, manifest: Manifest) -> None:
    """Raise RequestError if the split is not the one that the run began with."""
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
    """Raise RequestError if sweep.yaml was changed; the text of an earlier request is left by a killed extension."""
    if not folder.config.exists():
        return
    if digest_of(_text(folder)) not in [asked.sha256 for asked in manifest.configurations]:
        raise RequestError(
            f"{folder.config} must not be edited, but it was changed; undo the change or delete the file (it will be "
            "written again), and change the run by `sweep extend` or `sweep resume RUN KEY=VALUE`"
        )


def _text(folder: RunFolder) -> str:
    return folder.config.read_bytes().decode("utf-8", errors="replace")
