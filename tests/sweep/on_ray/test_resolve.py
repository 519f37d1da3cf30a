"""What a run gets from the devices that were found; what only a GPU tells is given here in its place."""

import io
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.frozen.rates import RateProbe
from sweep.on_ray import cluster, node_tasks, own_ray
from sweep.on_ray.resolve import _graphs, _pack
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import open_run
from sweep.request.prepare import prepare
from sweep.resources.allocation import Allocation, Node
from sweep.resources.packing import Packed
from sweep.show.plan import _training_images
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from trainable.config import RunSettings
from trainable.errors import RequestError
from trainable.show.terminal import PlainConsole

pytestmark = pytest.mark.ray  # imports it

ONE_GPU = [Node("a", "here", 8, 1)]
WHOLE = Allocation(1.0, 8, 1)
SPARE = Packed(one=100.0, two=150.0, bytes_each=10**9, total_bytes=10**11)
CROWDED = Packed(one=100.0, two=150.0, bytes_each=8 * 10**10, total_bytes=10**11)


@pytest.fixture
def make(faces: Faces, tmp_path: Path, own_store: Path) -> Callable[..., SweepConfig]:
    def configured(**resources: object) -> SweepConfig:
        trial = {"strategy": "full", "lr": [1e-3, 1e-4]}
        return check_config(sweep_facts(faces, tmp_path, trial, resources=resources), {}, "test")

    return configured


def pack(config: SweepConfig, found: list[Node]) -> tuple[Allocation, dict[str, Any], str]:
    run = open_run(create_run(config, prepare(config), []).path)
    settings = RunSettings(
        folder=run.folder.path,
        images=config.data.images,
        image_size=32,
        weights="none",
        width=config.model.width,
        epochs=1,
    )
    console = PlainConsole(file=io.StringIO(), width=200)
    granted, facts = _pack(run, settings, found, WHOLE, console)
    return granted, facts, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("measured", "share"), [(SPARE, 0.5), (CROWDED, 1.0), ("out of memory", 1.0)]
)
def test_two_trials_share_a_gpu_if_both_fit_and_are_faster_together(
    make: Callable[..., SweepConfig],
    monkeypatch: pytest.MonkeyPatch,
    measured: Packed | str,
    share: float,
) -> None:
    monkeypatch.setattr(cluster, "measure_packing", lambda *_: measured)
    granted, facts, said = pack(make(), ONE_GPU)
    assert granted.gpus == share
    if isinstance(measured, str):
        assert facts == {"why": "out of memory"}
        assert "each trial gets a whole GPU" in said and "out of memory" in said
    else:
        assert facts["gpus_per_trial"] == share and "GPU" in said


@pytest.mark.parametrize(
    ("resources", "gpus", "why"),
    [
        ({"gpus_per_trial": 0.25}, 1, "resources.gpus_per_trial was given"),
        ({}, 2, "there is a GPU for each trial that runs at a time"),
        ({"concurrent": 1}, 1, "there is a GPU for each trial that runs at a time"),
    ],
)
def test_nothing_is_tried_where_it_is_clear(
    make: Callable[..., SweepConfig],
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, object],
    gpus: int,
    why: str,
) -> None:
    monkeypatch.delattr(cluster, "measure_packing")
    granted, facts, said = pack(make(**resources), [Node("a", "here", 8, gpus)])
    assert (granted, facts, said) == (WHOLE, {"why": why}, "")


@pytest.mark.parametrize(
    ("asked", "problem", "used", "why"),
    [
        ("on", "not even tried", True, "resources.graphs: on"),
        ("off", "not even tried", False, "resources.graphs: off"),
        ("auto", "", True, "a test of them passed"),
        ("auto", "here: no capture", False, "here: no capture"),
    ],
)
def test_steps_are_captured_where_a_test_passed_or_as_asked(
    make: Callable[..., SweepConfig],
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    problem: str,
    used: bool,
    why: str,
) -> None:
    monkeypatch.setattr(cluster, "graph_problem", lambda *_: problem)
    console = PlainConsole(file=io.StringIO(), width=200)
    graphs = _graphs(make(graphs=asked), ONE_GPU, WHOLE, "bfloat16", console)
    assert (graphs.used, graphs.why) == (used, why)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert (f"a test of them failed: {problem}" in said) == (asked == "auto" and not used)


@pytest.mark.parametrize("address", ["", "there", "there:", "there:port", "ray://there", "locall"])
def test_what_is_no_address_is_refused_before_anything_is_tried(address: str) -> None:
    with pytest.raises(RequestError, match="must be local, auto or HOST:PORT, but it is") as said:
        cluster.refuse_closed(address)
    assert repr(address) in str(said.value)


def serve(answer: bytes) -> int:
    """The port of a server that says this to the first who comes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        with listening, listening.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(answer)

    threading.Thread(target=once, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_an_address_where_something_else_than_ray_listens_is_refused_at_once(answer: bytes) -> None:
    """Ray would try for more than five minutes; the dashboard's port is easily taken for Ray's."""
    address = f"127.0.0.1:{serve(answer)}"
    with pytest.raises(RequestError, match=f"what listens at {address} is something else") as said:
        cluster.refuse_closed(address)
    assert answer[:8].decode() in str(said.value) and "8265 is the dashboard's" in str(said.value)
    assert "\n" not in str(said.value)


def test_a_server_of_grpc_is_left_to_ray_and_so_is_one_that_says_nothing() -> None:
    for answer in (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b""):
        cluster.refuse_closed(f"127.0.0.1:{serve(answer)}")


def test_auto_is_looked_up_by_ray_itself() -> None:
    cluster.refuse_closed("auto")


def test_a_ray_that_can_not_start_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    token, socket = tmp_path / "home" / ".ray" / "token", tmp_path / "ray" / "session"
    remedies = {
        PermissionError(13, "Permission denied", str(token)): "set HOME to a folder",
        PermissionError(13, "Permission denied", str(socket)): "set RAY_TMPDIR",
        OSError("AF_UNIX path length cannot exceed 107 bytes"): "set RAY_TMPDIR",
        RuntimeError(f"{own_ray.LATE} within 30 s"): "the machine was too busy, twice",
        ValueError("something else"): "",
    }
    for error, remedy in remedies.items():
        said = own_ray._remedy(error)
        assert remedy in said and bool(said) == bool(remedy), error


def test_a_node_whose_store_can_not_be_used_says_why_and_measures_nothing(
    make: Callable[..., SweepConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "file" / "store"))
    prepared = prepare(make())
    images = _training_images(make(), prepared)
    probe = RateProbe(cuts=(24,), images=images, threads=1, device="cpu", precision="float32")
    why = node_tasks.rates_or_why("none", 0.05, probe)
    assert isinstance(why, str) and "Not a directory" in why and str(tmp_path / "file") in why
