"""A store that is lost, evicted from or filled by others while tables are being filled changes no bit of a training."""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.bench import Bench, exhaust, results
from tests.support.full_disk import files_of_at_most
from trainable.config import Sharing, TrialConfig
from trainable.data import open_training_data
from trainable.errors import RequestError
from trainable.fit import fit
from trainable.frozen.chunks import PIXELS, chunk_names, original, row_shape
from trainable.frozen.shared import Shared
from trainable.frozen.stages import Writers
from trainable.frozen.store import Shelf, evict, stored
from trainable.network.model import frozen_layers
from trainable.records.rows import Row

HEAD = TrialConfig(strategy="head", head="16", batch_size=5, lr=1e-3)
IMAGES = 24 + 8
CHUNK = 8  # images
BOTH = frozenset({"24 fixed", "31 fixed"})
EITHER = pytest.mark.parametrize("resident", [True, False])
"""In the device's memory, or mapped from the disk."""


def with_store(bench: Bench, store: Path, resident: bool, **changed: object) -> Bench:
    """The bench with the features of block 5 and of the head kept in `store`."""
    facts = {"sharing": Sharing(kept=BOTH, resident=resident), "store": store, **changed}
    return replace(bench, run=bench.run.model_copy(update=facts))


def shared(bench: Bench) -> Shared:
    """As a process has it that starts now."""
    data = open_training_data(bench.split, bench.run.images, bench.run.image_size)
    return Shared(bench.run, data, bench.backbone)


def train(bench: Bench, by: Shared | None) -> list[Row]:
    data = by.data if by else bench.data
    return exhaust(fit(HEAD, bench.run, data, bench.backbone, None, by))[0]


def computed(rows: list[Row]) -> int:
    """Images that were sent through frozen layers, in all epochs."""
    return sum(row.frozen_images for row in rows)


def filled(bench: Bench) -> list[Row]:
    """Train once with its store, which is whole afterwards."""
    rows = train(bench, by := shared(bench))
    by.close()
    assert computed(rows) == IMAGES
    return rows


def locks(bench: Bench) -> list[Path]:
    assert bench.run.store is not None
    return list(bench.run.store.glob("chunks/*/*.lock"))


def first_name(by: Shared) -> str:
    return chunk_names(by.data.training, original(by.data.training))[0]


# ---------------------------------------------------------------- lost


def a_chunk_that_is_a_folder(by: Shared) -> None:
    path = by.shelves.shelf(31).folder / first_name(by)
    path.unlink()
    path.mkdir()


def a_lock_that_is_a_folder(by: Shared) -> None:
    for cut in (24, 31):
        (by.shelves.shelf(cut).folder / first_name(by)).unlink()
    (by.shelves.claims(31).folder / f"{first_name(by)}.lock").mkdir()


def a_file_for_block_5s_folder(by: Shared) -> None:
    """Seen when the features of the head, which are computed from those of block 5, lack too."""
    (by.shelves.shelf(31).folder / first_name(by)).unlink()
    shutil.rmtree(folder := by.shelves.shelf(24).folder)
    folder.write_text("")


LOST: dict[str, tuple[Callable[[Shared], None], str]] = {
    "chunk": (a_chunk_that_is_a_folder, "can't be locked and mapped: Is a directory"),
    "lock": (a_lock_that_is_a_folder, ".lock can't be locked: Is a directory"),
    "folder": (a_file_for_block_5s_folder, "can't be created: File exists"),
}


@EITHER
@pytest.mark.parametrize("how", LOST)
def test_a_store_that_is_lost_is_said_once_and_the_training_goes_on_without_it(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, resident: bool
) -> None:
    bench = with_store(bench, tmp_path / "store", resident)
    expected = results(filled(bench))
    lose, said = LOST[how]
    lose(shared(bench))
    by = shared(bench)
    assert results(train(bench, by)) == expected == results(train(bench, by))
    by.close()
    assert said in by.problem
    assert caplog.text.count("no longer shared") == 1
    assert [path.name for path in locks(bench) if path.is_file()] == []


def test_a_store_that_is_lost_between_computing_and_writing_is_said_and_the_table_filled(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rounded features are never computed from rounded ones, so nobody has looked for block 5's before."""
    bench = with_store(bench, tmp_path / "store", resident=True, store_format="float16")
    folder = shared(bench).shelves.shelf(24).folder
    shutil.rmtree(folder)
    folder.write_text("")
    rows = train(bench, by := shared(bench))
    by.close()
    assert results(rows) == results(train(bench, None)) and computed(rows) == IMAGES
    assert "can't be created: File exists" in by.problem
    assert caplog.text.count("no longer shared") == 1 and not locks(bench)


def test_a_disk_that_takes_one_cut_of_two_is_said_in_the_next_fill_and_ends_no_trial(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Block 5's features, which are larger, are written behind the fill of the head's."""
    layers = frozen_layers(bench.backbone)
    head, block5 = (4 * CHUNK * math.prod(row_shape(layers, 32, cut)) for cut in (31, 24))
    assert block5 > head + 1_000
    bench = with_store(bench, tmp_path / "store", resident=False)
    with files_of_at_most(head + 1_000):
        rows = train(bench, by := shared(bench))
        by.close()
    assert results(rows) == results(train(bench, None))
    assert "can't be written: File too large" in by.problem
    assert caplog.text.count("no longer shared") == 1
    kept = [each.bytes for each in stored(tmp_path / "store" / "chunks")]
    assert len(kept) == 3 and max(kept) < block5, "the head's of the first fill"


def test_what_else_fails_behind_the_training_is_raised(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As host memory that is short: it is no fault of the store, and would be lost in its thread."""

    def no_memory(self: Writers, values: object) -> Iterator[memoryview]:
        raise MemoryError("no memory for a buffer")

    monkeypatch.setattr(Writers, "_pieces", no_memory)
    bench = with_store(bench, tmp_path / "store", resident=True)
    by = shared(bench)
    with pytest.raises(MemoryError, match="no memory for a buffer"):
        train(bench, by)
        by.close()
    with suppress(MemoryError):  # of another chunk, which was still being written
        by.close()
    assert not locks(bench)


# ---------------------------------------------------------------- evicted, and filled by others


def test_a_chunk_that_is_evicted_before_it_is_mapped_is_computed_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process that makes room, between this one's writing and reading."""
    write = Shelf.write_pieces
    evicted: list[str] = []

    def evicted_once(self: Shelf, name: str, *facts: object) -> None:
        write(self, name, *facts)  # type: ignore[arg-type]
        if not evicted:
            evicted.append(name)
            assert evict(self.folder / name)

    monkeypatch.setattr(Shelf, "write_pieces", evicted_once)
    sharing = Sharing(kept=frozenset({"31 fixed"}))
    bench = with_store(bench, tmp_path / "store", resident=False, sharing=sharing)
    rows = train(bench, by := shared(bench))
    by.close()
    assert results(rows) == results(train(bench, None))
    assert computed(rows) == IMAGES + CHUNK
    assert not by.problem and not locks(bench)


@EITHER
def test_a_chunk_that_another_process_has_finished_before_the_claim_is_not_computed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    """It was not there a moment ago; its claim is free because it is there now."""
    other = with_store(bench, tmp_path / "other", resident)
    expected = results(filled(other))
    bench = with_store(bench, tmp_path / "store", resident)
    claim = Shelf.try_claim
    finished: list[str] = []

    def finished_first(self: Shelf, name: str) -> object:
        if not finished:
            finished.append(name)
            shutil.copytree(tmp_path / "other", tmp_path / "store", dirs_exist_ok=True)
        return claim(self, name)

    monkeypatch.setattr(Shelf, "try_claim", finished_first)
    rows = train(bench, by := shared(bench))
    by.close()
    assert finished and results(rows) == expected and computed(rows) == 0
    assert not by.problem and not locks(bench)


# ---------------------------------------------------------------- several chunks at a time


@EITHER
def test_with_decoding_processes_several_chunks_are_begun_and_all_are_finished(
    bench: Bench, tmp_path: Path, resident: bool
) -> None:
    bench = with_store(bench, tmp_path / "store", resident)
    by = shared(bench)
    with by.data.begin_decoders(2, tmp_path / "decoded") as decoders:
        assert decoders.running
        rows = train(bench, by)
        by.close()
    assert results(rows) == results(train(bench, None))
    assert computed(rows) == IMAGES and not locks(bench)


@EITHER
def test_when_one_of_several_begun_chunks_fails_the_claims_of_all_end(
    bench: Bench, tmp_path: Path, resident: bool
) -> None:
    bright = {name: value * 8 for name, value in bench.backbone.features.items()}
    bench = replace(bench, backbone=replace(bench.backbone, features=bright))
    bench = with_store(bench, tmp_path / "store", resident, precision="float16")
    by = shared(bench)
    with by.data.begin_decoders(2, tmp_path / "decoded"):
        with pytest.raises(RequestError, match="exceed the range of float16"):
            train(bench, by)
        by.close()
    assert not locks(bench)
    assert by.shelves.shelf(PIXELS).folder.exists()
