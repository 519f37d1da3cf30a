"""What a trial gets on a machine or a cluster, and how many run at a time. Pure: nodes in, answer out."""

from dataclasses import dataclass

from sweep.request.config import ResourcesConfig
from trainable.errors import RequestError
from trainable.records.manifest import Granted


@dataclass(frozen=True)
class Node:
    """A node of the cluster and what it has."""

    id: str
    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Allocation:
    """What one trial gets, and how many run at a time."""

    gpus: float
    cpus: int
    concurrent: int

    def bundle(self) -> dict[str, float]:
        """One trial's resources in Ray's terms; a request for a GPU alone would get no CPU."""
        return {"CPU": float(self.cpus), "GPU": self.gpus}

    def granted(self) -> Granted:
        """As it is recorded."""
        return Granted(
            gpus_per_trial=self.gpus, cpus_per_trial=self.cpus, concurrent=self.concurrent
        )


def allocate(resources: ResourcesConfig, found: list[Node], trials: int) -> Allocation:
    """What each trial gets: by default one GPU, or without GPUs an even share of all CPUs.

    Raises:
        RequestError: no single node can hold a trial.
    """
    has_gpus = any(node.gpus for node in found)
    gpus = resources.gpus_per_trial
    if gpus == "auto":
        gpus = 1.0 if has_gpus else 0.0
    if 0 < gpus < 1:
        gpus = (
            int(gpus * 10_000) / 10_000
        )  # Ray counts in ten-thousandths, and k shares must fit in one GPU
    asked = resources.cpus_per_trial
    fitting = [
        node
        for node in found
        if node.gpus >= gpus and node.cpus >= (1 if asked == "auto" else asked)
    ]
    if not fitting:
        has = ", ".join(f"{node.host}: {node.cpus} CPUs, {node.gpus} GPUs" for node in found)
        needs = f"{'1 CPU' if asked == 'auto' else f'{asked} CPUs'} and {gpus:g} GPUs"
        raise RequestError(
            f"one node must hold a whole trial, but a trial needs {needs} and the cluster has {has}; "
            "lower resources.gpus_per_trial or resources.cpus_per_trial"
        )

    concurrent = at_a_time(
        resources, fitting, Allocation(gpus, 1 if asked == "auto" else asked, 0), trials
    )
    cpus = asked if asked != "auto" else _even_cpus(fitting, gpus, concurrent)
    return Allocation(gpus, cpus, concurrent)


def at_a_time(
    resources: ResourcesConfig, found: list[Node], granted: Allocation, trials: int
) -> int:
    """How many trials the nodes hold: at most as many as are asked for, at least one, since a node may come back."""
    asked = trials if resources.concurrent == "auto" else resources.concurrent
    return max(1, min(asked, sum(_slots(node, granted) for node in found)))


def most_on_a_node(found: list[Node], granted: Allocation) -> int:
    """The most trials that run on one node at a time."""
    return min(granted.concurrent, max((_slots(node, granted) for node in found), default=1))


def writes_behind(found: list[Node], granted: Allocation) -> bool:
    """Are a trial's weights and state written while the next one trains? On GPUs, and if every node has a spare CPU.

    Where trials train on all CPUs, the writing costs them what it would save: measured in docs/log.md.
    """
    if granted.gpus:
        return True
    return all(
        node.cpus > min(granted.concurrent, _slots(node, granted)) * granted.cpus for node in found
    )


def _slots(node: Node, granted: Allocation) -> int:
    by_cpu = node.cpus // granted.cpus
    return min(by_cpu, _shares_of(node.gpus, granted.gpus)) if granted.gpus else by_cpu


def _shares_of(node_gpus: int, gpus: float) -> int:
    """How many trials `node_gpus` can hold; a trial never straddles two GPUs."""
    return int(node_gpus // gpus) if gpus >= 1 else node_gpus * round(1 / gpus)


def _even_cpus(fitting: list[Node], gpus: float, concurrent: int) -> int:
    """CPUs of a trial when `concurrent` of them share the nodes' CPUs evenly; the scarcest node decides."""
    if gpus:
        return max(1, min(node.cpus // _shares_of(node.gpus, gpus) for node in fitting))
    cpus = max(1, sum(node.cpus for node in fitting) // concurrent)
    while cpus > 1 and sum(node.cpus // cpus for node in fitting) < concurrent:
        cpus -= 1
    return cpus
