"""A trial's state as one file that torch can load without running code, with a checksum that is looked at."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_crc32_options, set_crc32_options


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write nested dicts and lists of tensors and plain values."""
    with _no_checksum_by_torch():
        torch.save({**state, "checksum": checksum(state)}, path)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, its tensors on the CPU.

    Raises:
        ValueError: it is not what was written; torch raises many kinds more for a file that is none of its own.
    """
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state.pop("checksum") != checksum(state):
        raise ValueError("its checksum does not fit what it holds")
    return state


def checksum(state: object) -> int:
    """CRC-32 of all tensors' bytes, plain values and keys, in their order."""
    found = 0
    for part in _parts(state):
        found = zlib.crc32(part, found)
    return found


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
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        case _:
            yield repr(value).encode()


@contextmanager
def _no_checksum_by_torch() -> Iterator[None]:
    """torch 2.15 writes a CRC-32 that it never looks at, and takes four times as long for it as zlib (docs/log.md)."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
