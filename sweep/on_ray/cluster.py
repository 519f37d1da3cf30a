"""Start Ray here or join a cluster, and check that every node can run a trial."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.frozen.rates import RateProbe, Rates
from sweep.on_ray import node_tasks
from sweep.on_ray.installed import code_here, job, refuse_other_code
from sweep.on_ray.node_tasks import MustSee
from sweep.on_ray.own_ray import OwnRay, sigterm_as_it_was
from sweep.resources.allocation import Allocation, Node
from sweep.resources.packing import PROBE_SECONDS, Packed, Probe
from trainable.config import Precision, RunSettings, TrialConfig
from trainable.errors import RequestError
from trainable.show.terminal import LOG_FORMAT

PACKING_SECONDS: Final = 60.0  # for two actors' imports and a probe; assumed
SETTINGS: Final = 4  # the type of the first frame that a server of HTTP/2 sends (RFC 9113, 3.4)
GRAPH_TEST_SECONDS: Final = 90.0  # its process takes about 15 to start; assumed


class _ActorManager(RayActorManager):  # type: ignore[misc]
    """Tune's own, except that it handles Ray's memory monitor: when that kills a worker, the error is one that Tune
    does not expect, and Tune would end the whole sweep. Reported as the death of one actor, it only makes Tune retry
    the trial (docs/explanation/ray.md).
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(f"Ray's memory monitor ended it:\n{exception}")
        super()._actor_task_failed(tracked_actor_task, exception)


tune_controller.RayActorManager = _ActorManager


@contextmanager
def cluster(address: str, log: Path, own: OwnRay | None = None) -> Iterator[str]:
    """Ray for as long as the context lasts; yields the dashboard's address, "" if there is none.

    `own` is the Ray that was started on this machine; without it, `address` is auto (join the Ray that runs on this
    machine) or HOST:PORT.

    Raises:
        RequestError: nothing answers at the address, or Ray can't start here.
    """
    context = own.ready() if own is not None else _join(address)
    _log_to(log)
    try:
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        if own is not None:
            own.close()
        else:
            with sigterm_as_it_was():
                ray.shutdown()


def _join(address: str) -> Any:
    refuse_closed(address)
    try:
        with sigterm_as_it_was():
            return ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                job_config=job(),
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RequestError(
            f"--address must be local, auto or HOST:PORT of a running Ray, but {address!r} does not answer ({reason}); "
            "for a cluster with a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too"
        ) from None


def refuse_closed(address: str) -> None:
    """Check that something listens at the address, and not an HTTP/1 server such as Ray's dashboard; Ray itself would
    try for minutes.

    Raises:
        RequestError: nothing listens at HOST:PORT, or something that is no Ray.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise RequestError(f"--address must be local, auto or HOST:PORT, but it is {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            answer = _answer(connection)
    except OSError as error:
        raise RequestError(
            f"--address must be local, auto or HOST:PORT of a running Ray, but nothing listens at {address} ({error}); "
            "run `ray status` there to see whether Ray is running"
        ) from None
    if len(answer) > 3 and answer[3] != SETTINGS:
        raise RequestError(
            f"--address must be local, auto or HOST:PORT of a running Ray, but what listens at {address} is something "
            f"else: it answers {answer.decode('ascii', 'replace')!r}; take the address that `ray start --head` printed "
            "(the port is 6379 unless another was given; 8265 is the dashboard's)"
        )


def _answer(connection: socket.socket) -> bytes:
    """The first bytes of a server's answer to a client of HTTP/2, which gRPC speaks; empty if none comes in time."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
        return b""  # it would wait for a greeting of another kind
    try:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return connection.recv(9)
    except OSError:
        return b""


def _log_to(path: Path) -> None:
    """Send Ray's messages to the run's log, so that they don't appear between our progress lines."""
    handler = logging.FileHandler(path)
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is reported elsewhere
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # warns of missing result files


def nodes() -> list[Node]:
    """The nodes that are alive."""
    return [
        Node(
            id=facts["NodeID"],
            host=facts["NodeManagerHostname"],
            cpus=int(facts["Resources"].get("CPU", 0)),
            gpus=int(facts["Resources"].get("GPU", 0)),
        )
        for facts in ray.nodes()
        if facts["Alive"]
    ]


def graph_problem(found: list[Node], granted: Allocation, precision: Precision) -> str:
    """Why CUDA graphs don't work on one of the nodes with GPUs; "" if they do.

    Each node is tested in a process of its own, which then ends: after a failed capture it could not be trusted.
    """
    task = ray.remote(num_cpus=0, num_gpus=granted.gpus, max_retries=0)(node_tasks.graph_problem)
    nodes = [node for node in found if node.gpus]
    tests = [task.options(scheduling_strategy=_on(node)).remote(precision) for node in nodes]
    for node, test in zip(nodes, tests, strict=True):
        try:
            problem = ray.get(test, timeout=GRAPH_TEST_SECONDS)
        except ray.exceptions.RayError as error:
            ray.cancel(test, force=True)
            problem = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        if problem:
            return f"{node.host}: {problem}"[:300]
    return ""


def measure_packing(
    found: list[Node], run: RunSettings, configs: Sequence[TrialConfig], held_bytes: int
) -> Packed | str:
    """How fast one trial and two run on a GPU of the first node that has one, or why that is unknown."""
    node = next(node for node in found if node.gpus)
    probe = ray.remote(num_cpus=0, num_gpus=0.5, scheduling_strategy=_on(node))(Probe)
    both = [probe.remote(run, configs) for _ in range(2)]
    try:
        asked = [each.found.remote() for each in both]
        (gpu, taken, total), (other, *_) = ray.get(asked, timeout=PACKING_SECONDS)
        if gpu != other:
            return f"the two probes that were to share a GPU got {gpu} and {other}"
        one = ray.get(both[0].rate.remote(PROBE_SECONDS), timeout=PACKING_SECONDS)
        beside = [each.rate.remote(PROBE_SECONDS) for each in both]
        two = sum(ray.get(beside, timeout=PACKING_SECONDS))
        return Packed(one, two, taken + held_bytes, total)
    except ray.exceptions.RayError as error:  # out of memory, a failed capture, a hang
        return str(error).strip().splitlines()[-1][:300] if str(error).strip() else repr(error)
    finally:
        for each in both:
            ray.kill(each)


def unused_gpus(found: list[Node]) -> list[str]:
    """A line for each node with GPUs that its torch can't use."""
    # without a share, Ray hides the GPUs
    task = ray.remote(num_cpus=0, num_gpus=0.01)(node_tasks.why_unused)
    nodes = [node for node in found if node.gpus]
    whys = ray.get([task.options(scheduling_strategy=_on(node)).remote() for node in nodes])
    return [f"{node.host}: {why}" for node, why in zip(nodes, whys, strict=True) if why]


def _on(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def measure_rates_on_a_node(
    granted: Allocation, weights: str, width: float, probe: RateProbe, *, here: bool
) -> Rates | str:
    """`node_tasks.rates_or_why` on a node, with a trial's resources; `here`: in this process, on the only node."""
    if here:
        return node_tasks.rates_or_why(weights, width, probe)
    task = ray.remote(num_cpus=granted.cpus, num_gpus=granted.gpus)(node_tasks.rates_or_why)
    found: Rates | str = ray.get(task.remote(weights, width, probe))
    return found


def look_at(
    found: list[Node], asked: MustSee, *, gpus: bool = True, here: bool
) -> list[dict[str, Any]]:
    """Check that every node sees the run folder and the images, and can write a mark in the run folder.

    `gpus`: trials get GPUs, so facts about them are needed. `here`: this process started the only node, and checks by
    itself, since a worker takes seconds to start.

    Raises:
        RequestError: a node has other code, or can't see or write a folder: its trials would fail one after another.
    """
    if not here:
        refuse_other_code(_codes(found))
    seen = [node_tasks.look(asked)] if here else _look_everywhere(found, asked, gpus)
    try:
        for look in seen:
            if (
                not look["manifest"]
                or not look["mark"]
                or not (asked.folder / look["mark"]).is_file()
            ):
                raise RequestError(
                    f"every node must see and write the run folders in {asked.folder.parent}, but "
                    f"{look['host']} can't; put `storage` on a file system that all nodes share"
                )
            if not look["image"]:
                raise RequestError(
                    f"every node must see the images, but {look['host']} has no {asked.images / asked.first_image}; "
                    "put them on a shared file system, or at the same path on every node"
                )
    finally:
        for mark in asked.folder.glob(f"{asked.mark}*"):
            mark.unlink(missing_ok=True)
    return seen


def _codes(found: list[Node]) -> list[dict[str, str]]:
    """Which code each node that can run trials imports as ours."""
    task = ray.remote(num_cpus=0)(code_here)
    asked = [task.options(scheduling_strategy=_on(node)).remote() for node in found if node.cpus]
    codes: list[dict[str, str]] = ray.get(asked)
    return codes


def _look_everywhere(found: list[Node], asked: MustSee, gpus: bool) -> list[dict[str, Any]]:
    task = ray.remote(num_cpus=0)(node_tasks.look)
    looks = [
        task.options(
            num_gpus=0.01 if node.gpus and gpus else 0,  # without a share, Ray hides the GPUs
            scheduling_strategy=_on(node),
        ).remote(asked)
        for node in found
        if node.cpus
    ]
    seen: list[dict[str, Any]] = ray.get(looks)
    return seen
