"""State files: what is read is what was written, or nothing."""

import copy
import hashlib
import os
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import safetensors.torch
import torch
from torch import nn

from trainable.records.files import STREAMED_BYTES, Streamed
from trainable.records.state import (
    checksum,
    load_state,
    on_host,
    save_state,
    save_weights,
    tensor_bytes,
)


@pytest.fixture
def state() -> dict[str, Any]:
    """Of a model that has made a step, and numbers of several kinds."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "trained": {name: p.detach() for name, p in model.named_parameters()},
        "optimizer": optimizer.state_dict(),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }


def other(state: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(state)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def test_a_state_comes_back_as_it_was(state: dict[str, Any], tmp_path: Path) -> None:
    save_state(state, tmp_path / "last.pt")
    found = load_state(tmp_path / "last.pt")
    assert list(found) == list(state)
    assert found["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert torch.equal(found["trained"]["weight"], state["trained"]["weight"])
    moments, before = found["optimizer"]["state"][0], state["optimizer"]["state"][0]
    assert all(torch.equal(moments[name], before[name]) for name in before)
    assert found["half"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epoch",), 4),
        (("optimizer", "param_groups", 0, "lr"), 1e-2),
        (("optimizer", "state", 0, "exp_avg"), torch.zeros(2, 3)),
        (("trained", "bias"), torch.tensor([1.0, -1.0])),
        (("more",), 0),
    ],
)
def test_any_other_value_has_another_checksum(
    state: dict[str, Any], path: tuple[Any, ...], value: object
) -> None:
    assert checksum(other(state, path, value)) != checksum(state)


def test_the_checksum_is_the_crc_32_of_keys_values_and_bytes_one_after_another() -> None:
    """As states on disk have it."""
    values = struct.pack("<3f", 1, 2, 3)
    state = {"epoch": 3, "of": [torch.tensor([1.0, 2.0, 3.0]), "a"], "more": (0.5,)}
    assert checksum(state) == zlib.crc32(b"'epoch'3'of'" + values + b"'a''more'0.5")


def test_bytes_of_tensors_are_counted_wherever_they_are(state: dict[str, Any]) -> None:
    """Three and two rows of float32 six and two times over, counters of Adam, two half numbers."""
    weight, bias, counter = 6 * 4, 2 * 4, 4
    assert tensor_bytes(state) == 3 * (weight + bias) + 2 * counter + 2 * 2
    assert tensor_bytes([1, "two", (torch.zeros(3, dtype=torch.int64),)]) == 3 * 8
    assert tensor_bytes({"epoch": 3}) == 0


def test_on_a_cpu_the_host_has_the_tensors_themselves(state: dict[str, Any]) -> None:
    found = on_host({"all": [state, (state["half"], 1)]})
    assert found["all"][0]["trained"]["weight"] is state["trained"]["weight"]
    assert found["all"][1][0] is state["half"]
    assert type(found["all"][1]) is tuple and found["all"][0]["epoch"] == 3


def test_every_byte_of_the_values_is_under_the_checksum(
    state: dict[str, Any], tmp_path: Path
) -> None:
    """Each tensor's place in the file is found by Python's own zip reader, not by torch's."""
    path = tmp_path / "last.pt"
    save_state(state, path)
    whole = path.read_bytes()
    with ZipFile(path) as archive:
        members = [(m.filename, m.file_size, m.header_offset) for m in archive.infolist()]
    tensors = [(size, offset) for name, size, offset in members if "/data/" in name]
    assert len(tensors) == 9  # weight and bias, three of Adam's for each, one more
    for size, offset in tensors:
        names = int.from_bytes(whole[offset + 26 : offset + 28], "little")
        extra = int.from_bytes(whole[offset + 28 : offset + 30], "little")
        start = offset + 30 + names + extra
        for at in {start, start + size - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(ValueError, match="checksum"):
                load_state(path)


@pytest.mark.parametrize("large", [False, True])
def test_weights_are_a_safetensors_file_with_the_digest_that_is_said(
    tmp_path: Path, large: bool
) -> None:
    """Read by the library; larger than what is streamed at a time, and without any value."""
    generator = torch.Generator().manual_seed(0)
    rows = STREAMED_BYTES // 4 // 1000 + 7 if large else 3
    weights = {
        "classifier.0.weight": torch.randn(rows, 1000, generator=generator),
        "classifier.0.bias": torch.randn(rows, generator=generator),
        'features."28".weight': torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(2.5),
        "nothing": torch.zeros(0, 4),
    }
    path = tmp_path / "best.safetensors"
    digest = save_weights(weights, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    (header,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert header % 8 == 0, "values begin where any reader can map them"
    found = safetensors.torch.load_file(path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert found["nothing"].shape == (0, 4)


def test_a_streamed_file_holds_what_was_written_in_pieces_of_any_size(tmp_path: Path) -> None:
    content = os.urandom(3 * STREAMED_BYTES + 12345)
    pieces = (0, 1, 100, STREAMED_BYTES, STREAMED_BYTES + 1, 3 * STREAMED_BYTES, len(content))
    with Streamed(tmp_path / "large") as file:
        for start, end in pairwise(pieces):
            assert file.write(content[start:end]) == end - start
    assert (tmp_path / "large").read_bytes() == content
