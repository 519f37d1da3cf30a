"""Every order of the steps of several processes on one disk, a crash between any two of them included.

A process is shipped code on a disk in memory, which stops it before each step. Where it stands follows from the answers
that its steps got so far: to look further it is run again from its start with those answers, up to its next step. So
two ways to the same files and the same answers are one state, which is looked at once.

What is assumed of the disk: each step is atomic, but a file that was created is empty until it is written, as a second
step. What is assumed of time: whoever lives moves his files while somebody else waits, unless `silence` is allowed.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from trainable.records.files import Disk

GONE = -1


class File(NamedTuple):
    content: bytes
    moved: int
    owner: int | None
    """Which process made it."""


Files = tuple[tuple[str, File], ...]  # in order of their names


class Step(NamedTuple):
    name: str
    path: str = ""
    what: Any = None


class Paused(BaseException):
    """The process stands before this step."""

    def __init__(self, step: Step) -> None:
        self.step = step


class Answered(Disk):
    """Answers the first steps of a process as they were answered before, and stops it at the next one.

    A file whose name begins with a dot is its writer's alone until it is renamed: both are one step. What is read of
    files that nobody writes (`unchanging`; None: not there) is no step.
    """

    def __init__(self, answers: Sequence[Any], unchanging: Mapping[str, bytes | None]) -> None:
        self._answers = iter(answers)
        self._unchanging = unchanging
        self._aside = b""
        self.milestone: Hashable = None

    def step(self, name: str, path: Path | str = "", what: Any = None) -> Any:
        try:
            answer = next(self._answers)
        except StopIteration:
            raise Paused(Step(name, str(path), what)) from None
        self.milestone = None
        if isinstance(answer, type) and issubclass(answer, OSError):
            raise answer
        return answer

    def create(self, path: Path) -> None:
        self.step("create", path)

    def write(self, path: Path, content: bytes) -> None:
        if path.name.startswith("."):
            self._aside = content
        else:
            self.step("write", path, content)

    def rename(self, old: Path, new: Path) -> None:
        if old.name.startswith("."):
            self.step("replace", new, self._aside)
        else:
            self.step("rename", old, str(new))

    def unlink(self, path: Path) -> None:
        self.step("unlink", path)

    def read(self, path: Path) -> bytes:
        content: bytes | None
        if str(path) in self._unchanging:
            content = self._unchanging[str(path)]
        else:
            content = self.step("read", path)
        if content is None:
            raise FileNotFoundError(path)
        return content

    def names(self, folder: Path) -> list[str]:
        return list(self.step("names", folder))

    def moved(self, path: Path) -> int | None:
        answer: int | None = self.step("moved", path)
        return answer

    def make_folder(self, path: Path) -> None:
        pass

    def sync(self, folder: Path) -> None:
        pass

    def sleep(self, seconds: float) -> None:
        self.step("sleep")

    def reach(self, milestone: Hashable) -> None:
        """What the process does from here on follows from `milestone` alone, however it came here."""
        self.milestone = milestone

    def holds(self, number: int) -> None:
        """The process believes that it holds what all of them are after, by this number, until its next step."""
        self.step("holds", what=number)


def act(files: dict[str, File], step: Step, who: int) -> Any:
    """Do one step; its answer, or the kind of error that it raises."""
    there = files.get(step.path)
    match step.name:
        case "create" if there:
            return FileExistsError
        case "create":
            files[step.path] = File(b"", 0, who)
        case "write" | "replace":
            files[step.path] = File(step.what, there.moved + 1 if there else 0, who)
        case "read":
            return there.content if there else None
        case "moved":
            return there.moved if there else None
        case "names":
            inside = (path.rpartition("/") for path in files)
            return tuple(name for folder, _, name in inside if folder == step.path)
        case "unlink":
            files.pop(step.path, None)
        case "rename" if not there:
            return FileNotFoundError
        case "rename":
            files[step.what] = files.pop(step.path)
        case _:
            raise ValueError(step)
    return None


class AtOnce(Answered):
    """The same disk for one process that nobody interrupts; all others are dead, which it sees or not."""

    def __init__(
        self, files: Files, unchanging: Mapping[str, bytes | None], sees_dead: bool | None
    ) -> None:
        super().__init__((), unchanging)
        self.files = dict(files)
        self._sees_dead = sees_dead

    def step(self, name: str, path: Path | str = "", what: Any = None) -> Any:
        if name == "lives":
            return self._sees_dead
        if name in ("sleep", "holds"):
            return None
        answer = act(self.files, Step(name, str(path), what), 0)
        if isinstance(answer, type):
            raise answer
        return answer


class State(NamedTuple):
    disk: int
    """Which of `Orders.disks`."""
    stands: tuple[int, ...]
    """Where each process stands, of `Orders.places`; GONE after its end or a crash."""
    drawn: tuple[int, ...]
    """Every number by which a process ever believed to hold."""


class Place(NamedTuple):
    """Where a process may stand: its next step, None at its end."""

    process: int
    answers: tuple[Any, ...]
    step: Step | None


@dataclass
class Orders:
    """All orders of the steps of `programs`, from `files` on."""

    programs: Sequence[Callable[[Answered], object]]
    files: Files
    sees: Callable[[int, int, bool], bool | None]
    """What `who` sees of process number `pid` that lives or not; None: nothing."""
    pids: Mapping[int, int]
    """Process number → program; others are dead."""
    unchanging: Mapping[str, bytes | None] = field(default_factory=dict)
    silence: bool = False
    """May one that lives not move his files while another watches? Else nobody is silent for that long."""
    disks: list[Files] = field(init=False, default_factory=list)
    places: list[Place] = field(init=False, default_factory=list)
    came_from: dict[State, State | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._after: dict[tuple[int, Any], int] = {}
        self._done: dict[tuple[int, int], tuple[Any, int]] = {}

    def states(self) -> Iterator[State]:
        """Every state that can be reached, once, the nearest ones first."""
        places = [self._place(process, ()) for process in range(len(self.programs))]
        starts = tuple(place if self.places[place].step else GONE for place in places)
        first = State(self._disk(dict(self.files)), starts, ())
        first = first._replace(drawn=tuple(number for _, number in self.holders(first)))
        self.came_from = {first: None}
        waiting = deque([first])
        while waiting:
            state = waiting.popleft()
            yield state
            for later in self._next(state):
                if later not in self.came_from:
                    self.came_from[later] = state
                    waiting.append(later)

    def holders(self, state: State) -> list[tuple[int, int]]:
        """Process and number of those that live and believe to hold."""
        found = []
        for process, stand in enumerate(state.stands):
            step = self.places[stand].step if stand != GONE else None
            if step is not None and step.name == "holds":
                found.append((process, step.what))
        return found

    def story(self, state: State) -> str:
        """How a state came about, a step a line."""
        lines: list[str] = []
        before = self.came_from[state]
        while before is not None:
            pairs = enumerate(zip(before.stands, state.stands, strict=True))
            process, (stood, stands) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
            step = self.places[stood].step
            ended = " and is gone" if stands == GONE else ""
            lines.append(f"process {process} at {step}{ended}")
            state, before = before, self.came_from[before]
        return "\n".join(reversed(lines))

    def _number(self, what: Hashable, known: list[Any], entry: Any) -> int:
        """Where `entry` stands in `known`, into which it is put the first time that `what` comes."""
        if what not in self._numbers:
            self._numbers[what] = len(known)
            known.append(entry)
        return self._numbers[what]

    def _disk(self, files: Mapping[str, File]) -> int:
        in_order = tuple(sorted(files.items()))
        return self._number(("disk", in_order), self.disks, in_order)

    def _place(self, process: int, answers: tuple[Any, ...]) -> int:
        step, disk = None, Answered(answers, self.unchanging)
        try:
            self.programs[process](disk)
        except Paused as paused:
            step = paused.step
        reached = "place", process, disk.milestone or answers
        return self._number(reached, self.places, Place(process, answers, step))

    def _next(self, state: State) -> Iterator[State]:
        for process, stand in enumerate(state.stands):
            if stand != GONE:
                yield self._stands(state, process, GONE, state.disk)  # a crash
                for answer, disk in self._ways(state, process, stand):
                    yield self._went_on(state, process, answer, disk)

    def _ways(self, state: State, process: int, stand: int) -> Iterable[tuple[Any, int]]:
        """Every way in which the next step may go: its answer, and the disk after it."""
        step = self.places[stand].step
        assert step is not None
        if step.name == "holds":
            return [(None, state.disk)]
        if step.name == "lives":
            return [(self._sees(state, process, step.what), state.disk)]
        if step.name == "sleep":
            return [(None, disk) for disk in self._waited(state)]
        if (state.disk, stand) not in self._done:
            files = dict(self.disks[state.disk])
            answer = act(files, step, process)
            self._done[state.disk, stand] = answer, self._disk(files)
        return [self._done[state.disk, stand]]

    def _sees(self, state: State, process: int, pid: int) -> bool | None:
        there = self.pids.get(pid, len(state.stands))
        living = there < len(state.stands) and state.stands[there] != GONE
        return self.sees(process, pid, living)

    def _waited(self, state: State) -> Iterator[int]:
        """Whoever lives moves what he made, but the silent ones."""
        living = [process for process, stand in enumerate(state.stands) if stand != GONE]
        for count in range(len(living) + 1 if self.silence else 1):
            for silent in combinations(living, count):
                moving = set(living) - set(silent)
                files = dict(self.disks[state.disk])
                for path, file in files.items():
                    if file.owner in moving:
                        files[path] = file._replace(moved=file.moved + 1)
                yield self._disk(files)

    def _went_on(self, state: State, process: int, answer: Any, disk: int) -> State:
        stood = state.stands[process]
        if (stood, answer) not in self._after:
            answers = self.places[stood].answers
            self._after[stood, answer] = self._place(process, (*answers, answer))
        stand = self._after[stood, answer]
        step = self.places[stand].step
        later = self._stands(state, process, GONE if step is None else stand, disk)
        if step is not None and step.name == "holds":
            later = later._replace(drawn=tuple(sorted((*later.drawn, step.what))))
        return later

    @staticmethod
    def _stands(state: State, process: int, stand: int, disk: int) -> State:
        stands = (*state.stands[:process], stand, *state.stands[process + 1 :])
        return State(disk, stands, state.drawn)
