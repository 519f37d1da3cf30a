"""The only file that uses `torch.cuda`; every method of `Cuda` has a counterpart in `Device`, which is the CPU.

Everything else is written once for both and tested on the CPU. What only a GPU can show is in tests marked `gpu` and
in benchmarks/gpu.py.
"""

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainable.hardware.memory import free_bytes

BFLOAT16_SINCE: Final = (8, 0)
"""NVIDIA's compute capability: older GPUs only emulate it, which torch.cuda.is_bf16_supported() counts as support."""
WARM_UP_STEPS: Final = 3
"""Before a capture, as in PyTorch's notes on CUDA graphs: libraries and optimizers have then made the allocations of
their first use."""
STAGED_BYTES: Final = 2**26  # of each of two pinned buffers for copies to the host; assumed
DRIVER: Final = Path("/proc/driver/nvidia/version")


class CaptureFailed(Exception):
    """A CUDA graph could not be captured: what the process holds on the GPU can't be trusted, and it should end."""


class Mark:
    """A point in the work queued on a device; on a CPU, all of it is already done."""

    def wait(self) -> None:
        """Block this thread until the work before the mark is done."""

    def precede(self) -> None:
        """Make what this thread queues from now on start after the work before the mark."""


class Device:
    """The CPU: queued work is done at once, host memory is the device's memory, and nothing is captured."""

    kind = "cpu"
    rate_format = torch.float64
    """Number format of a learning rate that a fused optimizer reads from the device."""

    def __init__(self) -> None:
        self.torch = torch.device(self.kind)
        self.queueing = threading.RLock()
        """Held by every thread that queues work on the device in parallel: a capture must be alone."""

    def facts(self) -> dict[str, Any]:
        """What determines the kernels, and thereby the last bits; as plain JSON."""
        return {
            "device": self.name(),
            "torch": torch.__version__,
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }

    def name(self) -> str:
        return "cpu"

    def half(self) -> str:
        """The half precision that this device supports natively; float32 if it has none."""
        return "float32"

    def fix_kernels(self, tf32: bool) -> None:
        """Choose kernels without timing, and set whether float32 convolutions may round to TF32 (10 bits) inside."""

    def seed(self, number: int) -> None:
        """Begin the random numbers of this device and the CPU anew, as `torch.manual_seed` does.

        That also notes from where it was called, for each kind of device that is not there: 1.8 ms in a deep stack.
        """
        torch.default_generator.manual_seed(number)

    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    def give_back(self) -> None:
        """Return unused memory to the system."""

    def limit_memory(self, share: float) -> None:
        """Limit this process to this share of the device's memory."""

    def total_bytes(self) -> int:
        """Memory of a GPU; 0 on a CPU."""
        return 0

    def free_bytes(self) -> int:
        """Memory that this process could still use."""
        return free_bytes()

    def forget_peak(self) -> None:
        """Start to measure the peak again."""

    def peak_bytes(self) -> int:
        """The most memory that tensors have used since `forget_peak`; 0 on a CPU."""
        return 0

    def host_buffer(self, shape: tuple[int, ...], format: torch.dtype) -> Tensor:
        """Uninitialised host memory that the device can copy to and from directly."""
        return torch.empty(shape, dtype=format)

    def to_host(self, tensor: Tensor) -> Tensor:
        """`tensor` in host memory: itself on a CPU, a copy of what a GPU holds."""
        return tensor

    def mark(self) -> Mark:
        """What this thread has queued so far."""
        return Mark()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Queue what follows on this thread's own stream, in parallel with other work; see `mark` for the order."""
        yield

    def replayed(self, step: Callable[[], None]) -> Callable[[], None]:
        """`step`, which reads and writes the same tensors each time, as one graph if the device has graphs."""
        return step


class Cuda(Device):
    """The GPU that this process sees first."""

    kind = "cuda"
    rate_format = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self._share = 1.0
        self._streams = threading.local()
        self._staged: list[Tensor] = []
        self._side: torch.cuda.Stream | None = None

    def facts(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties(0)
        return {
            "device": properties.name,
            "capability": [properties.major, properties.minor],
            "memory_bytes": properties.total_memory,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }

    def name(self) -> str:
        return torch.cuda.get_device_name(0)

    def half(self) -> str:
        return half_of(torch.cuda.get_device_capability(0))

    def fix_kernels(self, tf32: bool) -> None:
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = False

    def seed(self, number: int) -> None:
        torch.manual_seed(number)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def give_back(self) -> None:
        torch.cuda.empty_cache()

    def limit_memory(self, share: float) -> None:
        self._share = share
        torch.cuda.set_per_process_memory_fraction(share)

    def total_bytes(self) -> int:
        return int(torch.cuda.get_device_properties(0).total_memory)

    def free_bytes(self) -> int:
        free, total = torch.cuda.mem_get_info()
        taken = torch.cuda.memory_allocated()
        idle = torch.cuda.memory_reserved() - taken
        return int(min(free + idle, self._share * total - taken))

    def forget_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        return int(torch.cuda.max_memory_allocated())

    def host_buffer(self, shape: tuple[int, ...], format: torch.dtype) -> Tensor:
        with suppress(RuntimeError):  # a container may limit pinned memory
            return torch.empty(shape, dtype=format, pin_memory=True)
        return torch.empty(shape, dtype=format)

    def to_host(self, tensor: Tensor) -> Tensor:
        """Through two pinned buffers in turn: directly to pageable memory, an H200 copies 1.5 instead of 55 GB/s."""
        found = torch.empty(tensor.shape, dtype=tensor.dtype)
        source, target = (each.reshape(-1).view(torch.uint8) for each in (tensor.detach(), found))
        waiting: list[tuple[Mark, Tensor, Tensor]] = []
        for number, piece in enumerate(source.split(STAGED_BYTES)):
            if len(self._staged) <= number % 2:
                self._staged.append(self.host_buffer((STAGED_BYTES,), torch.uint8))
            staged = self._staged[number % 2][: len(piece)]
            if len(waiting) == 2:
                _land(*waiting.pop(0))
            staged.copy_(piece, non_blocking=True)
            start = number * STAGED_BYTES
            waiting.append((self.mark(), staged, target[start : start + len(piece)]))
        for each in waiting:
            _land(*each)
        return found

    def mark(self) -> Mark:
        return _Event()

    @contextmanager
    def beside(self) -> Iterator[None]:
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream()
        with torch.cuda.stream(self._streams.own):
            yield

    def replayed(self, step: Callable[[], None]) -> Callable[[], None]:
        return _Graph(self, step)

    def side_stream(self) -> torch.cuda.Stream:
        """The same for every warm-up: libraries keep a workspace for each stream that they have seen."""
        if self._side is None:
            self._side = torch.cuda.Stream()
        return self._side


def _land(copied: Mark, staged: Tensor, target: Tensor) -> None:
    copied.wait()
    target.copy_(staged)


class _Event(Mark):
    def __init__(self) -> None:
        self._event = torch.cuda.Event()
        self._event.record()

    def wait(self) -> None:
        self._event.synchronize()

    def precede(self) -> None:
        torch.cuda.current_stream().wait_event(self._event)


class _Graph:
    """A step that runs on a side stream until warm, is then captured, and from then on replayed.

    Warm-up steps are real ones, so nothing has to be undone after them; the capture itself runs nothing.
    """

    def __init__(self, device: Cuda, step: Callable[[], None]) -> None:
        self._device = device
        self._step: Callable[[], None] | None = step
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is None and self._warm == WARM_UP_STEPS:
            self._capture()
        if self._graph is not None:
            self._graph.replay()
            return
        assert self._step is not None
        side = self._device.side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step()
        torch.cuda.current_stream().wait_stream(side)
        self._warm += 1

    def _capture(self) -> None:
        assert self._step is not None
        graph = torch.cuda.CUDAGraph()
        with self._device.queueing:
            torch.cuda.synchronize()
            drawn = torch.cuda.get_rng_state()
            try:
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self._step()
            except Exception as error:
                raise CaptureFailed(f"no CUDA graph of the training step: {error}") from error
            torch.cuda.set_rng_state(drawn)  # dropout continues where the eager step would
        # dropping the step avoids a reference cycle that keeps memory
        self._graph, self._step = graph, None


@cache
def device_of(kind: str) -> Device:
    """The CPU or the GPU of this process, by its kind."""
    return Cuda() if kind == "cuda" else Device()


def has_gpu() -> bool:
    """Does this process see a GPU?"""
    with warnings.catch_warnings():
        # several lines about an old driver; trainable.hardware.unused_gpu needs one
        warnings.filterwarnings("ignore", message="CUDA initialization")
        return torch.cuda.is_available()


def gpu_count() -> int:
    """How many GPUs this process sees."""
    return torch.cuda.device_count() if has_gpu() else 0


def half_of(capability: tuple[int, int]) -> str:
    """The half precision of a GPU by its compute capability."""
    return "bfloat16" if capability >= BFLOAT16_SINCE else "float16"


def _driver() -> str:
    """Version of NVIDIA's driver, or of torch's CUDA if that is unknown."""
    with suppress(OSError):
        if found := re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", DRIVER.read_text()):
            return found[1]
    return f"CUDA {torch.version.cuda}"
