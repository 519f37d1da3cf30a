"""A process that runs many trials keeps the memory that it will need again, and no more."""

import multiprocessing
import os
import platform
from collections.abc import Callable

import psutil
import pytest
import torch

from trainable.hardware.memory import give_back_idle_memory, keep_freed_memory

MIB = 2**20
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")


def resident() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


def freed_below_an_island(mebibytes: int) -> tuple[int, int]:
    """Resident bytes with so much freed between what is in use, before and after it is given back."""
    keep_freed_memory()
    freed = torch.ones(mebibytes * MIB, dtype=torch.uint8)
    island = torch.ones(MIB, dtype=torch.uint8)
    del freed
    before = resident()
    give_back_idle_memory()
    assert island.all()
    return before, resident()


def in_a_process_of_its_own(
    function: Callable[[int], tuple[int, int]], argument: int
) -> tuple[int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (argument,))


@pytest.mark.whole
@glibc_only
def test_much_that_a_trial_left_idle_is_given_back() -> None:
    before, after = in_a_process_of_its_own(freed_below_an_island, 1024)
    assert before - after > 1000 * MIB


@pytest.mark.whole
@glibc_only
def test_what_the_next_step_needs_again_is_kept() -> None:
    before, after = in_a_process_of_its_own(freed_below_an_island, 256)
    assert before > 256 * MIB
    assert before - after < 16 * MIB
