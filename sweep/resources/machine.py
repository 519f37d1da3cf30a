"""This machine, as the Ray that starts here will have it: what a trial gets, and what it can't get."""

import socket
from dataclasses import dataclass

from sweep.request.config import SweepConfig
from sweep.request.refusals import check_resources
from sweep.resources.allocation import Allocation, Node, allocate
from sweep.resources.devices import gpus_of, precision_on
from trainable.errors import RequestError
from trainable.hardware.cpus import usable_cpus
from trainable.hardware.device import device_of, gpu_count
from trainable.hardware.unused_gpu import unused_gpu


@dataclass(frozen=True)
class Machine:
    """What a trial gets here or on a cluster, and what a person should know of it."""

    granted: Allocation
    warnings: tuple[str, ...] = ()
    is_here: bool = True


def check_machine(config: SweepConfig) -> Machine:
    """Can trials get here what they are to get?

    Raises:
        RequestError: no GPU where one is asked for, fewer CPUs than a trial needs, a number format that none computes.
    """
    check_resources(config)
    gpus, asked = gpu_count(), config.resources.gpus_per_trial
    unused = unused_gpu() if not gpus and asked != 0 else ""
    if not gpus and asked not in ("auto", 0):
        raise RequestError(
            f"resources.gpus_per_trial is {asked:g}, but torch finds no GPU here{f': {unused}' if unused else ''}; "
            "take 0 or auto to train on CPUs, or run it where there is one"
        )
    node = Node("", socket.gethostname(), usable_cpus(), gpus)
    granted = allocate(config.resources, [node], config.trials)
    if not granted.gpus:
        precision_on([], config.resources.precision)
    return Machine(granted, (f"{unused}. Trials run on the CPU",) if unused else ())


def check_format(config: SweepConfig, machine: Machine) -> None:
    """Do the GPUs here compute in the number format asked for? Asked in `sweep plan` alone, since a process that asks
    takes some of the GPU's memory; for a run the workers tell.

    Raises:
        RequestError: one of them only emulates it.
    """
    if machine.granted.gpus:
        facts = device_of("cuda").facts() | {"hosts": ["this machine"]}
        precision_on(gpus_of([facts]), config.resources.precision)
