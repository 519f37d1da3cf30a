"""What a trial gets of a cluster: worked out before anything runs, and never more than one node can hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.request.config import ResourcesConfig
from sweep.resources.allocation import Allocation, Node, allocate, most_on_a_node, writes_behind
from trainable.errors import RequestError


def node(cpus: int, gpus: int = 0, name: str = "n") -> Node:
    return Node(name, name, cpus, gpus)


@pytest.mark.parametrize(
    ("asked", "nodes", "trials", "expected"),
    [
        ({}, [node(2)], 12, Allocation(0.0, 1, 2)),
        ({}, [node(64)], 12, Allocation(0.0, 5, 12)),
        ({}, [node(16, 4)], 12, Allocation(1.0, 4, 4)),
        ({"gpus_per_trial": "1/2"}, [node(16, 4)], 12, Allocation(0.5, 2, 8)),
        ({"gpus_per_trial": "1/3"}, [node(12, 2)], 12, Allocation(0.3333, 2, 6)),
        ({"gpus_per_trial": 2}, [node(16, 4)], 12, Allocation(2.0, 8, 2)),
        ({"cpus_per_trial": 8}, [node(16)], 12, Allocation(0.0, 8, 2)),
        ({"concurrent": 1}, [node(16)], 12, Allocation(0.0, 16, 1)),
        ({"concurrent": 3, "gpus_per_trial": 0}, [node(16, 4)], 12, Allocation(0.0, 5, 3)),
        ({}, [node(8, 2, "a"), node(8, 2, "b")], 12, Allocation(1.0, 4, 4)),
        ({}, [node(8, 2, "a"), node(64, 0, "b")], 12, Allocation(1.0, 4, 2)),
    ],
)
def test_each_trial_gets_its_share(
    asked: dict[str, object], nodes: list[Node], trials: int, expected: Allocation
) -> None:
    assert allocate(ResourcesConfig(**asked), nodes, trials) == expected


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"gpus_per_trial": 1}, [node(8)]),
        ({"gpus_per_trial": 2}, [node(8, 1, "a"), node(8, 1, "b")]),  # the sum would do
        ({"cpus_per_trial": 9}, [node(8, 0, "a"), node(8, 0, "b")]),
        ({"cpus_per_trial": 4, "gpus_per_trial": 1}, [node(2, 1, "a"), node(8, 0, "b")]),
    ],
)
def test_what_no_single_node_can_hold_is_refused(
    asked: dict[str, object], nodes: list[Node]
) -> None:
    with pytest.raises(RequestError, match="one node must hold a whole trial"):
        allocate(ResourcesConfig(**asked), nodes, 4)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5),
    st.sampled_from(["auto", 0, 1, 2, "1/2", "1/3", "1/4"]),
    st.integers(1, 40),
)
def test_trials_side_by_side_never_ask_for_more_than_there_is(
    machines: list[tuple[int, int]], gpus: object, trials: int
) -> None:
    nodes = [node(c, g, str(i)) for i, (c, g) in enumerate(machines)]
    try:
        given_ = allocate(ResourcesConfig(gpus_per_trial=gpus), nodes, trials)
    except RequestError:
        return
    places = 0
    for each in nodes:
        by_gpu = int(each.gpus / given_.gpus + 0.01) if given_.gpus else 10**6
        places += min(each.cpus // given_.cpus, by_gpu)
    assert 1 <= given_.concurrent <= min(places, trials)
    assert given_.cpus >= 1


def test_the_largest_node_says_how_many_trials_share_a_machine() -> None:
    nodes = [Node("a", "a", 8, 0), Node("b", "b", 16, 0), Node("c", "c", 4, 2)]
    assert most_on_a_node(nodes, Allocation(0.0, 2, 20)) == 8
    assert most_on_a_node(nodes, Allocation(0.0, 2, 3)) == 3
    assert most_on_a_node(nodes, Allocation(0.5, 1, 20)) == 4


def test_weights_are_written_behind_the_next_trial_where_that_takes_no_cpu_from_it() -> None:
    full, spare = Node("a", "a", 4, 0), Node("b", "b", 5, 0)
    assert writes_behind([Node("c", "c", 4, 1)], Allocation(1.0, 4, 1)), "it trains on the GPU"
    assert writes_behind([spare], Allocation(0.0, 2, 2))
    assert writes_behind([full], Allocation(0.0, 2, 1)), "one trial alone"
    assert not writes_behind([full], Allocation(0.0, 2, 2))
    assert not writes_behind([spare, full], Allocation(0.0, 2, 4))
