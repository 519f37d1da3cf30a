"""Where this project's code lies, and what it is: version, commit, digest. Nothing of it need be installed."""

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
    """The folder that the three packages lie in: a checkout, or site-packages."""
    return Path(__file__).resolve().parent.parent


def version() -> str:
    """Of the distribution that this code is of; NOT_INSTALLED where it is of none, as in a checkout by itself."""
    try:
        found = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
    files = Path(str(found.locate_file(""))).resolve()
    return found.version if place() in (files, _checkout_of(found)) else NOT_INSTALLED


def _checkout_of(found: metadata.Distribution) -> Path | None:
    """Where the code of a distribution lies that was installed with `pip install -e`."""
    told = json.loads(found.read_text("direct_url.json") or "{}")
    if not told.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(told["url"]).path)).resolve()


def version_of(name: str) -> str:
    """Of another distribution; NOT_INSTALLED where nothing says so."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the project's checkout and whether it has changes; None for a copy that git does not know."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(place()), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:  # an installed copy may lie in somebody's own checkout, as a folder that is ignored there
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
