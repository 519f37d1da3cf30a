"""Images decoded by processes: the same bits and the same words as here, and nothing left behind, whoever is killed."""

import json
import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.support.faces import Faces, picture, write_faces
from tests.support.project import ROOT
from trainable.data import LabelledImages, load_pixels, open_test_data, open_training_data
from trainable.data import inspection as inspecting
from trainable.data.decoding import decoder
from trainable.data.decoding import process as decoder_process
from trainable.data.decoding.pool import Decoders
from trainable.data.decoding.process import DecoderProcess
from trainable.data.decoding.requests import AHEAD, DecoderDied, Request, Waiting
from trainable.data.images import TrainingData
from trainable.data.inspection import inspect_images
from trainable.data.views import ORIGINAL, View, view
from trainable.errors import ChangedInput, RequestError
from trainable.records.files import sha256_of

SIZE = 32


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of every kind, of which all can be decoded."""
    folder = tmp_path_factory.mktemp("album")
    colours = picture(1, 3, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in (
        ("colour.jpg", colours),
        ("grey.jpg", colours.convert("L")),
        ("cmyk.jpg", colours.convert("CMYK")),
        ("palette.png", colours.convert("P")),
        ("clear.png", colours.convert("RGBA")),
        ("näme with space.png", colours.convert("1")),
        ("deep.png", Image.fromarray(np.array(colours.convert("L")).astype(np.uint16) * 257)),
    ):
        image.save(folder / name)
    colours.resize((30, 70)).save(folder / "lying.jpg", exif=exif)
    for number in range(60):
        picture(number % 2, number, 40).save(folder / f"{number}.jpg")
    return folder


def part(folder: Path) -> LabelledImages:
    files = tuple(sorted(path.name for path in folder.iterdir()))
    digests = tuple(sha256_of(folder / file) for file in files)
    return LabelledImages(folder, files, torch.zeros(len(files)), SIZE, digests)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def begun(images: LabelledImages, store: Path, count: int = 2) -> Decoders:
    """Processes for these images alone."""
    return TrainingData(images, images).begin_decoders(count, store)


@pytest.fixture
def images(album: Path, store: Path) -> Iterator[LabelledImages]:
    """The album, decoded by two processes."""
    found = part(album)
    with begun(found, store) as decoders:
        assert decoders.running
        yield found


def processes(images: LabelledImages) -> Decoders:
    assert images.decoders is not None
    return images.decoders


def as_loaded(images: LabelledImages, order: list[int]) -> torch.Tensor:
    """By the function that knows of no process."""
    return torch.stack([load_pixels(images.folder / images.files[i], SIZE) for i in order])


def handles_in(store: Path) -> list[os.stat_result]:
    """Files of the store that this process has open, with a name or without."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        if handle.is_symlink() and str(handle.readlink()).startswith(str(store)):
            found.append(handle.stat())
    return found


# ---------------------------------------------------------------- the same as here


@pytest.mark.parametrize("batch_size", [1, 7, 32, 50])
def test_pixels_are_those_that_are_decoded_here(images: LabelledImages, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    positions, pixels = zip(*images.pixel_batches(order, batch_size, 2), strict=True)
    assert torch.cat(positions).tolist() == order
    assert {len(each) for each in positions[:-1]} <= {batch_size}
    assert torch.equal(torch.cat(pixels), as_loaded(images, order))
    assert all(each.is_contiguous() and each.dtype == torch.uint8 for each in pixels)


def test_views_are_made_of_them_as_of_those_decoded_here(images: LabelledImages) -> None:
    def see(file: str) -> View:
        return view("flip_jitter", 1, 2, file)

    found = torch.cat([pixels for _, pixels in images.batches(range(len(images)), 8, see, 2)])
    images.decoders = None
    expected = torch.cat([pixels for _, pixels in images.batches(range(len(images)), 8, see, 2)])
    assert torch.equal(found, expected)


def test_rows_of_the_inspection_are_those_that_are_found_here(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in album.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html>not found</html>")
    (folder / "half.jpg").write_bytes((folder / "colour.jpg").read_bytes()[:900])
    (folder / "folder.jpg").mkdir()
    files = [*sorted(path.name for path in folder.iterdir()), "missing.jpg"]
    monkeypatch.setattr(inspecting, "usable_cpus", lambda: 2)
    found: dict[int, pd.DataFrame] = {}
    counts: dict[int, list[int]] = {}
    for worth in (10**9, 1):
        monkeypatch.setattr(inspecting, "WORTH_PROCESSES", worth)
        counts[worth] = []
        found[worth] = inspect_images(
            folder, files, tmp_path / str(worth), counts[worth].append
        ).images
    pd.testing.assert_frame_equal(found[1], found[10**9], check_exact=True)
    assert (found[1]["problem"] != "").sum() == 5
    assert counts[1] == counts[10**9] == [0, *[1] * len(files)]


@pytest.mark.parametrize("harm", ["changed", "damaged", "gone"])
def test_an_image_that_cannot_be_used_is_named_in_the_same_words(
    tmp_path: Path, store: Path, harm: str
) -> None:
    faces = write_faces(tmp_path, 40)
    path = faces.images / faces.files[37]
    if harm == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    images = part(faces.images)
    if harm == "changed":
        picture(1, 99, 36).save(path)
    elif harm == "gone":
        path.unlink()
    raised = []
    with begun(images, store):
        for _ in range(2):
            with pytest.raises((OSError, ChangedInput)) as caught:
                list(images.batches(range(40), 16, lambda file: ORIGINAL, 2))
            raised.append(caught.value)
            images.decoders = None
    assert type(raised[0]) is type(raised[1])
    assert str(raised[0]) == str(raised[1])
    assert str(path) in str(raised[0])


def test_the_program_answers_in_json_and_writes_pixels_where_it_is_told(album: Path) -> None:
    """Called here: what the processes do, with each way in which an image can't be decoded."""
    images = part(album)
    good, other = images.files[:2]
    (first, second), at, length = images.digests[:2], 3 * SIZE * SIZE, 4 * 3 * SIZE * SIZE
    wanted = [(good, first), (good, second), ("missing.jpg", first), (other, second)]
    slots = mmap.mmap(-1, at + length)
    request = {"folder": str(album), "pixels": wanted, "size": SIZE, "at": at}
    assert decoder.answer(request, slots) == {"undecoded": [1, 2]}, "another content, and no file"
    found = torch.tensor(np.frombuffer(slots, np.uint8, length, at).reshape(4, 3, SIZE, SIZE))
    assert torch.equal(found[[0, 3]], as_loaded(images, [0, 1]))
    assert slots[:at] == bytes(at), "another process's"
    looked = decoder.answer({"folder": str(album), "look": [good, "missing.jpg"]}, None)
    assert looked["rows"][0][0] == first
    assert looked["rows"][1][3] == "can't be read: No such file or directory"


def test_an_image_that_is_damaged_is_left_to_the_caller_to_report(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    picture(1, 1, 40).save(path)
    path.write_bytes(path.read_bytes()[:300])
    request = {"folder": str(tmp_path), "size": SIZE, "at": 0}
    request["pixels"] = [(path.name, sha256_of(path))]
    slots = mmap.mmap(-1, 3 * SIZE * SIZE)
    assert decoder.answer(request, slots) == {"undecoded": [0]}


# ---------------------------------------------------------------- whoever is killed

PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
from pathlib import Path
import numpy as np
from trainable.data.decoding.pool import Decodable, Decoders
from trainable.records.files import sha256_of
folder, store = Path(sys.argv[1]), Path(sys.argv[2])
digests = {path.name: sha256_of(path) for path in folder.iterdir()}
decoders = Decoders(2, store, Decodable(folder, digests, 64))
into = np.empty((len(digests), 3, 64, 64), np.uint8)
begun = [decoders.pixels(list(digests), into) for _ in range(3_000)]
assert begun[0].undecoded() == []
print(decoders.pids, flush=True)
begun[-1].undecoded()
"""


@pytest.mark.whole
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_parent_leaves_no_decoder_behind(
    album: Path, store: Path, blow: signal.Signals
) -> None:
    """While they work, so they are not merely waiting for what it says next."""
    command = [sys.executable, "-c", PARENT, str(album), str(store)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        gone = [os.pidfd_open(pid) for pid in json.loads(parent.stdout.readline())]
        assert len(gone) == 2
        assert list(store.iterdir()) == []
        parent.send_signal(blow)
        for handle in gone:
            assert select.select([handle], [], [], 30)[0], "it still runs"
            os.close(handle)
    assert list(store.iterdir()) == []


def test_a_killed_decoders_requests_are_answered_by_another(images: LabelledImages) -> None:
    order = list(range(len(images))) * 12
    first, seen = set(processes(images).pids), []
    for number, (_, pixels) in enumerate(images.pixel_batches(order, 16, 2)):
        seen.append(pixels)
        if number in (0, 20):
            for pid in processes(images).pids:
                os.kill(pid, signal.SIGKILL)
    assert torch.equal(torch.cat(seen), as_loaded(images, order))
    assert not first & set(processes(images).pids)


def test_what_kills_every_decoder_is_an_error_that_names_it(
    images: LabelledImages, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die = "import sys; sys.stdin.readline(); sys.exit('no such\\nlibrary')"
    monkeypatch.setattr(decoder_process, "COMMAND", (sys.executable, "-c", die))
    with begun(images, store), pytest.raises(DecoderDied) as caught:
        list(images.pixel_batches(range(9), 4, 2))
    told = str(caught.value)
    assert f"on {images.folder / images.files[0]} and 3 more it ended with code 1" in told
    assert "and said: no such library" in told


def test_where_no_other_decoder_can_be_started_its_requests_fail_with_the_images_name(
    images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody waits for ever."""
    monkeypatch.setattr(decoder_process, "COMMAND", ("/nowhere/python",))
    for pid in processes(images).pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(DecoderDied, match="it ended by SIGKILL") as caught:
        list(images.pixel_batches(range(64), 32, 2))
    assert f"on {images.folder}/" in str(caught.value)
    with pytest.raises(DecoderDied):
        list(images.pixel_batches(range(64), 32, 2))


def test_an_answer_that_is_none_is_an_error_of_the_caller(
    images: LabelledImages, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from another program in the decoder's place; its thread would end, and the caller wait for ever."""
    talk = "import sys\nfor line in sys.stdin: print('hello', flush=True)"
    monkeypatch.setattr(decoder_process, "COMMAND", (sys.executable, "-c", talk))
    with begun(images, store), pytest.raises(json.JSONDecodeError):
        list(images.pixel_batches(range(9), 4, 2))


def test_the_kernels_killing_is_told_with_its_likely_reason(
    images: LabelledImages, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die = "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(decoder_process, "COMMAND", (sys.executable, "-c", die))
    with begun(images, store), pytest.raises(DecoderDied, match=r"SIGKILL.*memory is short"):
        list(images.pixel_batches(range(9), 4, 2))


def test_ctrl_c_is_for_the_parent_to_decide(images: LabelledImages) -> None:
    pixels = torch.cat([pixels for _, pixels in images.pixel_batches(range(64), 32, 2)])
    pids = processes(images).pids
    assert all(os.getpgid(pid) != os.getpgid(0) for pid in pids)
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    again = torch.cat([pixels for _, pixels in images.pixel_batches(range(64), 32, 2)])
    assert torch.equal(pixels, again)
    assert processes(images).pids == pids


def test_who_waits_for_decoders_that_are_closed_is_told(images: LabelledImages) -> None:
    decoders = processes(images)
    pids = decoders.pids
    into = np.empty((len(images), 3, SIZE, SIZE), np.uint8)
    begun = [decoders.pixels(images.files, into) for _ in range(40)]
    decoders.close()
    with pytest.raises(DecoderDied):
        begun[-1].undecoded()
    with pytest.raises(DecoderDied):
        decoders.pixels(images.files, into).undecoded()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    (_, pixels), *_ = images.pixel_batches([5], 1, 1)  # by threads from now on
    assert torch.equal(pixels, as_loaded(images, [5]))


def test_a_request_after_the_end_is_refused_though_a_thread_has_yet_to_be_told_of_it() -> None:
    """One that never started, for example: nobody else would answer."""
    waiting = Waiting()
    request = Request({"folder": "/faces", "look": ["1.jpg"]})
    waiting.end(2)
    waiting.put(request)
    assert isinstance(request.answer.exception(timeout=0), DecoderDied)
    assert waiting.another() is None
    assert [waiting.first(), waiting.first()] == [None, None], "both threads end"


def test_a_busy_thread_leaves_the_end_that_comes_in_between_to_an_idle_one() -> None:
    waiting = Waiting()
    waiting._queue.put(None)  # as `end` does, a moment after the thread has looked
    assert waiting.another() is None
    assert waiting.first() is None


# ---------------------------------------------------------------- what they may see, and take


def test_a_training_processes_decoders_open_no_test_image(
    faces: Faces, split_file: Path, store: Path
) -> None:
    data = open_training_data(split_file, faces.images, SIZE)
    test = open_test_data(split_file, faces.images, SIZE)
    with data.begin_decoders(2, store) as decoders:
        assert decoders.only is not None
        assert set(decoders.only.digests) == {*data.training.files, *data.validation.files}
        test.decoders = decoders
        with pytest.raises(RequestError, match=test.files[0]):
            list(test.pixel_batches(range(len(test)), 4, 1))
        with pytest.raises(AssertionError):
            list(decoders.look(test.folder, test.files))


def test_pixels_lie_in_a_bounded_file_without_a_name(images: LabelledImages, store: Path) -> None:
    order = list(range(len(images))) * 30
    for _ in images.pixel_batches(order, 64, 2):
        assert list(store.iterdir()) == []
        (file,) = {(each.st_ino, each.st_nlink, each.st_size) for each in handles_in(store)}
        assert file[1:] == (0, 2 * AHEAD * 32 * 3 * SIZE * SIZE)
    processes(images).close()
    assert handles_in(store) == []


def test_large_images_are_asked_for_one_by_one(album: Path, store: Path) -> None:
    images = part(album)
    images.image_size = 2_000
    with begun(images, store):
        found = torch.cat([pixels for _, pixels in images.pixel_batches([3, 1, 4], 3, 1)])
        (size,) = {each.st_size for each in handles_in(store)}
    assert size == 2 * AHEAD * 3 * 2_000**2
    assert torch.equal(found[2], load_pixels(album / images.files[4], 2_000))


def test_where_the_store_cannot_be_written_threads_decode_and_it_is_said(
    album: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    images = part(album)
    with begun(images, tmp_path / "file" / "store") as decoders:
        assert not decoders.running
        assert decoders.pids == []
        (_, pixels), *_ = images.pixel_batches([2], 1, 2)
    assert torch.equal(pixels, as_loaded(images, [2]))
    assert caplog.text.count("processes can't be started") == 1


def test_one_cpu_needs_no_process(album: Path, store: Path) -> None:
    images = part(album)
    with begun(images, store, 1) as decoders:
        assert not decoders.running
        assert len(list(images.pixel_batches(range(9), 4, 1))) == 3
    assert not store.exists()


def test_a_decoder_imports_little_and_nothing_of_the_users(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules in the current folder, and ours beside decoder.py, take the place of none that it wants."""
    ours = {path.stem for path in (ROOT / "trainable").iterdir()}
    for name in ours | {"trainable", "sweep", "json", "numpy", "PIL", "imagehash"}:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    monkeypatch.setattr(decoder_process, "LAST_WORDS", 2**20)
    process = DecoderProcess()
    process.send(json.dumps({"folder": str(album), "look": ["colour.jpg"]}).encode() + b"\n")
    answer = process.receive()
    assert answer is not None
    assert json.loads(answer)["rows"] == [list(decoder.findings(album / "colour.jpg"))]
    process.kill()
    told = process.close().split("import time:")
    imported = {line.rsplit("|", 1)[1].split(".")[0].strip() for line in told if "|" in line}
    assert {"PIL", "numpy", "imagehash"} <= imported
    assert not imported & {"torch", "pandas", "pydantic", "trainable", "sweep", "ray"}
    assert not imported & ours - {"decoder"}
