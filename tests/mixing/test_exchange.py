import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from benchmarks._collectives import bytes_received, collectives
from cdjax import mixing, sharding, topology
from cdjax.mixing._exchange import _schedule, exchange
from tests.trees import assert_trees_close, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

FAMILIES = ["ring", "torus", "hypercube", "exponential", "erdos_renyi", "star", "complete"]
# Four agents per device, and one.
CASES = [*((family, 32) for family in FAMILIES), ("torus", 8), ("erdos_renyi", 8), ("complete", 8)]


def matrix_topology(matrix):
    return topology.from_matrix(matrix, validate=False)


def random_matrix(num_agents, density, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_agents,) * 2) * (rng.random((num_agents,) * 2) < density)


NON_SYMMETRIC = {
    "directed exponential": topology.exponential(16, directed=True),
    "sparse": matrix_topology(random_matrix(24, 0.05)),
    "half full": matrix_topology(random_matrix(16, 0.5)),
    "one sender": matrix_topology(np.eye(16) + 2 * np.eye(16)[[4] * 16]),
    "one receiver": matrix_topology(np.eye(16) + 2 * np.eye(16)[:, [4] * 16]),
    "no edges": matrix_topology(np.diag(np.arange(8.0))),
    "zero": matrix_topology(np.zeros((8, 8))),
}


def random_array(num_agents):
    return np.random.default_rng(num_agents).normal(size=(num_agents, 3))


def rows_exchanged(graph, num_devices):
    """How many rows each device (a row) receives from each other (a column), by the schedule."""
    counts = np.zeros((num_devices, num_devices), int)
    rounds, rows, _ = _schedule(graph.mixing_matrix, num_devices)
    for links, sent in zip(rounds, rows, strict=True):
        for sender, receiver in links:
            counts[receiver, sender] = sent.shape[1]
    return counts


def compiled(graph, tree):
    mesh = sharding.agent_mesh()
    return jax.jit(exchange(graph, mesh)).lower(sharding.shard_agents(tree, mesh)).compile()


@functools.cache
def compiled_family(family, num_agents):
    """One program for two tests: a kernel of 70 numbers and a scalar per agent, in float64."""
    graph, x = topology.create(family, num_agents), np.zeros((num_agents, 70))
    return graph, compiled(graph, {"x": x, "y": x[:, 0]})


@pytest.mark.parametrize(("family", "num_agents"), CASES)
@pytest.mark.sampled(4)
def test_every_family_is_the_product_with_its_matrix(family, num_agents, x64):
    graph, mix = compiled_family(family, num_agents)
    x = np.random.default_rng(num_agents).normal(size=(num_agents, 70))
    tree = sharding.shard_agents({"x": x, "y": x[:, 0]}, sharding.agent_mesh())
    expected = graph.mixing_matrix @ x
    assert_trees_close(mix(tree), {"x": expected, "y": expected[:, 0]}, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("graph", NON_SYMMETRIC.values(), ids=NON_SYMMETRIC)
def test_a_non_symmetric_matrix_is_not_transposed(graph, x64):
    x = random_array(graph.num_agents)
    mixed = jax.jit(exchange(graph, sharding.agent_mesh()))(x)
    np.testing.assert_allclose(mixed, graph.mixing_matrix @ x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("family", "num_agents", "num_devices"),
    [
        ("ring", 1, 1),
        ("erdos_renyi", 5, 1),
        ("ring", 6, 2),
        ("star", 6, 3),
        ("star", 40, 2),  # the hub has more senders than slots
        ("erdos_renyi", 70, 7),
    ],
)
def test_any_number_of_devices_that_divides_the_agents(family, num_agents, num_devices, x64):
    graph, x = topology.create(family, num_agents), random_array(num_agents)
    mixed = jax.jit(exchange(graph, sharding.agent_mesh(num_devices)))(x)
    np.testing.assert_allclose(mixed, graph.mixing_matrix @ x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("prepare", "place"),
    [(lambda mix: mix, lambda tree, mesh: tree), (jax.jit, sharding.shard_agents)],
)
@pytest.mark.sampled(2)
def test_every_leaf_of_a_tree_is_mixed_and_counters_pass(prepare, place):
    graph, mesh = topology.erdos_renyi(16), sharding.agent_mesh()
    tree = {**random_stacked_tree(16), "count": np.arange(16)}
    mixed = prepare(exchange(graph, mesh))(place(tree, mesh))
    assert_trees_close(jax.device_get(mixed), jax.device_get(mixing.dense(graph)(tree)))


def test_the_mixed_tree_stays_sharded():
    mesh, x = sharding.agent_mesh(), random_array(16)
    mixed = jax.jit(exchange(topology.torus(16), mesh))(x)
    assert mixed.sharding.spec == PartitionSpec("agents")


@pytest.mark.parametrize(("family", "num_agents"), CASES)
@pytest.mark.sampled(3)
def test_the_program_permutes_the_rows_that_the_schedule_counts_and_gathers_nothing(
    family, num_agents, x64
):
    graph, mix = compiled_family(family, num_agents)
    program = mix.as_text()
    assert {collective.kind for collective in collectives(program)} == {"collective-permute"}
    expected = rows_exchanged(graph, 8).sum(axis=1) * 71 * 8
    assert bytes_received(program, 8) == expected.tolist()


@pytest.mark.parametrize("num_agents", [8, 16, 256])
def test_a_device_of_a_ring_receives_two_boundary_agents_however_many_it_holds(num_agents):
    program = compiled(topology.ring(num_agents), jnp.zeros((num_agents, 100))).as_text()
    assert [(c.kind, c.num_bytes) for c in collectives(program)] == [
        ("collective-permute", 400)
    ] * 2
    assert bytes_received(program, 8) == [800] * 8


@pytest.mark.parametrize(
    "graph", [topology.torus(64), topology.path(32), topology.ring(8)], ids=str
)
def test_a_regular_schedule_moves_the_agents_with_a_neighbor_there_and_no_others(graph):
    size, boundary = graph.num_agents // 8, np.zeros((8, 8), int)
    for receiver, sender in np.ndindex(8, 8):
        there = set(range(receiver * size, (receiver + 1) * size))
        agents = range(sender * size, (sender + 1) * size)
        boundary[receiver, sender] = sum(not there.isdisjoint(graph.graph[j]) for j in agents)
    np.fill_diagonal(boundary, 0)
    np.testing.assert_array_equal(rows_exchanged(graph, 8), boundary)


def test_as_many_permutes_as_the_most_devices_that_one_receives_from():
    graph = topology.from_graph(nx.barbell_graph(12, 8))  # devices in a row, 4 agents each
    program = compiled(graph, jnp.zeros((32, 3))).as_text()
    neighbors = (rows_exchanged(graph, 8) > 0).sum(axis=1)
    assert len(collectives(program)) == neighbors.max() == 3


@pytest.mark.parametrize(("num_agents", "num_devices"), [(16, 8), (40, 2)])  # slots, a product
def test_bfloat16_is_summed_in_float32_and_rounded_once(num_agents, num_devices):
    graph, mesh = topology.complete(num_agents), sharding.agent_mesh(num_devices)
    x = jax.random.normal(jax.random.key(0), (num_agents, 500), jnp.bfloat16)
    mixed = jax.jit(exchange(graph, mesh))(x)
    assert mixed.dtype == jnp.bfloat16
    expected = np.tile(np.asarray(x, np.float64).mean(axis=0), (num_agents, 1))
    np.testing.assert_allclose(np.asarray(mixed, np.float64), expected, rtol=2**-8, atol=1e-6)


class TestTransformations:
    graph = NON_SYMMETRIC["half full"]

    def test_vmap_equals_one_call_each(self):
        mix = jax.jit(exchange(self.graph, sharding.agent_mesh()))
        x = jax.random.normal(jax.random.key(0), (3, self.graph.num_agents, 4))
        expected = np.stack([jax.device_get(mix(one)) for one in x])
        np.testing.assert_allclose(jax.jit(jax.vmap(mix))(x), expected, rtol=1e-5, atol=1e-5)

    def test_scan_multiplies_by_powers(self, x64):
        mix, x = exchange(self.graph, sharding.agent_mesh()), random_array(self.graph.num_agents)
        run = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda step, x: mix(x, step), x))
        expected = np.linalg.matrix_power(self.graph.mixing_matrix, 3) @ x
        np.testing.assert_allclose(run(x), expected, rtol=1e-10, atol=1e-10)

    def test_the_gradient_goes_back_along_the_edges(self, x64):
        mix, weights = exchange(self.graph, sharding.agent_mesh()), np.arange(16)
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * mix(x))))(weights / 7)
        np.testing.assert_allclose(gradient, self.graph.mixing_matrix.T @ weights, atol=1e-12)


def test_agents_that_do_not_divide_among_the_devices_are_named_with_a_remedy():
    with pytest.raises(
        ValueError, match="12 agents do not divide among 8 devices; take 8 or 16 ag"
    ):
        exchange(topology.ring(12), sharding.agent_mesh())


def test_a_mesh_of_another_kind_is_named():
    with pytest.raises(ValueError, match=r"mesh has data \(Auto\); expected agents \(Auto\)"):
        exchange(topology.ring(8), jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)))
    with pytest.raises(ValueError, match=r"mesh has agents \(Explicit\); expected agents \(Auto"):
        exchange(topology.ring(8), jax.make_mesh((8,), ("agents",)))


def test_another_leading_size_names_the_leaf():
    mix = exchange(topology.ring(8), sharding.agent_mesh())
    with pytest.raises(ValueError, match=r"leaf 'kernel' has leading axis 16, but .* 8 agents"):
        mix({"kernel": jnp.ones((16, 2))})


@functools.cache
def agents_by_model(name="agents"):
    """Half as many blocks of agents as devices, each agent on two of them."""
    shape = jax.device_count() // 2, 2
    return jax.make_mesh(shape, (name, "model"), axis_types=(AxisType.Auto,) * 2)


def divided_tree(num_agents, mesh, axis="agents"):
    rng = np.random.default_rng(num_agents)
    tree = {
        "w": jnp.asarray(rng.normal(size=(num_agents, 6, 8)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(num_agents, 8)), jnp.float32),
        "count": jnp.arange(num_agents),
    }
    specs = {
        "w": PartitionSpec(None, "model"),
        "b": PartitionSpec("model"),
        "count": PartitionSpec(),
    }
    return sharding.shard_agents(tree, mesh, specs=specs, axis=axis)


def kinds(program):
    return {collective.kind for collective in collectives(program.as_text())}


@pytest.mark.parametrize("axis", ["agents", "data"])
@pytest.mark.parametrize("per_device", [1, 2])
@pytest.mark.parametrize("family", ["ring", "torus", "exponential"])
@pytest.mark.sampled(3)
def test_agents_that_are_divided_themselves_stay_so_and_parts_alone_are_sent(
    family, per_device, axis
):
    mesh = agents_by_model(axis)
    num_agents = per_device * mesh.shape[axis]
    graph, tree = getattr(topology, family)(num_agents), divided_tree(num_agents, mesh, axis)
    program = jax.jit(exchange(graph, mesh, axis=axis)).lower(tree).compile()
    mixed = program(tree)
    assert_trees_close(mixed, mixing.dense(graph)(jax.tree.map(np.asarray, tree)), rtol=1e-5)
    for name in ("w", "b"):
        assert mixed[name].sharding == tree[name].sharding
    assert kinds(program) == {"collective-permute"}
    half_an_agent = 4 * (6 * 8 + 8) // 2
    expected = rows_exchanged(graph, mesh.shape[axis]).sum(axis=1).repeat(2) * half_an_agent
    assert bytes_received(program.as_text(), mesh.size) == expected.tolist()


def test_a_mixer_for_each_agent_sends_as_much_as_the_one_for_all():
    mesh = agents_by_model()
    graph, tree = topology.ring(2 * mesh.shape["agents"]), divided_tree(8, mesh)
    mix = jax.vmap(mixing.for_each(exchange(graph, mesh)))
    program = jax.jit(mix).lower(tree).compile()
    assert kinds(program) == {"collective-permute"}
    assert_trees_close(
        program(tree), mixing.dense(graph)(jax.tree.map(np.asarray, tree)), rtol=1e-5
    )


def test_auto_takes_the_exchange_on_a_mesh():
    mesh = agents_by_model()
    graph, tree = topology.torus(2 * mesh.shape["agents"]), divided_tree(8, mesh)
    program = jax.jit(mixing.auto(graph, mesh)).lower(tree).compile()
    assert kinds(program) == {"collective-permute"}


def test_explicit_axes_are_refused():
    mesh = jax.make_mesh((4, 2), ("agents", "model"))
    with pytest.raises(ValueError, match=r"expected agents \(Auto\) and no explicit axes"):
        exchange(topology.ring(4), mesh)
    place = jax.NamedSharding(mesh, PartitionSpec("agents", "model"))
    tree = {"w": jax.device_put(jnp.ones((4, 6)), place)}
    for plan in (mixing.auto, mixing.dense, mixing.neighbors, mixing.shifts):
        with pytest.raises(ValueError, match="leaf 'w' is divided over a mesh with explicit axes"):
            jax.jit(plan(topology.ring(4)))(tree)
