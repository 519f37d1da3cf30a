"""The run folder's birth, its manifest: what was asked of it, and its sessions."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweep.config import SweepConfig, dump_config, load_config
from trainable.config import RequestError, TrialConfig
from trainable.files import now, sha256_of, sync_folder, write_atomically, write_json
from trainable.record import FORMAT_VERSION, RunFolder, StaleSession, TrialRecord
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
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        (partial / "trials").mkdir(parents=True)
        run = RunFolder(partial)
        prepared.data.split.to_parquet(run.split, index=False)
        run.config.write_text(dump_config(config), encoding="utf-8")
        write_json(run.manifest, _manifest(config, prepared, run, command))
        sync_folder(partial)
        partial.rename(folder)
    except OSError as error:
        raise RequestError(f"the run folder {folder} can't be made: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(folder.parent)
    return RunFolder(folder)


def forget_unbegun(run: RunFolder) -> None:
    """Take back a run folder of which no session ever began: what was asked for was refused."""
    if not run.read_manifest()["sessions"]:
        shutil.rmtree(run.path, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """A run is never written over.

    Raises:
        RequestError: something is there.
    """
    if folder.exists() or folder.is_symlink():
        raise RequestError(
            f"the run folder {folder} must be new, but it exists; "
            f"`sweep resume {folder}` goes on with it, `name={folder.name}-2` starts another beside it"
        )


def _manifest(
    config: SweepConfig, prepared: "Prepared", run: RunFolder, command: Sequence[str]
) -> dict[str, Any]:
    commit, dirty = git_state()
    table = prepared.data.table
    return {
        "format_version": FORMAT_VERSION,
        "project_version": metadata.version(PROJECT),
        "git_commit": commit,
        "git_dirty": dirty,
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "created": now(),
        "seeds": {"split": config.data.split.seed, "search": config.search.seed},
        "target": table.target,
        "classes": list(table.classes),
        "configurations": [asked_for(config, command)],
        "images": {
            "count": len(table.rows),
            "overlap": prepared.data.overlap.facts(),
            "dropped": list(table.dropped),
            "unlabelled": list(table.unlabelled),
            "unreadable": list(table.unreadable),
        },
        "digests": {
            "table": sha256_of(table.table) if table.table else None,
            "images": prepared.data.audit.digest,
            "split": sha256_of(run.split),
            "weights": prepared.backbone.digest(),
        },
        "warnings": list(prepared.warnings),
        "image_folder": str(table.images),
        "table": str(table.table) if table.table else None,
        "file_column": table.file_column,
        "understood": list(prepared.data.understood()),
        "sessions": [],
    }


def asked_for(config: SweepConfig, command: Sequence[str]) -> dict[str, Any]:
    """One entry of `configurations`; the last one is the run's, and sweep.yaml its copy for reading."""
    text = dump_config(config)
    return {"at": now(), "command": list(command), "sha256": _digest(text), "text": text}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_config(run: RunFolder) -> SweepConfig:
    """The configuration of a run that the caller holds; an extension that was killed half-way is completed.

    Raises:
        RequestError: sweep.yaml was changed by hand.
    """
    entries = run.read_manifest()["configurations"]
    text = run.config.read_text(encoding="utf-8", errors="replace") if run.config.exists() else ""
    if _digest(text) != entries[-1]["sha256"]:
        if text and _digest(text) not in [entry["sha256"] for entry in entries]:
            raise RequestError(
                f"{run.config} must stay as the run has it, but it was changed; take the change back or delete the "
                "file (it is made again), and change the run by `sweep extend`"
            )
        write_atomically(run.config, entries[-1]["text"].encode())
    return load_config(run.config)


def change_config(run: RunFolder, config: SweepConfig, command: Sequence[str]) -> None:
    """Let `config` be what the run in a held folder is asked for. What is worth sharing is decided anew."""
    manifest = run.read_manifest()
    manifest["configurations"].append(asked_for(config, command))
    manifest.pop("sharing", None)
    write_json(run.manifest, manifest)
    read_config(run)


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
    manifest = run.read_manifest()
    manifest["sessions"].append(
        {
            "number": number,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": now(),
            "ended": None,
            "how": None,
            "devices": [dict(facts) for facts in devices],
        }
    )
    write_json(run.manifest, manifest)


def close_session(run: RunFolder, number: int, how: str) -> None:
    """Write down how a session ended; one that another has taken over writes nothing any more."""
    try:
        run.refuse_stale(number)
    except StaleSession:
        return
    manifest = run.read_manifest()
    for session in manifest["sessions"]:
        if session["number"] == number:
            session |= {"ended": now(), "how": how}
    write_json(run.manifest, manifest)
