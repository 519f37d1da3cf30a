"""A trial's weights and state as files: large, written once, loaded without running code, with damage detected."""

import hashlib
import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor
from torch.serialization import get_crc32_options, set_crc32_options

from trainable.hardware.device import device_of
from trainable.records.files import Streamed


def save_weights(weights: Mapping[str, Tensor], path: Path) -> str:
    """Write float32 tensors as a safetensors file; returns its SHA-256.

    The library's own writer can't stream; the format is eight bytes of length, a JSON header, and the values.
    """
    header, end = {}, 0
    ordered = dict(sorted(weights.items()))
    for name, tensor in ordered.items():
        assert tensor.dtype == torch.float32
        start, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    parts = [len(text).to_bytes(8, "little"), text, *map(_bytes, ordered.values())]
    with Streamed(path) as file:
        for part in parts:
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write nested dicts and lists of tensors and plain values."""
    state = on_host(state)
    with _no_checksum_by_torch(), Streamed(path) as file:
        torch.save({**state, "checksum": checksum(state)}, cast(IO[bytes], file))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, its tensors on the CPU.

    Raises:
        ValueError: it is not what was written; torch raises many other kinds for a file that is not its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles by others, which raise
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state.pop("checksum") != checksum(state):
        raise ValueError("its checksum does not match its content")
    return state


def checksum(state: object) -> int:
    """CRC-32 of all tensors' bytes, plain values and keys, in their order."""
    found = 0
    for part in _parts(state):
        found = zlib.crc32(part, found)
    return found


def tensor_bytes(value: object) -> int:
    """Bytes of the tensors among nested values."""
    match value:
        case Mapping():
            return sum(map(tensor_bytes, value.values()))
        case list() | tuple():
            return sum(map(tensor_bytes, value))
        case Tensor():
            return value.nbytes
    return 0


def _parts(value: object) -> Iterator[bytes | memoryview]:
    match value:
        case Mapping():
            for key, each in value.items():
                yield repr(key).encode()
                yield from _parts(each)
        case list() | tuple():
            for each in value:
                yield from _parts(each)
        case Tensor():
            yield _bytes(value)
        case _:
            yield repr(value).encode()


def on_host(value: Any) -> Any:
    """The same nested values with every tensor in host memory: on a CPU the tensors themselves."""
    match value:
        case Mapping():
            return {key: on_host(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(map(on_host, value))
        case Tensor():
            return device_of(value.device.type).to_host(value)
    return value


def _bytes(tensor: Tensor) -> bytes | memoryview:
    here: Tensor = on_host(tensor)
    return here.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def _no_checksum_by_torch() -> Iterator[None]:
    """torch 2.15 writes a CRC-32 that it never checks, and takes four times as long for it as zlib (docs/log.md)."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
