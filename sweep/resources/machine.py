"""This machine, as a Ray started here will see it: what a trial gets, and what it can't get."""

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
    """What a trial gets here or on a cluster, and what the user should know about it."""

    granted: Allocation
    warnings: tuple[str, ...] = ()
    is_here: bool = True


def check_machine(config: SweepConfig) -> Machine:
    """Check that this machine has what trials are to get.

    Raises:
        RequestError: a GPU is asked for and there is none, too few CPUs for a trial, an unsupported number format.
    """
    check_resources(config)
    gpus, asked = gpu_count(), config.resources.gpus_per_trial
    unused = unused_gpu() if not gpus and asked != 0 else ""
    if not gpus and asked not in ("auto", 0):
        raise RequestError(
            f"resources.gpus_per_trial is {asked:g}, but torch finds no GPU here{f': {unused}' if unused else ''}; "
            "use 0 or auto to train on CPUs, or run on a machine with a GPU"
        )
    node = Node("", socket.gethostname(), usable_cpus(), gpus)
    granted = allocate(config.resources, [node], config.trials)
    if not granted.gpus:
        precision_on([], config.resources.precision)
    return Machine(granted, (f"{unused}. Trials run on the CPU",) if unused else ())


def check_format(config: SweepConfig, machine: Machine) -> None:
    """Check that the GPUs here support the requested number format. Only `sweep plan` does this, since a process that
    asks uses some of the GPU's memory; in a run, the workers report it.

    Raises:
        RequestError: a GPU only emulates it.
    """
    if machine.granted.gpus:
        facts = device_of("cuda").facts() | {"hosts": ["this machine"]}
        precision_on(gpus_of([facts]), config.resources.precision)
