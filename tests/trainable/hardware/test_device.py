"""What a device does as torch does it, on the CPU; what only a GPU shows is in tests/gpu."""

import pytest
import torch

from trainable.hardware.device import device_of


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1, -5])
def test_a_seed_begins_the_numbers_that_torch_draws_from_it(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(9)
    torch.rand(3)
    device_of("cpu").seed(seed)
    assert torch.equal(torch.rand(9), expected)
