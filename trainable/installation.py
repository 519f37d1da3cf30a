"""Where this project's code is, and which: version, commit, digest. It need not be installed."""

import hashlib
import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlparse

PROJECT: Final = "face-attribute-sweep"
PACKAGES: Final = ("trainable", "sweep", "analysis")
NOT_INSTALLED: Final = "not installed"


def place() -> Path:
    """The folder of the three packages: a checkout, or site-packages."""
    return Path(__file__).resolve().parent.parent


def version() -> str:
    """The version of the distribution that this code belongs to; NOT_INSTALLED if to none, as in a plain checkout."""
    try:
        found = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
    files = Path(str(found.locate_file(""))).resolve()
    return found.version if place() in (files, _checkout_of(found)) else NOT_INSTALLED


def _checkout_of(found: metadata.Distribution) -> Path | None:
    """Where the code of a distribution is that was installed with `pip install -e`."""
    told = json.loads(found.read_text("direct_url.json") or "{}")
    if not told.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(told["url"]).path)).resolve()


def version_of(name: str) -> str:
    """The version of another distribution; NOT_INSTALLED if unknown."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the project's checkout and whether it has changes; None for a copy that git does not track."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(place()), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:  # an installed copy may be in a checkout of something else, which ignores it
        git("ls-files", "--error-unmatch", "trainable/__init__.py")
        return git("rev-parse", "HEAD"), git("status", "--porcelain") != ""
    except (OSError, subprocess.CalledProcessError):
        return None, None


def installation_said() -> str:
    """face-attribute-sweep 0.1.0, commit 1a2b3c4d5e6f, in /home/me/sweep."""
    commit, dirty = git_state()
    changed = " with uncommitted changes" if dirty else ""
    known = f", commit {commit[:12]}{changed}" if commit else ""
    return f"{PROJECT} {version()}{known}, in {place()}"


def code_digest() -> str:
    """SHA-256 of every Python file of the three packages, with its name."""
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((place() / package).rglob("*.py")):
            content = path.read_bytes()
            name = path.relative_to(place()).as_posix()
            found.update(f"{name} {len(content)}\n".encode() + content)
    return found.hexdigest()
