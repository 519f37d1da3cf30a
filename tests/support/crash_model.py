"""What a disk may hold after the power went: everything that was synced, and of all else any part.

`Recorder` works on real files and writes down every step. `SimulatedDisk` goes through these steps again, and gives
what may be left after any of them. It promises as little as file systems do:

* fsync of a file keeps its content, but not the name of a new file; fsync of a folder keeps the names in it, as they
  are then, but no content (fsync(2); LevelDB's fault_injection_test.cc drops new files of unsynced folders too).
* Of the changes of a folder since its last fsync (files and folders made, renamed, deleted) any subset is kept, in
  whatever order they were done, also where a later one is kept and an earlier one is lost. A rename within a folder is
  kept wholly or not at all (Pillai et al. 2014, "All File Systems Are Not Created Equal", OSDI, on ext2 to btrfs).
* Of what was written to a file since its last fsync nothing is kept, or all, or a beginning, or a beginning with zeros
  up to the new size, or any mixture of blocks of 512 bytes, old, new and zero. So a new file may be empty, and a line
  that was added may lack its beginning (delayed allocation, sizes written before data: Pillai et al., table 1).
* Bytes that were synced and not written over since stay as they are: a sector that is being written when the power
  goes is old or new ("powersafe overwrite", sqlite.org/psow.html). And a disk does what it says it has done.

A process that is killed loses nothing of this: it leaves what the others see, synced or not. What is not here: disks
that lie or decay, file systems that are damaged as a whole, several machines of which only some lose their power.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal, NamedTuple

from trainable.records.files import Disk, File

Tree = dict[str, "bytes | Tree"]
"""A folder: by name the content of a file, or another folder."""
BLOCK: Final = 512
Remains = Literal["nothing", "all", "a beginning", "a beginning and zeros", "blocks"]
ALL_REMAINS: Final[tuple[Remains, ...]] = (
    "nothing",
    "all",
    "a beginning",
    "a beginning and zeros",
    "blocks",
)


def read_tree(folder: Path) -> Tree:
    return {
        path.name: read_tree(path) if path.is_dir() else path.read_bytes()
        for path in folder.iterdir()
    }


def write_tree(tree: Tree, folder: Path) -> None:
    folder.mkdir()
    for name, what in tree.items():
        if isinstance(what, bytes):
            (folder / name).write_bytes(what)
        else:
            write_tree(what, folder / name)


# ---------------------------------------------------------------- what was done


Name = Literal["create", "content", "sync", "make folder", "rename", "delete", "sync folder"]


class Step(NamedTuple):
    """One change of the disk; paths are relative to the recorder's folder."""

    name: Name
    path: Path
    new_path: Path = Path()
    content: bytes = b""

    def __str__(self) -> str:
        to = f" to {self.new_path}" if self.name == "rename" else ""
        return f"{self.name} {self.path}{to}"


class Recorder(Disk):
    """Works on the files in a folder, and writes down each step but those to `forget`. Nothing is really synced.

    `forget` is given a step, and the one before it.
    """

    def __init__(
        self, folder: Path, forget: Callable[[Step, Step | None], bool] = lambda step, before: False
    ) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        self._forget = forget
        self._before: Step | None = None

    def note(
        self, name: Name, path: Path, new_path: Path | None = None, content: bytes = b""
    ) -> None:
        new = new_path.relative_to(self.folder) if new_path else Path()
        step = Step(name, path.relative_to(self.folder), new, content)
        if not self._forget(step, self._before):
            self.steps.append(step)
        self._before = step

    def open(self, path: Path, mode: str) -> File:
        is_new = not path.exists()
        file = _RecordedFile(path, mode, self)
        if is_new:
            self.note("create", path)
        elif mode == "wb":
            self.note("content", path)
        return file

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.note("rename", old, new)

    def unlink(self, path: Path) -> None:
        if path.exists():
            super().unlink(path)
            self.note("delete", path)

    def make_folder(self, path: Path) -> None:
        if not path.exists():
            super().make_folder(path)
            self.note("make folder", path)

    def remove_folder(self, path: Path) -> None:
        for inside in sorted(path.rglob("*"), reverse=True):
            self.note("delete", inside)
        if path.exists():
            super().remove_folder(path)
            self.note("delete", path)

    def sync(self, folder: Path) -> None:
        self.note("sync folder", folder)


class _RecordedFile(File):
    """What is written between two syncs is one step: what is kept of it after a power cut is the same."""

    def __init__(self, path: Path, mode: str, recorder: Recorder) -> None:
        super().__init__(path, mode)
        self._path = path
        self._recorder = recorder
        self._is_noted = True

    def write(self, content: object, /) -> int:
        self._is_noted = False
        return super().write(content)

    def truncate(self, size: int | None = None, /) -> int:
        self._note()
        self._is_noted = False
        size = super().truncate(size)
        self._note()
        return size

    def sync(self) -> None:
        self._note()
        self._recorder.note("sync", self._path)

    def close(self) -> None:
        if not self.closed:
            self._note()
        super().close()

    def _note(self) -> None:
        if not self._is_noted:
            self._recorder.note("content", self._path, content=self._path.read_bytes())
            self._is_noted = True


# ---------------------------------------------------------------- what may be left


@dataclass(eq=False)
class _Content:
    """A file: what was synced, and what it held since."""

    versions: list[bytes]


@dataclass(eq=False)
class _Folder:
    """A folder: the names that were synced, those that are there now, and what was changed in between."""

    synced: dict[str, "_Content | _Folder"] = field(default_factory=dict)
    now: dict[str, "_Content | _Folder"] = field(default_factory=dict)
    changes: list[dict[str, "_Content | _Folder | None"]] = field(default_factory=list)

    def change(self, names: dict[str, "_Content | _Folder | None"]) -> None:
        self.changes.append(names)
        _apply(names, self.now)


def _apply(
    change: dict[str, _Content | _Folder | None], names: dict[str, _Content | _Folder]
) -> None:
    for name, what in change.items():
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what


@dataclass(frozen=True)
class Fate:
    """What becomes of what was not synced. Each file and folder has draws of its own, so that others change none."""

    seed: str
    names_kept: float
    """How likely each change of a folder is kept."""
    contents: Sequence[Remains]
    """What may be left of what was written to a file."""

    def random(self, path: Path) -> Random:
        return Random(f"{self.seed}/{path}")


EXTREMES: Final[tuple[tuple[float, Remains], ...]] = (
    (0.0, "nothing"),
    (1.0, "all"),
    (1.0, "nothing"),
    (0.0, "all"),
)


def fate(number: int) -> Fate:
    """The extremes first (all names, or none; all contents, or none), then any mixture."""
    if number < len(EXTREMES):
        names, content = EXTREMES[number]
        return Fate(str(number), names, [content])
    return Fate(str(number), Random(number).choice((0.1, 0.5, 0.9)), ALL_REMAINS)


class SimulatedDisk:
    """A disk that holds `tree`, all of it synced, and does recorded steps."""

    def __init__(self, tree: Tree) -> None:
        self._root = _synced(tree)

    def do(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._do(step)

    def _do(self, step: Step) -> None:
        folder, name = self._folder(step.path.parent), step.path.name
        match step.name:
            case "create":
                folder.change({name: _Content([b""])})
            case "make folder":
                folder.change({name: _Folder()})
            case "delete":
                folder.change({name: None})
            case "rename":
                assert step.new_path.parent == step.path.parent
                folder.change({name: None, step.new_path.name: folder.now[name]})
            case "content":
                self._file(step.path).versions.append(step.content)
            case "sync":
                file = self._file(step.path)
                file.versions = file.versions[-1:]
            case "sync folder":
                synced = self._folder(step.path)
                synced.synced, synced.changes = dict(synced.now), []

    def _folder(self, path: Path) -> _Folder:
        found = self._root
        for name in path.parts:
            inside = found.now[name]
            assert isinstance(inside, _Folder)
            found = inside
        return found

    def _file(self, path: Path) -> _Content:
        found = self._folder(path.parent).now[path.name]
        assert isinstance(found, _Content)
        return found

    def seen(self) -> Tree:
        """What every process sees; what it leaves that is killed."""
        return _tree(
            self._root, lambda path, folder: folder.now, lambda path, file: file.versions[-1]
        )

    def after_power_cut(self, fate: Fate) -> Tree:
        """What may be there once the power is back."""

        def names(path: Path, folder: _Folder) -> dict[str, _Content | _Folder]:
            left, random = dict(folder.synced), fate.random(path)
            for change in folder.changes:
                if random.random() < fate.names_kept:
                    _apply(change, left)
            return left

        def content(path: Path, file: _Content) -> bytes:
            return _remains(file.versions, fate.contents, fate.random(path))

        return _tree(self._root, names, content)


def _synced(tree: Tree) -> _Folder:
    inside: dict[str, _Content | _Folder] = {
        name: _Content([what]) if isinstance(what, bytes) else _synced(what)
        for name, what in tree.items()
    }
    return _Folder(inside, dict(inside))


def _tree(
    folder: _Folder,
    names: Callable[[Path, _Folder], dict[str, _Content | _Folder]],
    content: Callable[[Path, _Content], bytes],
    path: Path = Path(),
) -> Tree:
    return {
        name: content(path / name, what)
        if isinstance(what, _Content)
        else _tree(what, names, content, path / name)
        for name, what in names(path, folder).items()
    }


def _remains(versions: Sequence[bytes], contents: Sequence[Remains], random: Random) -> bytes:
    """What is left of a file: the first of `versions` was synced, the others written since."""
    if len(versions) == 1:
        return versions[0]
    remains = random.choice(contents)
    if remains == "nothing":
        return versions[0]
    if remains == "all":
        return versions[-1]
    if remains == "blocks":
        return _blocks(versions, random)
    version = random.choice(versions[1:])
    untouched = _in_common(versions)
    cut = random.randint(untouched, len(version))
    zeros = len(version) - cut if remains == "a beginning and zeros" else 0
    return version[:cut] + bytes(zeros)


def _in_common(versions: Sequence[bytes]) -> int:
    """How many bytes at the beginning are the same in all of them."""
    shortest = min(map(len, versions))
    places = (i for i in range(shortest) if len({version[i] for version in versions}) > 1)
    return next(places, shortest)


def _blocks(versions: Sequence[bytes], random: Random) -> bytes:
    """Each block from any version; zeros where that version did not reach."""
    size = len(random.choice(versions[1:]))
    blocks = []
    for start in range(0, size, BLOCK):
        block = random.choice(versions)[start : start + BLOCK]
        blocks.append(block.ljust(BLOCK, b"\0"))
    return b"".join(blocks)[:size]
