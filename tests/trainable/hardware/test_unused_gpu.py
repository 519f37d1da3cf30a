"""A machine with a GPU that torch can't use: the reason is said, by what NVIDIA's own program prints there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainable.hardware import unused_gpu as looked
from trainable.hardware.unused_gpu import unused_gpu

TOLD = """\
Fri Nov 27 05:00:00 2026
+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 535.104.05             Driver Version: 535.104.05   CUDA Version: 12.2     |
|-----------------------------------------+----------------------+----------------------+
"""
LISTED = "GPU 0: Tesla T4 (UUID: GPU-1b2c)\nGPU 1: Tesla T4 (UUID: GPU-3d4e)\n"


def program(folder: Path, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, with NVIDIA's for two T4; torch is one for CUDA that finds none."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(looked, "has_gpu", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    (tmp_path / "told").write_text(TOLD)
    (tmp_path / "listed").write_text(LISTED)
    program(tmp_path, f'if [ "$1" = -L ]; then cat {tmp_path}/listed; else cat {tmp_path}/told; fi')
    return tmp_path


def test_a_build_without_cuda_is_said_with_what_to_install(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    said = unused_gpu()
    assert said.startswith("this machine has a Tesla T4 (driver 535.104.05), but torch ")
    assert "a build without CUDA" in said and "--index-url" in said


def test_a_driver_that_is_too_old_is_said_with_both_versions(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    said = unused_gpu()
    assert "built for CUDA 13.0" in said and "supports CUDA 12.2 at most" in said
    assert "update the driver, or install a torch for CUDA 12" in said


def test_a_gpu_that_is_hidden_is_said_to_be_hidden(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES=''" in unused_gpu()


def test_where_the_reason_is_not_known_what_tells_it_is(machine: Path) -> None:
    said = unused_gpu()
    assert "does not find it" in said and "to see why" in said
    (machine / "told").write_text("something else\n")
    assert "(driver unknown)" in unused_gpu() and "does not find it" in unused_gpu()


def test_nothing_is_said_where_torch_can_use_it_or_there_is_none(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "listed").write_text("No devices found.\n")
    assert unused_gpu() == ""
    program(machine, "echo has failed because it couldn't communicate with the driver; exit 9")
    assert unused_gpu() == ""
    monkeypatch.setattr(looked, "PROGRAM", "nvidia-smi-that-nobody-has")
    assert unused_gpu() == ""
    monkeypatch.setattr(looked, "has_gpu", lambda: True)
    monkeypatch.setattr(looked, "_ask", lambda *arguments: pytest.fail("it was asked"))
    assert unused_gpu() == ""


def test_a_program_that_hangs_is_not_waited_for(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(machine, "exec sleep 60")
    monkeypatch.setattr(looked, "PATIENCE_SECONDS", 0.2)
    began = time.monotonic()
    assert unused_gpu() == ""
    assert time.monotonic() - began < 10


@pytest.mark.whole
def test_the_program_is_found_by_a_process_of_its_own(machine: Path) -> None:
    code = "from trainable.hardware.unused_gpu import unused_gpu; print(unused_gpu())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.stdout.startswith("this machine has a Tesla T4 (driver 535.104.05), but ")
