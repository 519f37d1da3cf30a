"""A zip of images, extracted once, atomically and safely."""

import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Final

from filelock import FileLock

from trainable.errors import RequestError

DAMAGE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)
"""What Python raises for a damaged zip; ValueError for a name that is not the UTF-8 which it says it is."""


def damaged(error: Exception) -> str:
    """What is said of a zip that cannot be read; an EOFError has no words of its own."""
    return f"it is damaged: {str(error) or 'it ends too early'}"


def unpacked(images: Path) -> Path:
    """The folder of the images; a zip is extracted once, beside itself, into `<name>.extracted`.

    Raises:
        RequestError: neither a folder nor a zip; a damaged, encrypted or unsafe zip; too little disk space.
    """
    if images.is_dir():
        return images
    if not images.is_file():
        raise RequestError(f"data.images must be a folder or a zip, but there is no {images}")
    if not zipfile.is_zipfile(images):
        raise RequestError(f"data.images must be a folder or a zip, but {images} is neither")
    stat_ = images.stat()
    target = images.with_name(f"{images.name}.extracted")
    mark = f"{stat_.st_size} bytes, changed {stat_.st_mtime_ns}\n"
    if _is_whole(target, mark):
        return target
    lock = images.with_name(f".{images.name}.lock")
    partial = target.with_name(f".{target.name}.partial")
    try:
        with FileLock(lock):
            if _is_whole(target, mark):
                return target
            for old in (partial, target):
                if old.exists():
                    shutil.rmtree(old)
            try:
                _extract(images, partial)
                (partial / ".complete").write_text(mark)
                partial.rename(target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                lock.unlink(missing_ok=True)  # whoever waits for it would fail too
                raise
    except (OSError, NotImplementedError) as error:
        raise RequestError(
            f"{images} must be extracted beside itself, but that failed ({error}); "
            "extract it yourself and give the folder as data.images"
        ) from None
    return target


def _is_whole(folder: Path, mark: str) -> bool:
    """Is it complete? Older versions left backslashes in names, so that no image was found."""
    done = folder / ".complete"
    if not done.is_file() or done.read_text() != mark:
        return False
    return not any("\\" in name for name in os.listdir(folder))


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for member in members:
                _refuse_unsafe(archive, member)
                member.filename = member.filename.replace(
                    "\\", "/"
                )  # some systems write such names
            _refuse_doubles(archive, members)
            size = sum(member.file_size for member in members)
            free = shutil.disk_usage(archive.parent).free
            if size > free:
                raise RequestError(
                    f"extracting {archive} needs {size / 1e9:.1f} GB, but {archive.parent} has "
                    f"{free / 1e9:.1f} GB free; make room or give the extracted folder as data.images"
                )
            folder.mkdir()
            for member in members:
                opened.extract(member, folder)
    except DAMAGE as error:
        raise RequestError(f"{archive} must be a whole zip, but {damaged(error)}") from None


def _refuse_doubles(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    names = Counter(member.filename for member in members if not member.is_dir())
    again = [name for name, count in names.items() if count > 1]
    if again:
        raise RequestError(
            f"{archive} must hold each file once, but it holds {again[0]!r} {names[again[0]]} times; not extracted"
        )


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    if ".." in name.split("/") or name.startswith("/") or name[1:2] == ":":
        raise RequestError(
            f"members of {archive} must stay inside it, but {member.filename!r} points outside; not extracted"
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise RequestError(
            f"{archive} must hold no links, but {member.filename!r} is one; not extracted"
        )
    if member.flag_bits & 0x1:
        raise RequestError(
            f"{archive} must not be encrypted, but {member.filename!r} is; extract it yourself"
        )
