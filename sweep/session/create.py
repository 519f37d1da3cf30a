"""Creates a run folder: complete and with its split before any trial, or not at all."""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sweep.request.config import SweepConfig, dump_config
from sweep.request.open_run import Run
from sweep.request.refusals import missing, partial_of, refuse_existing, take_back
from trainable.errors import RequestError
from trainable.installation import git_state, version, version_of
from trainable.records.files import current_disk, make_folders, now, sha256_of
from trainable.records.manifest import (
    Configuration,
    Digests,
    Images,
    Manifest,
    Overlap,
    write_manifest,
)
from trainable.records.run_folder import RunFolder

if TYPE_CHECKING:
    from sweep.request.prepare import Prepared

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
    """A run with split, configuration and manifest that has no name yet; if it gets none, it is removed at the end.

    Raises:
        RequestError: a run with its name exists, or its folder can't be created.
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
    """Turn a partial run into a real one with this manifest: all of it appears at once.

    Raises:
        RequestError: another run with its name was created meanwhile, or the disk fails.
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
    """Raise RequestError for a disk error while the run folder is created."""
    try:
        yield
    except OSError as error:
        raise RequestError(f"the run folder {folder} can't be created: {error.strerror}") from None


def _begun_with(
    config: SweepConfig, prepared: "Prepared", run: RunFolder, command: Sequence[str]
) -> Manifest:
    commit, dirty = git_state()
    table, overlap = prepared.data.table, prepared.data.overlap
    return Manifest(
        project_version=version(),
        git_commit=commit,
        git_dirty=dirty,
        python=sys.version.split()[0],
        packages={name: version_of(name) for name in PACKAGES},
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
