"""The power goes after any step of any command, and what was not synced is lost, torn or kept: what a sweep comes to is
the same as if nothing had happened, and nothing is lost that was on record.

A schedule is a story, a step after which the power goes, and a number from which follows what is left. One that fails
says how to run it again. docs/explanation/reliability.md says how many were tried.
"""

import gc
import hashlib
import logging
import os
import re
import shutil
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise, product
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import tests.support.crash_sessions as crash_sessions
from analysis.frames.ledger import Opening, parse_ledger
from sweep.session.extend import Request
from sweep.session.rungs import decisions
from sweep.show.check import check_run
from tests.support.crash_model import (
    Fate,
    Recorder,
    SimulatedDisk,
    Step,
    Tree,
    fate,
    read_tree,
    write_tree,
)
from tests.support.crash_sessions import Network, OneAfterAnother, Sessions, make_sessions
from tests.support.faces import Faces
from trainable.data import read_split
from trainable.errors import RequestError
from trainable.records.files import sha256_of, writing_to
from trainable.records.manifest import read_manifest
from trainable.records.right import agrees, read_right
from trainable.records.rows import RESULT_COLUMNS, Status
from trainable.records.run_folder import RunFolder
from trainable.records.state import checksum
from trainable.records.trial_folder import TrialRecord

pytestmark = pytest.mark.ray  # imports it
ONE = os.environ.get("CRASH", "")
"""One schedule to run again: story/step/number."""
split_of = crash_sessions.once(read_split)
NOT_RECORDS = {"log.txt", "sweep.log", ".test.lock"}
"""Files that nothing is read back from, and which are written past the records' disk."""


# ---------------------------------------------------------------- the stories


def run(sessions: Sessions) -> None:
    """Refused, begun, interrupted within a trial, and gone on with."""
    with pytest.raises(RequestError, match="no such node"):
        sessions.start(refused=True)
    OneAfterAnother.steps = 6
    sessions.start()
    OneAfterAnother.steps = inf
    sessions.resume()


def run_again(sessions: Sessions) -> None:
    if sessions.run.manifest.is_file():
        sessions.resume()
    else:
        sessions.start()


MORE = Request(trials="+1", epochs=4)


def extend(sessions: Sessions) -> None:
    sessions.extend(MORE)


def extend_again(sessions: Sessions) -> None:
    if len(read_manifest(sessions.run).configurations) == 1:
        sessions.extend(MORE)
    else:
        sessions.resume()


SECOND_LOOK = Request(retry_failed=True, audit=1)


def second_look(sessions: Sessions) -> None:
    Network.mended = True
    sessions.extend(SECOND_LOOK)


def second_look_again(sessions: Sessions) -> None:
    """--retry-failed or --audit, killed while trials are marked, is asked again."""
    Network.mended = True
    records = sessions.run.trials()
    failed = any(record.status().status is Status.FAILED for record in records)
    audited = any(record.asked.origin == "audit" for record in records)
    if failed or not audited:
        sessions.extend(Request(retry_failed=failed, audit=None if audited else 1))
    else:
        sessions.resume()


def replicate(sessions: Sessions) -> None:
    sessions.replicate(1, 2)


def replicate_again(sessions: Sessions) -> None:
    try:
        sessions.replicate(1, 2)
    except RequestError as error:
        assert "all of them are on record" in str(error)
        sessions.resume()


def take_over(sessions: Sessions) -> None:
    """Within a trial of one driver another takes the run, and ends it; then the first one goes on, and stops."""
    OneAfterAnother.steps = 6
    OneAfterAnother.in_between = lambda: sessions.resume(take_over=True)
    sessions.start()


def open_test(sessions: Sessions) -> None:
    sessions.test()


@dataclass(frozen=True)
class Story:
    name: str
    calm: Callable[[Sessions], None]
    again: Callable[[Sessions], None]
    """What a person types after a power cut."""
    schedules: int
    """How many a turn tries; the suite takes one turn, and `make slow` twenty more."""
    after_run: bool = True
    """Does it begin where the first one ends? Else with an empty disk."""


RUN = Story("run", run, run_again, 150, after_run=False)
STORIES = [
    RUN,
    Story("take-over", take_over, run_again, 110, after_run=False),
    Story("extend", extend, extend_again, 85),
    Story("second-look", second_look, second_look_again, 65),
    Story("replicate", replicate, replicate_again, 70),
    Story("test", open_test, open_test, 20),
]


# ---------------------------------------------------------------- what must be equal, and what must be there


def outcome(run: RunFolder) -> dict[str, Any]:
    """What a sweep has come to; of trials that did not finish, what is kept goes by the clock."""
    manifest = read_manifest(run)
    numbers = [session.number for session in manifest.sessions]
    kept = ("trial_id", "rung", "score", "cutoff", "verdict")
    return {
        "configuration": [run.config.read_text(), manifest.configuration.text],
        "split": [sha256_of(run.split), manifest.digests.split],
        "end": manifest.sessions[-1].how,
        "numbers are drawn once": numbers == sorted(set(numbers)),
        "decisions": [[getattr(each, name) for name in kept] for each in decisions(run)],
        "openings": [(each.winner, each.result, is_whole(run, each)) for each in openings(run)],
    } | {record.trial_id: of_trial(run, record) for record in run.trials()}


def openings(run: RunFolder) -> tuple[Opening, ...]:
    return parse_ledger(run.test.read_bytes(), run) if run.test.exists() else ()


def is_whole(run: RunFolder, opening: Opening) -> bool:
    """Has it a result, and are both of its files those that were recorded?"""
    found, result = [run.test_predictions, run.test_mistakes], opening.result
    if result is None or not all(path.exists() for path in found):
        return False
    return [sha256_of(path) for path in found] == [
        result.predictions_sha256,
        result.mistakes_sha256,
    ]


def of_trial(run: RunFolder, record: TrialRecord) -> dict[str, Any]:
    status, asked = record.status(), record.asked
    right = right_of(run, record)
    found: dict[str, Any] = {
        "asked": (asked.number, asked.origin, asked.settings),
        "status": (status.status, status.reason),
        "rows": [[getattr(row, name) for name in RESULT_COLUMNS] for row in record.rows()],
        "right": None if right is None else right.tolist(),
    }
    if status.status is Status.FINISHED:
        names = {path.name for path in record.folder.iterdir()}
        found["files"] = sorted(names - NOT_RECORDS - {"lost.jsonl"})
        found["weights"] = [sha256_of(path) for path in record.folder.glob("best-*.safetensors")]
        found["predictions"] = [sha256_of(path) for path in record.folder.glob("best-*.parquet")]
        found["state"] = checksum(record.load_last())
    return found


def right_of(run: RunFolder, record: TrialRecord) -> np.ndarray[Any, Any] | None:
    """Which images were right in each epoch, as a report reads it; None where it is not to be used."""
    rows, images = record.rows(), split_of(run.split, ("validation",))
    right = read_right(record.right, len(rows), len(images))
    known = right is not None and agrees(right, [row.val_accuracy for row in rows])
    return right if known else None


def has_best(record: TrialRecord, epoch: int) -> bool:
    """Are the weights of this epoch those that were recorded?"""
    weights = record.folder / f"best-{epoch}.safetensors"
    try:
        return sha256_of(weights) == record.weights_digest(epoch)
    except (FileNotFoundError, RequestError):
        return False


def on_record(run: RunFolder) -> dict[str, int]:
    """What may not be lost, in numbers that only grow, but where trials are asked to go on."""
    if not run.manifest.is_file():
        return {}
    manifest, opened = read_manifest(run), openings(run)
    assert manifest.settings is not None, "a run has its name once all is resolved"
    found = {
        "runs": 1,
        "configurations": len(manifest.configurations),
        "sessions": len(manifest.sessions),
        "decisions": len(decisions(run)),
        "openings": len(opened),
        "results": sum(is_whole(run, each) for each in opened),
    }
    for record in run.trials():
        own, rows = record.trial_id, record.rows()
        found[f"trial {own}"] = 1
        found[f"rows of {own}"] = len(rows)
        found[f"rows of {own} with their images"] = (
            0 if right_of(run, record) is None else len(rows)
        )
        found[f"end of {own}"] = int(record.status().status.has_ended)
        if (state := record.load_last()) is not None and state["epoch"] <= len(rows):
            if has_best(record, state["best_epoch"]):
                found[f"epochs in the state of {own}"] = state["epoch"]
    return found


# ---------------------------------------------------------------- schedules


@dataclass
class Recorded:
    """What was done to a disk, and what was on record whenever that was acknowledged, after so many steps."""

    steps: Sequence[Step]
    moments: Sequence[int]
    found: Sequence[dict[str, int]]

    def promised(self, cut: int) -> dict[str, int]:
        """What must be there when the power goes after so many steps: what was before, and is not taken back after."""
        last, following = bisect_right(self.moments, cut) - 1, bisect_left(self.moments, cut)
        if last < 0:  # nothing was acknowledged, or not noted
            return {}
        after = self.found[min(following, len(self.found) - 1)]
        return {name: min(n, after.get(name, 0)) for name, n in self.found[last].items()}


@dataclass
class Calm(Recorded):
    """A story that nobody disturbs."""

    start: Tree
    outcome: dict[str, Any]
    end: Tree
    end_well: set[str] = field(default_factory=set)
    """Digests of what a power cut left, where it was seen that all ends as it must."""


@dataclass
class World:
    """One folder in which all of it happens."""

    folder: Path
    sessions: Sessions
    forget: Callable[[Step, Step | None], bool] = lambda step, before: False
    """Steps that the disk does not do: syncs that the code might lack."""
    _calm: dict[str, Calm] = field(default_factory=dict)
    _found: dict[str, dict[str, int]] = field(default_factory=dict)
    """What is on record, by digest of what is on the disk."""

    def calm(self, story: Story) -> Calm:
        if story.name not in self._calm:
            start = self.calm(RUN).end if story.after_run else {}
            self.put(start)
            recorded = self.record(story.calm)
            came_to, end = outcome(self.sessions.run), read_tree(self.folder)
            self._calm[story.name] = Calm(
                recorded.steps, recorded.moments, recorded.found, start, came_to, end
            )
        return self._calm[story.name]

    def put(self, tree: Tree) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        write_tree(tree, self.folder)

    def record(self, act: Callable[[Sessions], None], noting: bool = True) -> Recorded:
        """Let somebody type something; what is on record meanwhile is looked at where it is worth `noting`."""
        Network.mended = False
        OneAfterAnother.steps, OneAfterAnother.in_between = inf, None
        disk = Recorder(self.folder, self.forget)
        moments: list[int] = []
        found: list[dict[str, int]] = []

        def note() -> None:
            moments.append(len(disk.steps))
            found.append(on_record(self.sessions.run))

        with writing_to(disk), pytest.MonkeyPatch.context() as patch:
            if noting:
                patch.setattr(crash_sessions, "acknowledged", note)
                note()
            act(self.sessions)
            if noting:
                note()
        return Recorded(disk.steps, moments, found)

    def disturb(self, story: Story, cut: int, number: int) -> None:
        """Let the power go after so many steps, and look how it ends.

        Raises:
            AssertionError: not as the calm story, something is lost that was on record, or a command was refused.
        """
        steps = self.calm(story).steps
        try:
            self._disturb(story, cut, number)
        except Exception as error:
            after = steps[cut - 1] if cut else "nothing was done"
            again = f"CRASH={story.name}/{cut}/{number} pytest tests/whole/test_crashes.py"
            raise AssertionError(f"{again}: the power went after: {after}; {error}") from error

    def _disturb(self, story: Story, cut: int, number: int) -> None:
        calm, random = self.calm(story), Random(f"{story.name}/{cut}/{number}")
        what, disk = fate(number), SimulatedDisk(calm.start)
        disk.do(calm.steps[:cut])
        fault = random.choice(FAULTS) if number >= MIXED else "power"
        if fault == "kill, power":
            left = disk.seen()
        else:
            left = self.lose(disk, what, calm.promised(cut))
            disk = SimulatedDisk(left)
        if fault != "power":
            self.put(left)
            again = self.record(story.again, noting=fault == "power, power")
            later = random.randint(0, len(again.steps))
            disk.do(again.steps[:later])
            left = self.lose(disk, what, again.promised(later))
        if (known := digest_of(left)) not in calm.end_well:
            self.put(left)
            self.record(story.again, noting=False)
            ended = outcome(self.sessions.run)
            for key in {*calm.outcome, *ended}:
                assert ended.get(key) == calm.outcome.get(key), key
            if number % 10 == 0:  # takes as long as all the rest
                assert check_run(self.sessions.run.path).faults == []
            calm.end_well.add(known)

    def lose(self, disk: SimulatedDisk, what: Fate, promised: dict[str, int]) -> Tree:
        """The power goes; what is there then, once it is seen to be enough."""
        tree = disk.after_power_cut(what)
        if (known := digest_of(tree)) not in self._found:
            self.put(tree)
            self._found[known] = on_record(self.sessions.run)
        found = self._found[known]
        lost = {name: n for name, n in promised.items() if found.get(name, 0) < n}
        assert not lost, f"on record was {lost}, and now: {found}"
        return tree


def digest_of(tree: Tree) -> str:
    return hashlib.sha256(repr(in_order(tree)).encode()).hexdigest()


def in_order(tree: Tree) -> list[object]:
    return [
        (name, what if isinstance(what, bytes) else in_order(what))
        for name, what in sorted(tree.items())
    ]


MIXED = 4
"""The numbers before it are the extremes of crash_model.fate."""
FAULTS = ["power"] * 4 + ["power, power", "kill, power"]
"""In the other schedules a second fault may come while a person goes on; the first one may be a kill."""


@pytest.fixture(scope="module")
def world(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """In memory where there is such a folder: a real disk takes a while for each rename."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SWEEP_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        disk = Path(name) / "disk"
        found = World(disk, make_sessions(faces, disk / "runs", patch))
        gc.collect()
        gc.freeze()  # what was imported is not looked through again and again
        yield found
        gc.unfreeze()


def schedules(story: Story, steps: int) -> Iterator[tuple[int, int]]:
    """Steps after which the power goes, and numbers: every step once, in any order, before one comes again."""
    random = Random(story.name)
    order = random.sample(range(steps + 1), steps + 1)
    while True:
        for cut in order:
            is_extreme = random.random() < 0.4
            yield cut, random.randrange(MIXED) if is_extreme else random.randrange(MIXED, 10**6)


def disturb_often(world: World, story: Story, turn: int) -> None:
    """The schedules of a turn; or the one that is asked for."""
    if ONE:
        name, place, seed = ONE.split("/")
        if name == story.name:
            world.disturb(story, int(place), int(seed))
        return
    found = schedules(story, len(world.calm(story).steps))
    for cut, number in islice(found, turn * story.schedules, (turn + 1) * story.schedules):
        world.disturb(story, cut, number)


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_sweep_whose_power_goes_loses_nothing_on_record_and_ends_as_a_calm_one(
    world: World, story: Story
) -> None:
    disturb_often(world, story, turn=0)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(1, 21))
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_so_does_one_cut_at_each_of_its_steps(world: World, story: Story, turn: int) -> None:
    disturb_often(world, story, turn)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_every_record_is_written_through_the_interface(world: World, story: Story) -> None:
    """What the simulated disk holds after all steps is what the real one does."""
    calm = world.calm(story)
    disk = SimulatedDisk(calm.start)
    disk.do(calm.steps)
    assert without(NOT_RECORDS, disk.seen()) == without(NOT_RECORDS, calm.end)


def without(names: set[str], tree: Tree) -> Tree:
    kept = {name: what for name, what in tree.items() if name not in names}
    return {
        name: what if isinstance(what, bytes) else without(names, what)
        for name, what in kept.items()
    }


SYNCS = {
    "the split of a new run": ("run", r"sync .*partial/split.parquet"),
    "the configuration of a new run": ("run", r"sync .*partial/sweep.yaml"),
    "the names in a new run": ("run", r"sync folder .*partial"),
    "the name of a new run": ("run", r"sync folder runs"),
    "the folder of runs": ("run", r"sync folder \."),
    "the name of a new trial": ("run", r"sync folder .*/trials"),
    "a trial's settings": ("run", r"sync .*/\.config\.json.*"),
    "which images an epoch got right": ("run", r"sync .*/right\.bits"),
    "an epoch's row": ("run", r"sync .*/epochs\.jsonl"),
    "the names of a trial's rows and of their images": (
        "run",
        r"sync folder .* after create .*/epochs\.jsonl",
    ),
    "the name of the decisions": ("run", r"sync folder .* after create .*/rungs\.jsonl"),
    "a decision": ("run", r"sync .*/rungs\.jsonl"),
    "the best weights": ("run", r"sync .*/\.best-.*\.safetensors.*"),
    "a state": ("run", r"sync .*/\.last\.pt.*"),
    "what a trial came to": ("run", r"sync folder .*/trials/[0-9a-f]{12}"),
    "the rows that a state covers": ("run", r"sync .*/\.epochs\.jsonl.*"),
    "what is asked of a run": ("extend", r"sync .*run/\.manifest\.json.*"),
    "the test's predictions": ("test", r"sync .*/\.test_predictions.*"),
    "the ledger": ("test", r"sync .*/\.test\.json.*"),
}
"""What would be lost without it, in which story, and which steps that are, some by the one before them."""


@pytest.mark.parametrize("sync", SYNCS)
def test_a_sync_that_is_left_out_is_found(world: World, sync: str) -> None:
    """The first two were left out, and a new run with them, until 27 November 2026."""
    name, pattern = SYNCS[sync]
    story = next(story for story in STORIES if story.name == name)

    def is_left_out(step: Step, before: Step | None) -> bool:
        return re.fullmatch(f"{pattern}( after .*)?", f"{step} after {before}") is not None

    forgetful = World(world.folder, world.sessions, is_left_out)
    pairs = enumerate(pairwise(world.calm(story).steps))
    left_out = [place for place, (before, step) in pairs if is_left_out(step, before)]
    assert left_out
    steps = len(forgetful.calm(story).steps)
    places = [place - earlier for earlier, place in enumerate(left_out)]
    with pytest.raises(AssertionError, match=f"CRASH={name}/"):
        for later, number, place in product((1, 60, 10, 30), (0, 2, MIXED, MIXED + 1), places):
            forgetful.disturb(story, min(place + later, steps), number)
