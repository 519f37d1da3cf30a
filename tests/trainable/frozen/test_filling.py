"""Filling in stages: bounded, side by side, and nothing that is killed, full or dropped on the way changes a bit."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.bench import Bench, exhaust, results
from tests.support.processes import start
from tests.support.project import ROOT
from trainable.config import Sharing, TrialConfig
from trainable.data import LabelledImages, open_training_data
from trainable.errors import RequestError
from trainable.fit import fit
from trainable.frozen import stages
from trainable.frozen.chunks import chunk_names, feature_facts, original
from trainable.frozen.reference import EVALUATION_BATCH, Plain, Work
from trainable.frozen.resident import Rank, Resident, Residents, Worth
from trainable.frozen.shared import FromStore, Shared
from trainable.frozen.stages import (
    PIECE_BYTES,
    UPLOAD_BYTES,
    WRITERS,
    Ahead,
    Readers,
    Uploads,
    Writers,
)
from trainable.frozen.store import Shelf, stored
from trainable.frozen.upcoming import Seen, Upcoming, looks
from trainable.hardware.device import Device, device_of
from trainable.network.model import CUTS, build_model, multiply_adds
from trainable.records.rows import Row

ALL = frozenset(
    {"0 fixed"} | {f"{cut} {family}" for cut in (10, 17, 24, 31) for family in ("fixed", "epoch")}
)
IMAGES = 24 + 8
SMALL = TrialConfig(strategy="head", head="16", batch_size=5, lr=1e-3)


@pytest.fixture
def held(bench: Bench, tmp_path: Path) -> Bench:
    """The bench with a store of its own that keeps everything, and tables in the device's memory."""
    return with_store(bench, tmp_path / "store")


def with_store(bench: Bench, store: Path, **changed: object) -> Bench:
    facts = {"sharing": Sharing(kept=ALL, resident=True), "store": store, **changed}
    return replace(bench, run=bench.run.model_copy(update=facts))


def shared(bench: Bench) -> Shared:
    """As another process sees the same images and store."""
    size = bench.run.image_size
    data = open_training_data(bench.split, bench.run.images, size)
    return Shared(bench.run, data, bench.backbone)


def train(bench: Bench, config: TrialConfig, by: Shared | None) -> list[Row]:
    data = by.data if by else bench.data
    rows, _ = exhaust(fit(config, bench.run, data, bench.backbone, None, by))
    return rows


def seen_originally(images: LabelledImages) -> Seen:
    look = original(images)
    which = torch.zeros(len(images), dtype=torch.int64)
    return Seen([look], which, [chunk_names(images, look)])


# ---------------------------------------------------------------- stages


def test_a_stage_is_never_further_ahead_than_its_bound() -> None:
    taken, ahead = 0, []

    def items() -> Iterator[int]:
        for number in range(100):
            ahead.append(number + 1 - taken)
            yield number

    stage = Ahead(items(), 3, "test")
    for number in stage:
        assert number == taken
        taken += 1
    assert taken == 100
    assert max(ahead) <= 3 + 1, "what is asked for at the moment is not ahead"


def test_what_a_stage_raises_is_raised_where_it_is_asked_for_and_closing_ends_its_thread() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    failing = Ahead(items(), 2, "failing")
    assert next(failing) == 1
    with pytest.raises(OSError, match="gone"):
        next(failing)
    endless = Ahead(iter(int, 1), 2, "endless")
    next(endless)
    endless.close()
    failing.close()
    names = {thread.name for thread in threading.enumerate()}
    assert not {"endless", "failing"} & names


def test_host_buffers_stay_below_256_megabytes() -> None:
    assert max(WRITERS.values()) * 2 * PIECE_BYTES + UPLOAD_BYTES <= 256 * 10**6


@pytest.mark.parametrize("format", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("images", [1, 7, 64])
def test_a_chunk_written_piece_by_piece_is_the_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: torch.dtype, images: int
) -> None:
    monkeypatch.setattr(stages, "PIECE_BYTES", 1000)
    whole, pieces = (Shelf.open(tmp_path / name, {}) for name in ("whole", "pieces"))
    values = torch.randn(images, 3, 3, 5).mul(100).to(format)
    whole.write("a", values)
    claim = pieces.try_claim("a")
    assert claim is not None
    writers = Writers(device_of("cpu"))
    chunk = writers.write(pieces, "a", values, claim, held=False).result()
    writers.close()
    assert (whole.folder / "a").read_bytes() == (pieces.folder / "a").read_bytes()
    assert chunk is not None and torch.equal(chunk.rows(0, images), values)
    assert sorted(path.name for path in pieces.folder.iterdir()) == ["a", "key.json"]


def test_what_is_no_longer_wanted_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the chunk that is being read: a fill that fails must not wait for the rest."""
    monkeypatch.setitem(stages.READERS, "cpu", 1)
    shelf, begun, go_on = Shelf.open(tmp_path, {}), threading.Event(), threading.Event()
    read: list[str] = []

    def slowly(self: Shelf, name: str) -> None:
        read.append(name)
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(Shelf, "read", slowly)
    readers = Readers(device_of("cpu"))
    for name in "abc":
        readers.begin(shelf, name)
    assert begun.wait(60)
    readers.forget()
    go_on.set()
    readers.close()
    assert read == ["a"]


@pytest.mark.parametrize("size", [1, 100, UPLOAD_BYTES])
def test_what_is_sent_to_the_device_may_change_at_once(size: int) -> None:
    uploads, host = Uploads(device_of("cpu")), torch.zeros(size, dtype=torch.uint8)
    arrived = []
    for number in range(6 if size < 1000 else 2):
        arrived.append(uploads.send(host.fill_(number)))
    for number, each in enumerate(arrived):
        assert bool((each == number).all())


class Watching(TorchDispatchMode):
    """Names the threads whose operations it sees, and refuses tensors that CUDA can't index."""

    threads: set[str] = set()  # noqa: RUF012

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.threads.add(threading.current_thread().name.split("_")[0])
        found = func(*args, **(kwargs or {}))
        assert not isinstance(found, Tensor) or found.dtype not in (
            torch.uint16,
            torch.uint32,
            torch.uint64,
        )
        return found


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_dispatch_mode_sees_every_stage_and_finds_no_unsigned_numbers(
    held: Bench, monkeypatch: pytest.MonkeyPatch, precision: str, resident: bool
) -> None:
    sharing = Sharing(kept=ALL, resident=resident)
    facts = {"precision": precision, "sharing": sharing, "views_made_on": "device", "epochs": 2}
    bench = replace(held, run=held.run.model_copy(update=facts))
    monkeypatch.setattr(stages, "thread_context", Watching)
    Watching.threads = set()
    with Watching():
        by = shared(bench)
        train(bench, SMALL.model_copy(update={"augmentation": "flip_jitter"}), by)
        by.close()
    reading = set() if resident else {"features"}
    assert {"MainThread", "write", "views"} | reading <= Watching.threads


# ---------------------------------------------------------------- tables in memory


@pytest.mark.parametrize(
    "changed",
    [{}, {"precision": "bfloat16"}, {"precision": "float16"}, {"store_format": "float16"}],
    ids=str,
)
def test_a_resident_table_is_what_the_store_has_bit_by_bit(
    bench: Bench, tmp_path: Path, changed: dict[str, object]
) -> None:
    bench = with_store(bench, tmp_path / "store", **changed)
    by, images = shared(bench), None
    images = by.data.training
    flips = Upcoming(False).of(SMALL.model_copy(update={"augmentation": "flip"}), 1, images, 1)
    for seen in (seen_originally(images), flips):  # the second one's mirrored views join
        found = by.resident(images, seen, 31, Work())
    assert found is not None
    table, firsts = found
    by.close()
    from_disk = shared(bench).mapped(images, flips, 31, Work())
    for first, mapped in zip(firsts, from_disk, strict=True):
        rows = torch.cat([chunk.rows(0, len(chunk.values)) for chunk in mapped.chunks])
        own = table.values[first : first + len(images)]
        assert own.dtype is rows.dtype and torch.equal(
            own.view(torch.uint8), rows.view(torch.uint8)
        )


@pytest.mark.parametrize("strategy", ["head", "block5", "full"])
@pytest.mark.parametrize("augmentation", ["flip", "flip_jitter"])
def test_with_jitter_made_on_the_device_sharing_changes_no_bit(
    bench: Bench, tmp_path: Path, strategy: str, augmentation: str
) -> None:
    """Resident features and pixels, features from the disk, and the plain path."""
    settings = {"strategy": strategy, "augmentation": augmentation}
    config = SMALL.model_copy(update=settings)
    facts = {"views_made_on": "device", "epochs": 2}
    plain = replace(bench, run=bench.run.model_copy(update=facts))
    expected = results(train(plain, config, None))
    for resident in (True, False):
        sharing = Sharing(kept=ALL, resident=resident)
        made = with_store(plain, tmp_path / f"store-{resident}", sharing=sharing)
        assert results(train(made, config, shared(made))) == expected


@pytest.mark.parametrize("augmentation", ["none", "flip", "flip_jitter"])
def test_after_what_was_held_is_dropped_a_trial_goes_on_with_the_same_bits(
    held: Bench, augmentation: str
) -> None:
    config = SMALL.model_copy(update={"augmentation": augmentation})
    plain = results(train(held, config, None))
    by = shared(held)
    under_way = fit(config, held.run, by.data, held.backbone, None, by)
    first = next(under_way)
    by.drop_resident()
    assert not by.holds
    second = next(under_way)
    by.hold_resident()
    rows, _ = exhaust(under_way)
    assert results([first, second, *rows]) == plain
    assert by.holds


def test_tables_need_no_disk_at_all(bench: Bench, tmp_path: Path) -> None:
    """Where nothing is worth keeping there, an epoch's features still come from memory."""
    sharing = Sharing(kept=frozenset(), resident=True)
    bench = with_store(bench, tmp_path / "store", sharing=sharing)
    rows = train(bench, SMALL, shared(bench))
    assert results(rows) == results(train(bench, SMALL, None))
    assert [row.frozen_images for row in rows] == [IMAGES, 0, 0]
    assert not (tmp_path / "store").exists()


def test_a_disk_that_is_full_behind_the_training_is_said_once_and_the_training_goes_on(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sharing = Sharing(kept=frozenset({"24 fixed", "31 fixed"}), resident=True, limit_bytes=2_000)
    bench = with_store(bench, tmp_path / "store", sharing=sharing)
    by = shared(bench)
    plain = results(train(bench, SMALL, None))
    rows = train(bench, SMALL, by)
    assert results(rows) == plain == results(train(bench, SMALL, by))
    by.close()
    assert [row.frozen_images for row in rows] == [IMAGES, 0, 0], "in memory, all the same"
    assert "--store-limit" in by.problem
    assert caplog.text.count("no longer shared") == 1


def test_jittered_features_of_an_epoch_are_used_by_every_trial_that_reaches_it(
    bench: Bench, tmp_path: Path
) -> None:
    sharing = Sharing(kept=frozenset(), resident=True)
    bench = with_store(bench, tmp_path / "store", sharing=sharing, views_made_on="device")
    config = SMALL.model_copy(update={"augmentation": "flip_jitter"})
    by = shared(bench)
    frozen = [[row.frozen_images for row in train(bench, config, by)] for _ in range(2)]
    assert frozen == [[IMAGES, 24, 24], [0, 0, 0]]


class Gpu(Device):
    """A device of so many bytes, of which the tables given to it take some."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total, self.taken_by_others = total, 0
        self.residents: Residents | None = None

    def total_bytes(self) -> int:
        return self.total

    def free_bytes(self) -> int:
        assert self.residents is not None
        held = sum(each.bytes for each in self.residents._tables.values())
        return self.total - self.taken_by_others - held


def gpu(total: int) -> tuple[Gpu, Residents]:
    device = Gpu(total)
    device.residents = Residents(device, 1.0)
    return device, device.residents


def take(residents: Residents, key: str, worth: Worth, size: int = 10) -> bool:
    return residents.take(key, worth, (size,), torch.uint8) is not None


def lying(residents: Residents) -> set[Hashable]:
    return set(residents._tables)


def test_a_quarter_of_the_memory_stays_free_for_training() -> None:
    _, residents = gpu(100)
    assert take(residents, "a", Worth(Rank.FIXED, 31), 75)
    assert not take(residents, "b", Worth(Rank.FIXED, 31), 1)
    assert not take(residents, "c", Worth(Rank.FIXED, 24), 1), "block 5 takes nothing from the head"


def test_the_head_comes_before_block_5_and_features_before_pixels_before_an_epochs_views() -> None:
    _, residents = gpu(40)
    for key, worth in (
        ("pixels", Worth(Rank.DECODED)),
        ("epoch", Worth(Rank.EPOCH, 31, -1)),
        ("block5", Worth(Rank.FIXED, 24)),
    ):
        assert take(residents, key, worth)
    assert not take(residents, "pixels of others", Worth(Rank.DECODED))
    assert take(residents, "head", Worth(Rank.FIXED, 31))
    assert lying(residents) == {"pixels", "block5", "head"}
    assert take(residents, "head again", Worth(Rank.FIXED, 31))
    assert lying(residents) == {"block5", "head", "head again"}
    assert take(residents, "third", Worth(Rank.FIXED, 31))
    assert lying(residents) == {"head", "head again", "third"}


def test_the_epoch_that_is_on_takes_the_place_of_the_latest_one_and_the_early_ones_stay() -> None:
    _, residents = gpu(40)
    places = []
    for epoch in (1, 2, 3, 4, 5):
        table = residents.take(epoch, Worth(Rank.EPOCH, 31, -epoch), (10,), torch.uint8)
        assert table is not None
        places.append(table.values.data_ptr())
    assert lying(residents) == {1, 2, 5}
    assert places[2] == places[3] == places[4], "in the same memory"
    assert not take(residents, "block5", Worth(Rank.EPOCH, 24, -1)), "the head's come first"


def test_when_another_process_takes_the_memory_the_least_worthy_goes() -> None:
    device, residents = gpu(100)
    take(residents, "fixed", Worth(Rank.FIXED, 31), 30)
    take(residents, "epoch", Worth(Rank.EPOCH, 31, -1), 30)
    residents.shrink()
    assert lying(residents) == {"fixed", "epoch"}
    device.taken_by_others = 38
    residents.shrink()
    assert lying(residents) == {"fixed"}


def test_nothing_is_held_once_a_device_was_given_back_until_it_may_be_again() -> None:
    _, residents = gpu(100)
    residents.closed = True
    assert not take(residents, "a", Worth(Rank.FIXED, 31))
    residents.closed = False
    assert take(residents, "a", Worth(Rank.FIXED, 31))


def test_memory_that_seems_free_and_is_not_ends_no_trial(
    held: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process takes it between the question and the answer; the error is raised here, where a GPU would."""
    plain = results(train(held, SMALL, None))
    by, take = shared(held), Residents.take

    def taken(*given: Any) -> Resident | None:
        def full(*shape: object, **facts: object) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        with monkeypatch.context() as gone:
            gone.setattr(torch, "empty", full)
            return take(*given)

    monkeypatch.setattr(Residents, "take", taken)
    assert results(train(held, SMALL, by)) == plain
    assert not lying(by._residents) and not by.problem
    assert "GB of the device's memory seemed free but are not" in caplog.text


def test_a_table_that_can_not_lie_beside_the_wider_one_is_dropped_and_read_from_the_store(
    held: Bench,
) -> None:
    """As when the first trial that mirrors comes: images that it does not mirror are not computed again."""
    by = shared(held)
    part = by.data.training
    unmirrored = seen_originally(part)
    both = Upcoming(False).of(SMALL.model_copy(update={"augmentation": "flip"}), 1, part, 1)
    first = by.resident(part, unmirrored, 31, Work())
    assert first is not None
    before, bytes_before = first[0].values.clone(), first[0].bytes
    by._residents._device = device = Gpu(
        bytes_before * 10 // 3
    )  # of which three quarters: 2.5 tables
    device.residents = by._residents
    found = by.resident(part, both, 31, work := Work())
    assert found is not None
    table, firsts = found
    assert table.bytes == 2 * bytes_before and len(lying(by._residents)) == 1
    assert work.frozen_images == len(part)
    at = firsts[[look.is_original for look in both.looks].index(True)]
    assert torch.equal(table.values[at : at + len(part)], before)
    by.close()


def test_a_trial_whose_features_have_no_room_reads_them_from_the_store(held: Bench) -> None:
    by = shared(held)
    by._residents._device = device = Gpu(60_000)  # room for validation, and not for training
    device.residents = by._residents
    rows = train(held, SMALL.model_copy(update={"strategy": "block3"}), by)
    plain = train(held, SMALL.model_copy(update={"strategy": "block3"}), None)
    assert results(rows) == results(plain)
    assert [row.frozen_images for row in rows] == [IMAGES, 0, 0]
    assert 0 < sum(table.bytes for table in by._residents._tables.values()) <= 45_000


# ---------------------------------------------------------------- several processes

FILL = """
import json, sys, threading
import torch
from trainable.frozen import stages
from trainable.frozen.chunks import chunk_names, original
from trainable.config import RunSettings
from trainable.data import open_training_data
from trainable.frozen.reference import Work
from trainable.network.model import load_backbone
from trainable.frozen.shared import Shared
from trainable.frozen.upcoming import Seen

torch.set_num_threads(1)
run = RunSettings.model_validate_json(sys.argv[1])
data = open_training_data(sys.argv[2], run.images, run.image_size)
by = Shared(run, data, load_backbone("none", run.width))
whole, cut, stop_at = stages.Writers._pieces, int(sys.argv[3]), int(sys.argv[4])
written = 0

def pieces(self, values):
    global written
    written += 1
    for piece in whole(self, values):
        if written == stop_at:
            yield piece[:len(piece) // 2]
            print("half", flush=True)
            threading.Event().wait()
        yield piece

stages.Writers._pieces = pieces
print("ready", flush=True)
sys.stdin.readline()
work = Work()
for part in (data.training, data.validation):
    look = original(part)
    seen = Seen([look], torch.zeros(len(part), dtype=torch.int64), [chunk_names(part, look)])
    by.resident(part, seen, cut, work)
print(json.dumps([work.frozen_images, work.frozen_multiply_adds]), flush=True)
by.close()
print("closed", flush=True)
"""


def process(bench: Bench, cut: int, stop_at: int = 0) -> subprocess.Popen[str]:
    """Fills the store of `bench` once a line comes in; with `stop_at`, hangs in the middle of writing that chunk."""
    facts = [bench.run.model_dump_json(), str(bench.split), str(cut), str(stop_at)]
    return start(
        [sys.executable, "-c", FILL, *facts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def begin(*processes: subprocess.Popen[str]) -> None:
    """Let them fill at once."""
    for each in processes:
        assert line(each.stdout) == "ready"
    for each in processes:
        assert each.stdin is not None
        print(file=each.stdin, flush=True)


def only(bench: Bench, *kept: str) -> Bench:
    sharing = Sharing(kept=frozenset(kept), resident=True)
    return replace(bench, run=bench.run.model_copy(update={"sharing": sharing}))


@pytest.mark.whole
def test_a_process_killed_while_it_writes_behind_the_training_leaves_nothing_half_read(
    held: Bench,
) -> None:
    """Its tables are filled, its epoch could be on; the third of four chunks is half on the disk."""
    bench = only(held, "31 fixed")
    writer = process(bench, 31, stop_at=3)
    begin(writer)
    said = {line(writer.stdout), line(writer.stdout)}
    assert said == {"half", json.dumps([IMAGES, multiply_adds(0.05, 32, 0, 31) * IMAGES])}
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    left = [each.path for each in stored(bench.run.store / "chunks")]  # type: ignore[operator]
    assert sum(path.suffix == ".tmp" for path in left) == 1
    by = shared(bench)
    rows = train(bench, SMALL, by)
    assert results(rows) == results(train(bench, SMALL, None))
    assert sum(row.frozen_images for row in rows) == IMAGES - 16, "the two that were finished"
    by.close()
    left = [each.path for each in stored(bench.run.store / "chunks")]  # type: ignore[operator]
    assert len(left) == 4 and not [path for path in left if path.suffix]
    assert not list(bench.run.store.glob("chunks/*/*.lock"))  # type: ignore[union-attr]


@pytest.mark.whole
def test_two_processes_that_fill_at_once_compute_each_chunk_once_between_them(held: Bench) -> None:
    bench = only(held, "24 fixed", "31 fixed")
    both = [process(bench, 24), process(bench, 31)]
    begin(*both)
    done = [json.loads(line(each.stdout)) for each in both]
    assert [line(each.stdout) for each in both] == ["closed"] * 2
    assert [each.wait() for each in both] == [0, 0]
    whole = multiply_adds(bench.run.width, 32, 0, CUTS["head"]) * IMAGES
    assert sum(multiply_adds_done for _, multiply_adds_done in done) == whole


def test_the_next_process_finds_what_was_finished_behind_the_training(held: Bench) -> None:
    by = shared(held)
    rows = train(held, SMALL, by)
    by.close()
    found = train(held, SMALL, shared(held))
    assert results(found) == results(rows)
    assert sum(row.frozen_images for row in found) == 0


@pytest.mark.parametrize("resident", [True, False])
def test_digests_are_checked_by_reading_threads_and_a_damaged_chunk_is_made_again(
    held: Bench, monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    """So a warm store is read as fast as its disk gives it, and not as one thread can hash."""
    monkeypatch.setitem(stages.READERS, "cpu", 3)
    bench = with_store(held, held.run.store, sharing=Sharing(kept=ALL, resident=resident))  # type: ignore[arg-type]
    by = shared(bench)
    rows = train(bench, SMALL, by)
    by.close()
    damaged = (
        by.shelves.shelf(31).folder / chunk_names(by.data.training, original(by.data.training))[0]
    )
    damaged.write_bytes(bytes(8) + damaged.read_bytes()[8:])
    hashed: list[str] = []
    real = Shelf._map

    def noted(self: Shelf, name: str, file: int) -> object:
        if not any(known == name for known, _ in self._sound):
            hashed.append(threading.current_thread().name)
        return real(self, name, file)

    monkeypatch.setattr(Shelf, "_map", noted)
    by = shared(bench)
    found = train(bench, SMALL, by)
    by.close()
    assert results(found) == results(rows)
    assert 0 < sum(row.frozen_images for row in found) < IMAGES * bench.run.epochs
    by_others = [name for name in hashed if not name.startswith("read")]
    assert len(hashed) > 1 >= len(by_others), "what the damaged one is made of is read when it is"


def test_what_this_process_still_writes_does_not_hold_up_its_next_trial(
    held: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head goes on from block 5's table while every chunk of that waits for the disk."""
    may_write = threading.Event()
    write = Writers._write

    def slowly(self: Writers, *facts: object) -> object:
        assert may_write.wait(60)
        return write(self, *facts)  # type: ignore[arg-type]

    monkeypatch.setattr(Writers, "_write", slowly)
    bench = only(held, "24 fixed")
    by = shared(bench)
    images = by.data.training
    seen = seen_originally(images)
    assert by.resident(images, seen, 24, Work()) is not None
    work = Work()
    assert by.resident(images, seen, 31, work) is not None
    between = multiply_adds(bench.run.width, 32, 24, 31)
    assert work.frozen_multiply_adds == between * len(images)
    assert not stored(bench.run.store / "chunks")  # type: ignore[operator]
    may_write.set()
    by.close()
    assert len(stored(bench.run.store / "chunks")) == 3  # type: ignore[operator]


def test_what_was_just_written_is_not_read_to_be_hashed_again(held: Bench) -> None:
    """So damage that comes between is seen by the next process, and not by this one."""
    by, work = shared(held), Work()
    look = original(by.data.training)
    by.mapped(by.data.training, seen_originally(by.data.training), 31, work)
    by.close()
    for each in stored(held.run.store / "chunks"):  # type: ignore[operator]
        content = each.path.read_bytes()
        each.path.write_bytes(bytes([content[0] ^ 255]) + content[1:])
    for name in chunk_names(by.data.training, look):
        assert by.shelves.read(31, name) is not None
        assert shared(held).shelves.read(31, name) is None


# ---------------------------------------------------------------- half precision


def too_bright(bench: Bench) -> Bench:
    """With weights that give features of some millions, which float32 holds and float16 does not."""
    features = {name: value * 8 for name, value in bench.backbone.features.items()}
    return replace(bench, backbone=replace(bench.backbone, features=features))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"precision": "float16"}, "set resources.precision to float32"),
        ({"store_format": "float16"}, "set store.format to computed"),
    ],
)
def test_features_beyond_float16_stop_the_fill_by_the_images_name(
    bench: Bench, tmp_path: Path, changed: dict[str, object], remedy: str, resident: bool
) -> None:
    sharing = Sharing(kept=ALL, resident=resident)
    bench = with_store(too_bright(bench), tmp_path / "store", sharing=sharing, **changed)
    by = shared(bench)
    first = (by.data.validation if resident else by.data.training).files[0]
    with pytest.raises(RequestError, match=f"{first} .*range of float16; {remedy}"):
        train(bench, SMALL, by)
    by.close()
    found = stored(bench.run.store / "chunks")  # type: ignore[operator]
    assert all(kind(each.path) == "decoded images" for each in found)
    assert not list(bench.run.store.glob("chunks/*/*.lock"))  # type: ignore[union-attr]


def kind(path: Path) -> str:
    return str(json.loads((path.parent / "key.json").read_text())["holds"])


@pytest.mark.parametrize(
    ("changed", "on_disk", "given"),
    [
        ({"precision": "float16"}, torch.float16, torch.float16),
        ({"precision": "float16", "store_format": "float16"}, torch.float16, torch.float16),
        ({"store_format": "float16"}, torch.float16, torch.float32),
        ({"precision": "bfloat16"}, torch.bfloat16, torch.bfloat16),
        ({}, torch.float32, torch.float32),
    ],
    ids=str,
)
def test_features_are_given_in_the_format_in_which_they_are_computed(
    bench: Bench,
    tmp_path: Path,
    changed: dict[str, object],
    on_disk: torch.dtype,
    given: torch.dtype,
) -> None:
    """From the plain path, from the device's memory and from the disk: the same bits."""
    bench = with_store(bench, tmp_path / "store", **changed)
    by = shared(bench)
    plain = Plain(SMALL, bench.run, by.data, build_model(SMALL, bench.backbone))
    stored_ones = FromStore(plain, by)
    held = stored_ones.resident_validation(Work())
    assert held is not None and held.table.dtype is on_disk
    ways = [
        plain.validation(Work()),
        held.in_order(EVALUATION_BATCH),
        stored_ones.validation(Work()),
    ]
    found = [torch.cat([hidden for _, hidden in way]) for way in ways]
    assert all(each.dtype is given for each in found)
    assert all(torch.equal(each, found[0]) for each in found)


# ---------------------------------------------------------------- keys and what comes next


def test_the_key_of_a_chunk_on_a_cpu_is_what_it_was(bench: Bench) -> None:
    """Stores that were filled before stay warm."""
    assert set(feature_facts(bench.run, "digest", 24)) == {
        *("holds", "image_size", "resize", "pillow", "weights", "width", "layers"),
        *("precision", "format", "torch", "torchvision", "device"),
    }
    made = bench.run.model_copy(update={"views_made_on": "device"})
    assert feature_facts(made, "digest", 24) != feature_facts(bench.run, "digest", 24)


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("augmentation", ["none", "flip", "flip_jitter"])
def test_what_is_prepared_ahead_is_what_the_epoch_sees(
    bench: Bench, augmentation: str, views: int | None
) -> None:
    settings = {"augmentation": augmentation, "views": views}
    config, part = SMALL.model_copy(update=settings), bench.data.training
    upcoming = Upcoming(drawn=True)
    for epoch in (1, 2, 3, 2, 5):
        seen = upcoming.of(config, epoch, part, 5)
        wanted, which = looks(config, epoch, part.files)
        assert [look.views for look in seen.looks] == [look.views for look in wanted]
        assert torch.equal(seen.which, which)
        assert seen.names == [chunk_names(part, look) for look in wanted]
