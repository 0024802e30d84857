import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cdjax import mixing, topology
from cdjax.mixing._shifts import shifts_of


def hops(num_agents):
    """The shifts of the exponential graph by its definition, 0 and ± powers of two."""
    powers = [2**k for k in range(num_agents.bit_length()) if 2**k < num_agents]
    return {0, *powers, *(num_agents - p for p in powers)}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (topology.ring(8), {0, 1, 7}),
        (topology.path(8), {0, 1, 7}),
        (topology.grid(12, rows=3), {0, 1, 11, 4, 8}),
        (topology.exponential(16), hops(16)),
        (topology.exponential(16, directed=True), {0, 1, 2, 4, 8}),
        (topology.complete(1), {0}),
    ],
    ids=str,
)
def test_a_graph_has_as_many_shifts_as_its_definition_says(graph, expected):
    assert set(shifts_of(graph.mixing_matrix).tolist()) == expected


def test_a_shift_reads_from_the_agent_ahead():
    matrix = np.roll(np.eye(4), 1, axis=1)  # agent j takes over agent j + 1
    mix = mixing.shifts(topology.from_matrix(matrix, validate=False))
    np.testing.assert_array_equal(mix(jnp.arange(4.0)), [1, 2, 3, 0])


def test_equal_weights_compile_to_a_number_and_others_to_a_vector():
    x = jnp.ones((8, 3))
    ring, path = (
        jax.make_jaxpr(mixing.shifts(graph))(x) for graph in (topology.ring(8), topology.path(8))
    )
    assert not ring.consts
    assert [const.shape for const in path.consts] == [(8,)] * 2


@pytest.mark.parametrize(
    "graph", [topology.ring(16), topology.grid(16), topology.exponential(16)], ids=str
)
def test_a_sharded_agent_axis_sends_to_neighbors_and_gathers_nowhere(graph):
    mesh = jax.make_mesh((8,), ("agents",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("agents"))
    x = jax.device_put(jax.random.normal(jax.random.key(0), (16, 5)), sharding)
    mix = jax.jit(mixing.shifts(graph), out_shardings=sharding)
    program = mix.lower(x).compile().as_text()
    assert "collective-permute" in program
    assert "all-gather" not in program and "all-reduce" not in program
    np.testing.assert_allclose(mix(x), graph.mixing_matrix @ np.asarray(x), atol=1e-6)
