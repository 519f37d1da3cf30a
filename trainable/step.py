"""A trial's training steps: order, labels, learning rates and sums are on the device, and the host only queues work.

On a GPU a whole step, from its features to the optimizer, can be captured once as a CUDA graph and replayed; on a CPU
the same code runs each time. The device is waited for once per epoch, in `fetch`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from trainable.config import RunSettings, TrialConfig
from trainable.frozen.reference import Batches, FeatureSource, ResidentFeatures, Work, autocast
from trainable.hardware.device import device_of
from trainable.metric import is_right
from trainable.network.model import TransferVGG16, make_optimizer
from trainable.schedule import derive_seed, learning_rate


class Sums(NamedTuple):
    """The result of an epoch's training."""

    loss: float
    """Mean over its images, class-weighted if configured, as seen while training."""
    accuracy: float
    skipped_steps: int
    """Steps whose float16 gradients were not finite."""


class TrainingSteps:
    """The training steps of one trial; `close` frees what they hold on the device."""

    def __init__(
        self, config: TrialConfig, run: RunSettings, model: TransferVGG16, labels: Tensor
    ) -> None:
        self._config, self._run, self._model = config, run, model
        self._device = device_of(run.device)
        self._optimizer = make_optimizer(config, model)
        self._scaler = torch.amp.GradScaler(run.device) if run.precision == "float16" else None
        images, place = len(labels), self._device.torch
        self._steps = math.ceil(images / config.batch_size)
        groups = len(self._optimizer.param_groups)
        self._labels = labels.to(place)
        self._class_weights = class_weights(config, labels).to(place)
        self._slots = torch.arange(config.batch_size, device=place)
        self._step = torch.zeros(1, dtype=torch.int64, device=place)
        self._order = torch.zeros(images, dtype=torch.int64, device=place)
        self._rows = torch.zeros(images, dtype=torch.int64, device=place)
        self._rates = torch.zeros(self._steps, groups, dtype=self._device.rate_format, device=place)
        self._sums = torch.zeros(3, dtype=torch.float64, device=place)
        self._loss, self._correct, self._skipped = self._sums
        self._replay: Callable[[], None] | None = None
        self._read: Tensor | None = None
        self._input: Tensor | None = None
        self._set_rates()

    def epoch(self, frozen: FeatureSource, epoch: int, work: Work) -> None:
        """Queue every step of an epoch; the work of the frozen layers is counted in `work`."""
        generator = torch.Generator().manual_seed(derive_seed(self._config.seed, epoch, "order"))
        order = torch.randperm(len(self._order), generator=generator)
        self._device.seed(derive_seed(self._config.seed, epoch, "dropout"))
        self._order.copy_(order)
        self._rates.copy_(self._schedule(epoch))
        self._step.zero_()
        self._sums.zero_()
        self._model.train()
        held = frozen.resident_training(epoch, work)
        if held is None:
            self._train_on_batches(frozen.training(epoch, order.tolist(), work))
        else:
            self._train_on_held(held)

    def fetch(self, logits: Tensor) -> tuple[Sums, Tensor]:
        """The sums of the epoch and `logits` (images,) as float32 on the CPU, with a single wait for the device."""
        found = torch.cat([self._sums, logits.double()]).cpu()
        loss, correct, skipped = found[:3].tolist()
        images = len(self._order)
        return Sums(loss / images, correct / images, int(skipped)), found[3:].float()

    def rate(self, epoch: int) -> float:
        """Learning rate of the head at the last step of an epoch."""
        return learning_rate(self._config, "classifier", epoch, self._steps, self._steps)

    def state(self, epoch: int) -> dict[str, Any]:
        """What is needed to continue after `epoch`, besides the trained parameters: moments and the loss scale."""
        found = self._optimizer.state_dict()
        for group in found["param_groups"]:
            last = learning_rate(self._config, group["name"], epoch, self._steps, self._steps)
            group |= {"lr": last, "capturable": False} if "capturable" in group else {"lr": last}
        scaler = {} if self._scaler is None else {"scaler": self._scaler.state_dict()}
        return {"optimizer": found, **scaler}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`, made on this or another kind of device."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._set_rates()
        if self._scaler is not None and "scaler" in state:
            self._scaler.load_state_dict(state["scaler"])

    def close(self) -> None:
        """Free the captured step, and with it the memory that it holds."""
        self._replay = self._read = self._input = None

    def _set_rates(self) -> None:
        """Make the optimizer read its learning rates from the device, and capturable if steps are captured."""
        for group in self._optimizer.param_groups:
            group["lr"] = torch.zeros((), dtype=self._device.rate_format, device=self._device.torch)
            if "capturable" in group:
                group["capturable"] = self._run.graphs and self._device.kind == "cuda"

    def _schedule(self, epoch: int) -> Tensor:
        """Learning rates (steps, groups) of an epoch."""
        names = [group["name"] for group in self._optimizer.param_groups]
        return torch.tensor(
            [
                [learning_rate(self._config, name, epoch, step, self._steps) for name in names]
                for step in range(1, self._steps + 1)
            ],
            dtype=torch.float64,
        )

    def _train_on_held(self, held: ResidentFeatures) -> None:
        """Gather each batch on the device; a captured step always reads from the same memory.

        If each epoch has its own table, a batch is gathered first and copied to where the captured step reads it.
        """
        self._rows.copy_(held.rows)
        here = replace(held, rows=self._rows)
        size = self._config.batch_size
        if self._read is not None and self._read is not held.table:
            self._train_on_batches((p, here.at(p)) for p in self._order.split(size))
            return
        whole, last = divmod(len(self._order), size)

        def step() -> None:
            self._train(here.at, size)

        replayed = self._captured(held.table, step)
        for _ in range(whole):
            replayed()
        if last:
            self._train(here.at, last)

    def _train_on_batches(self, batches: Batches) -> None:
        """Train on features as they arrive; they are copied to where a captured step reads them."""
        whole = self._config.batch_size
        for positions, hidden in batches:
            if self._run.graphs and len(positions) == whole:
                if self._input is None:
                    self._input = torch.empty_like(hidden)
                place = self._input.copy_(hidden)
                self._captured(place, lambda place=place: self._train(lambda _: place, whole))()  # type: ignore[misc]
            else:
                self._train(lambda _, hidden=hidden: hidden, len(positions))  # type: ignore[misc]

    def _captured(self, read: Tensor, step: Callable[[], None]) -> Callable[[], None]:
        """`step`, or what replays it; captured again if it reads its features from another tensor than before."""
        if not self._run.graphs:
            return step
        if self._replay is None or self._read is not read:
            self._replay = None  # frees its memory before the next one takes some
            self._replay, self._read = self._device.replayed(step), read
        return self._replay

    def _train(self, features: Callable[[Tensor], Tensor], size: int) -> None:
        """One step on the next `size` images of the order; `features` returns the features at given positions."""
        rates = self._rates.index_select(0, self._step).squeeze(0)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"].copy_(rate)
        losses, hits = self._forward(features, size)
        self._optimizer.zero_grad(set_to_none=True)
        self._update(losses.mean())
        self._loss += losses.detach().sum()
        self._correct += hits.sum()
        self._step += 1

    def _forward(self, features: Callable[[Tensor], Tensor], size: int) -> tuple[Tensor, Tensor]:
        """Losses (size,) float32, weighted by class, and hits (size,) bool."""
        positions = self._order[self._step * self._config.batch_size + self._slots[:size]]
        labels = self._labels[positions]
        with autocast(self._run.precision, self._run.device):
            logits = self._model.suffix(features(positions))
        losses = binary_cross_entropy_with_logits(
            logits.float(), labels, weight=self._class_weights[labels.long()], reduction="none"
        )
        return losses, is_right(logits, labels)

    def _update(self, loss: Tensor) -> None:
        """Gradients and the optimizer's step; in float16 with the scaled loss, and only if all are finite."""
        if self._scaler is None:
            loss.backward()
            self._optimizer.step()
            return
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        (found,) = self._scaler._found_inf_per_device(self._optimizer).values()
        self._skipped += found
        self._scaler.update()


def class_weights(config: TrialConfig, labels: Tensor) -> Tensor:
    """Weight of label 0 and of label 1 in the training loss."""
    if config.class_weight == "none":
        return torch.ones(2)
    positive = labels.sum()
    counts = torch.stack([len(labels) - positive, positive])
    return len(labels) / (2 * counts)
