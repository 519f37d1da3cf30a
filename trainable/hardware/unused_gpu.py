"""Explains why torch can't use a GPU of this machine, and how to fix it, by asking NVIDIA's own program."""

import os
import re
import subprocess
from typing import Final

import torch

from trainable.hardware.device import has_gpu

PROGRAM: Final = "nvidia-smi"
PATIENCE_SECONDS: Final = 20.0  # it first wakes a sleeping GPU; assumed


def unused_gpu() -> str:
    """Why torch can't use a GPU of this machine, and what to do; "" if it can, or if there is none."""
    if has_gpu():
        return ""
    names = re.findall(r"^GPU \d+: (.+?) \(", _ask("-L"), re.MULTILINE)
    if not names:
        return ""
    told = _ask()
    driver = _found(r"Driver Version: ([\d.]+)", told)
    knows = _found(r"CUDA Version: ([\d.]+)", told)
    return f"this machine has a {names[0]} (driver {driver or 'unknown'}), but {_reason(knows)}"


def _reason(driver_cuda: str) -> str:
    """Why torch does not use it; `driver_cuda` is the newest CUDA that the driver supports."""
    build, version = torch.version.cuda, torch.__version__
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if build is None:
        return (
            f"torch {version} is a build without CUDA, and trains on the CPU; install a build with CUDA "
            "(pytorch.org/get-started has the line for pip, with its --index-url)"
        )
    if hidden is not None:
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides it from torch; unset it"
    if driver_cuda and _major(driver_cuda) < _major(build):
        return (
            f"torch {version} is built for CUDA {build}, and the driver supports CUDA {driver_cuda} at most; update "
            f"the driver, or install a torch for CUDA {_major(driver_cuda)} (pytorch.org/get-started)"
        )
    return (
        f"torch {version}, built for CUDA {build}, does not find it; "
        "run `python -c \"import torch; torch.zeros(1, device='cuda')\"` to see why"
    )


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _ask(*arguments: str) -> str:
    """What the program prints; "" if it is missing, fails, or does not answer."""
    try:
        done = subprocess.run(
            [PROGRAM, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
