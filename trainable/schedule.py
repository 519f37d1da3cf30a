"""Random seeds and learning rates, as pure functions of a place in the training."""

import hashlib
import math

from trainable.config import TrialConfig


def derive_seed(*place: int | str) -> int:
    """A seed for torch as a pure function of a place such as (trial seed, epoch, "order")."""
    digest = hashlib.blake2b("/".join(map(str, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def lr_factor(config: TrialConfig, epochs_done: float) -> float:
    """The factor on the base learning rate after `epochs_done` epochs (fractions count steps).

    Warm-up is linear; the cosine (Loshchilov and Hutter 2017, without restarts) falls to 1 % and stays there.
    """
    warmup = min(1.0, epochs_done / config.warmup_epochs) if config.warmup_epochs else 1.0
    if config.schedule == "constant":
        return warmup
    assert config.schedule_epochs is not None
    span = max(config.schedule_epochs - config.warmup_epochs, 1e-9)
    progress = min(max((epochs_done - config.warmup_epochs) / span, 0.0), 1.0)
    return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def learning_rate(config: TrialConfig, group: str, epoch: int, step: int, steps: int) -> float:
    """The rate of the optimizer's `group` (classifier or features) in one of an epoch's `steps`; both from 1."""
    ratio = config.backbone_lr_ratio if group == "features" else 1.0
    return config.lr * ratio * lr_factor(config, epoch - 1 + step / steps)
