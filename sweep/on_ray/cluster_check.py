"""`sweep plan --address`: check everything that a run on the cluster can be refused for, and leave nothing there."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.on_ray import cluster
from sweep.on_ray.node_tasks import MustSee
from sweep.request.config import SweepConfig
from sweep.request.prepare import Prepared
from sweep.request.refusals import tried_folder
from sweep.resources.allocation import Allocation, Node, allocate
from sweep.resources.devices import gpus_of, kinds, precision_on
from sweep.resources.machine import Machine
from trainable.records.files import write_json


@contextmanager
def joined(config: SweepConfig, address: str) -> Iterator[Callable[[Prepared], Machine]]:
    """Join the cluster at `address` for as long as the context lasts; yields a function that looks at its nodes.

    Raises:
        RequestError: nothing answers, or no node can hold a trial; later, a node does not see storage or images.
    """
    with cluster.cluster(address, Path(os.devnull)):
        found = cluster.nodes()
        granted = allocate(config.resources, found, config.trials)
        yield lambda prepared: _look(config, prepared, found, granted)


def _look(
    config: SweepConfig, prepared: Prepared, found: list[Node], granted: Allocation
) -> Machine:
    first = str(prepared.data.split["file"].iloc[0])
    images = prepared.data.table.images
    with tried_folder(config) as folder:
        write_json(folder / "manifest.json", {})
        must_see = MustSee(folder, images, first, session=0)
        looks = cluster.look_at(found, must_see, gpus=granted.gpus > 0, here=False)
    gpus = gpus_of(kinds(looks)) if granted.gpus else []
    precision_on(gpus, config.resources.precision)
    asked = config.resources.gpus_per_trial != 0
    unused = tuple(cluster.unused_gpus(found)) if asked and not gpus else ()
    return Machine(granted, unused, is_here=False)
