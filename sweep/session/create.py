"""A run folder is made, asked for something else, and its sessions begin and end."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweep.request.config import SweepConfig, dump_config
from sweep.request.open_run import Run
from sweep.request.refusals import missing, partial_of, refuse_existing, take_back
from trainable.errors import RequestError
from trainable.records.files import current_disk, make_folders, now, sha256_of, write_json
from trainable.records.manifest import (
    Configuration,
    Digests,
    Granted,
    Images,
    Manifest,
    Overlap,
    Session,
    SessionEnd,
    read_manifest,
    write_manifest,
)
from trainable.records.paths import StaleSession
from trainable.records.run_folder import RunFolder

if TYPE_CHECKING:
    from sweep.request.prepare import Prepared

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


@contextmanager
def partial_run(config: SweepConfig, prepared: "Prepared", command: Sequence[str]) -> Iterator[Run]:
    """A run with split, configuration and manifest that has no name yet; without one by the end, nothing of it stays.

    Raises:
        RequestError: a run of its name exists, or no folder can be made there.
    """
    refuse_existing(config.folder)
    made = missing(config.storage)
    partial, disk = partial_of(config.folder), current_disk()
    run = RunFolder(partial)
    try:
        with _made(config.folder):
            make_folders(partial / "trials")
            disk.write(run.split, prepared.data.split.to_parquet(index=False))
            disk.write(run.config, dump_config(config).encode())
            manifest = _begun_with(config, prepared, run, command)
            write_manifest(run, manifest)
        yield Run(run, manifest, config)
    finally:
        disk.remove_folder(partial)
        take_back(made)


def give_name(run: Run, manifest: Manifest) -> RunFolder:
    """Let a partial run be one, with this manifest: all of it appears at once.

    Raises:
        RequestError: another run of its name was made meanwhile, or the disk fails.
    """
    folder, disk = run.config.folder, current_disk()
    refuse_existing(folder)
    with _made(folder):
        write_manifest(run.folder, manifest)
        disk.rename(run.folder.path, folder)
        disk.sync(folder.parent)
    return RunFolder(folder.absolute())


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Raises RequestError for an error of the disk while the run folder is made."""
    try:
        yield
    except OSError as error:
        raise RequestError(f"the run folder {folder} can't be made: {error.strerror}") from None


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
            images=prepared.data.inspection.digest,
            split=sha256_of(run.split),
            weights=prepared.backbone.digest(),
        ),
        warnings=prepared.warnings,
        image_folder=table.images,
        table=table.table,
        file_column=table.file_column,
        understood=tuple(prepared.data.understood()),
    )


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


def open_session(
    run: RunFolder,
    number: int,
    devices: Sequence[Mapping[str, Any]] = (),
    granted: Granted | None = None,
) -> None:
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
        granted=granted,
    )
    write_manifest(run, read_manifest(run).with_session(begun))


def close_session(run: RunFolder, number: int, how: SessionEnd) -> None:
    """Write down how a session ended; one that another has taken over writes nothing any more."""
    try:
        run.refuse_stale(number)
    except StaleSession:
        return
    write_manifest(run, read_manifest(run).with_session_ended(number, how, now()))
