import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cdjax import sharding, topology
from cdjax.mixing._rounds import cut_into_rounds, send
from tests.trees import assert_trees_close, random_stacked_tree


def random_links(num_devices, probability, seed):
    draws = np.random.default_rng(seed).random((num_devices, num_devices))
    return [(int(s), int(r)) for s, r in np.argwhere(draws < probability) if s != r]


def links_of(graph):
    return [link for a, b in graph.graph.edges() for link in ((a, b), (b, a))]


def most_links_of_a_device(links):
    return max(np.bincount([link[end] for link in links]).max() for end in (0, 1))


GRAPHS = {
    **{f"random {p} {s}": random_links(16, p, s) for p in (0.1, 0.3, 0.7) for s in range(3)},
    **{f"{f} 16": links_of(topology.create(f, 16)) for f in topology.FAMILIES},
    "ring 7": links_of(topology.ring(7)),  # an odd cycle: undirected edges would take 3 colours
    "complete 9": links_of(topology.complete(9)),
}


@pytest.mark.parametrize("links", GRAPHS.values(), ids=GRAPHS)
class TestCut:
    def test_every_link_is_in_one_round(self, links):
        rounds = cut_into_rounds(links, 16)
        assert sorted(link for members in rounds for link in members) == sorted(links)

    def test_nobody_sends_or_receives_twice_in_a_round(self, links):
        for members in cut_into_rounds(links, 16):
            senders, receivers = zip(*members, strict=True)
            assert len(set(senders)) == len(set(receivers)) == len(members)

    def test_as_many_rounds_as_the_busiest_device_has_links_one_way(self, links):
        assert len(cut_into_rounds(links, 16)) == most_links_of_a_device(links)

    def test_the_order_of_the_links_does_not_make_more_rounds(self, links):
        shuffled = [links[i] for i in np.random.default_rng(0).permutation(len(links))]
        assert len(cut_into_rounds(shuffled, 16)) == most_links_of_a_device(links)


def test_links_of_one_shift_in_a_row_are_one_round():
    links = [(j, (j + shift) % 8) for shift in (1, 7, 3) for j in range(8)]
    rounds = cut_into_rounds(links, 8)
    assert [{(r - s) % 8 for s, r in members} for members in rounds] == [{1}, {7}, {3}]


def test_no_links_are_no_rounds():
    assert cut_into_rounds([], 4) == []


def on_devices(fn):
    by_device = PartitionSpec("agents")
    mesh = sharding.agent_mesh(8)
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=by_device, out_specs=by_device))


def test_every_leaf_arrives_at_the_receiver():
    leaves = jax.tree.leaves(random_stacked_tree(8)) + [jnp.arange(16.0).reshape(8, 2) > 5]
    links = [(j, (j + 3) % 8) for j in range(8)]
    arrived = on_devices(lambda leaves: send(leaves, "agents", links))(leaves)
    expected = [np.roll(x, 3, axis=0) for x in leaves]
    assert_trees_close(jax.device_get(arrived), expected, rtol=0, atol=0)


def test_a_device_that_is_not_sent_to_gets_zeros():
    arrived = on_devices(lambda x: send([x], "agents", [(0, 5), (5, 2)])[0])(jnp.arange(1.0, 9.0))
    np.testing.assert_array_equal(arrived, [0, 0, 6, 0, 0, 1, 0, 0])


def test_small_leaves_travel_in_one_message_a_dtype_and_large_ones_alone():
    shapes = {"float32": [(8, 2), (8, 3), (8,), (8, 1 << 18)], "float16": [(8, 5), (8, 1)]}
    leaves = [jnp.zeros(shape, dtype) for dtype, some in shapes.items() for shape in some]
    program = on_devices(lambda leaves: send(leaves, "agents", [(0, 1)])).trace(leaves).jaxpr
    messages = [line for line in str(program).splitlines() if "= ppermute[" in line]
    sizes = sorted(line.split(":")[1].split("{")[0].split(" ")[0] for line in messages)
    assert sizes == ["f16[6]", "f32[262144]", "f32[6]"]
