"""A run folder is made, asked for something else, and its sessions begin and end."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweep.config import SweepConfig, dump_config
from sweep.open_run import Run
from sweep.requests import partial_of, refuse_existing
from trainable.config import RequestError, TrialConfig
from trainable.files import (
    current_disk,
    make_folders,
    now,
    sha256_of,
    write_atomically,
    write_json,
)
from trainable.manifest import (
    Configuration,
    Digests,
    Images,
    Manifest,
    Overlap,
    Session,
    SessionEnd,
    read_manifest,
    write_manifest,
)
from trainable.record import RunFolder, StaleSession, TrialRecord
from trainable.rows import Origin

if TYPE_CHECKING:
    from sweep.prepare import Prepared

PROJECT: Final = "face-attribute-sweep"
PACKAGES: Final = (
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "numpy",
    "scikit-learn",
    "pillow",
    "pandas",
)


def create_run(config: SweepConfig, prepared: "Prepared", command: Sequence[str]) -> RunFolder:
    """Make the run folder with split, configuration and manifest: all of it appears at once, or nothing.

    Raises:
        RequestError: the folder exists, or can't be made.
    """
    folder = config.folder
    refuse_existing(folder)
    partial = partial_of(folder)
    run, disk = RunFolder(partial), current_disk()
    try:
        disk.remove_folder(partial)
        make_folders(partial / "trials")
        split = prepared.data.split.to_parquet(index=False)
        disk.write(run.split, split)
        disk.write(run.config, dump_config(config).encode())
        write_manifest(run, _begun_with(config, prepared, run, command))
        disk.rename(partial, folder)
    except OSError as error:
        raise RequestError(f"the run folder {folder} can't be made: {error.strerror}") from None
    finally:
        disk.remove_folder(partial)
    disk.sync(folder.parent)
    return RunFolder(folder)


def forget_unbegun(run: RunFolder) -> None:
    """Take back a run folder of which no session ever began: what was asked for was refused. It goes at once, too."""
    if not read_manifest(run).sessions:
        partial, disk = partial_of(run.path), current_disk()
        disk.rename(run.path, partial)
        disk.sync(partial.parent)
        disk.remove_folder(partial)


def _begun_with(
    config: SweepConfig, prepared: "Prepared", run: RunFolder, command: Sequence[str]
) -> Manifest:
    commit, dirty = git_state()
    table, overlap = prepared.data.table, prepared.data.overlap
    return Manifest(
        project_version=metadata.version(PROJECT),
        git_commit=commit,
        git_dirty=dirty,
        python=sys.version.split()[0],
        packages={name: metadata.version(name) for name in PACKAGES},
        host=socket.gethostname(),
        created=now(),
        seeds={"split": config.data.split.seed, "search": config.search.seed},
        target=table.target,
        classes=table.classes,
        configurations=(Configuration.of(dump_config(config), command),),
        images=Images(
            count=len(table.rows),
            overlap=Overlap(**overlap.facts()),
            dropped=table.dropped,
            unlabelled=table.unlabelled,
            unreadable=table.unreadable,
        ),
        digests=Digests(
            table=sha256_of(table.table) if table.table else None,
            images=prepared.data.audit.digest,
            split=sha256_of(run.split),
            weights=prepared.backbone.digest(),
        ),
        warnings=prepared.warnings,
        image_folder=table.images,
        table=table.table,
        file_column=table.file_column,
        understood=tuple(prepared.data.understood()),
    )


def change_config(
    run: Run, config: SweepConfig, command: Sequence[str], sharing_stays: bool = False
) -> None:
    """Let `config` be what a held run is asked for. What is worth sharing is decided anew, or stays."""
    asked = Configuration.of(dump_config(config), command)
    write_manifest(run.folder, run.manifest.with_configuration(asked, sharing_stays))
    write_atomically(run.folder.config, asked.text.encode())


def ask_beside(run: RunFolder, wanted: Sequence[TrialConfig], origin: Origin) -> None:
    """Put trials beside the search on record, as `pending`: neither ASHA nor the sampler sees them.

    The run must be held by the caller.
    """
    number = max((record.origin.number for record in run.trials()), default=-1) + 1
    for offset, settings in enumerate(wanted):
        TrialRecord.create(run, settings, number + offset, None, origin)


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the project's checkout and whether it has changes; None for an installed copy."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), git("status", "--porcelain") != ""
    except (OSError, subprocess.CalledProcessError):
        return None, None


def open_session(run: RunFolder, number: int, devices: Sequence[Mapping[str, Any]] = ()) -> None:
    """The session of a held run begins now, on these kinds of devices. `number` is the hold's.

    Raises:
        StaleSession: another driver has taken the run over.
    """
    newest = run.newest_drawn()
    if newest > number:
        raise StaleSession(f"session {newest} has taken over from session {number}")
    write_json(run.session, {"number": number})
    begun = Session(
        number=number,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now(),
        devices=tuple(dict(facts) for facts in devices),
    )
    write_manifest(run, read_manifest(run).with_session(begun))


def close_session(run: RunFolder, number: int, how: SessionEnd) -> None:
    """Write down how a session ended; one that another has taken over writes nothing any more."""
    try:
        run.refuse_stale(number)
    except StaleSession:
        return
    write_manifest(run, read_manifest(run).with_session_ended(number, how, now()))
