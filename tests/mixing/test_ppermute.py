import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import cdjax
from benchmarks._collectives import collectives
from cdjax import mixing, sharding, topology
from cdjax.mixing._ppermute import ppermute
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

pytestmark = pytest.mark.sampled(3)


def random_matrix(density, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 8)) * (rng.random((8, 8)) < density)


def matrix_topology(matrix):
    return topology.from_matrix(matrix, validate=False)


GRAPHS = {
    "random": topology.from_graph(random_connected_graph(8)),
    "ring": topology.ring(8),
    "star": topology.star(8),
    "complete": topology.complete(8),
    "directed exponential": topology.exponential(8, directed=True),
    "non-symmetric": matrix_topology(random_matrix(0.3)),
    "one sender": matrix_topology(np.eye(8) + 2 * np.eye(8)[[4] * 8]),
    "one receiver": matrix_topology(np.eye(8) + 2 * np.eye(8)[:, [4] * 8]),
    "no edges": matrix_topology(np.diag(np.arange(8.0))),
}


def by_pmap(fn):
    return jax.pmap(fn, axis_name="agents")


def by_shard_map(fn):
    specs, mesh = PartitionSpec("agents"), sharding.agent_mesh(8)
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=specs))


def by_vmap(fn):
    return jax.jit(jax.vmap(fn, axis_name="agents"))


FORMS = [by_pmap, by_shard_map, by_vmap]


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((by_vmap, name) for name in GRAPHS),
        *((form, name) for form in FORMS[:2] for name in ("non-symmetric", "one sender")),
    ],
)
def test_every_form_is_the_product_with_the_matrix(form, name, x64):
    graph, x = GRAPHS[name], random_stacked_tree(8)["bias"]
    mixed = form(ppermute(graph, "agents"))(x)
    expected = graph.mixing_matrix @ np.asarray(x)
    np.testing.assert_allclose(mixed, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_every_leaf_of_a_tree_is_mixed_and_counters_pass(form):
    graph, tree = GRAPHS["random"], {**random_stacked_tree(8), "count": jnp.arange(8)}
    mixed = form(ppermute(graph, "agents"))(tree)
    assert_trees_close(jax.device_get(mixed), jax.device_get(mixing.dense(graph)(tree)))


@pytest.mark.parametrize("num_agents", [1, 2, 15])
def test_under_vmap_any_number_of_agents(num_agents, x64):
    graph = topology.from_graph(random_connected_graph(num_agents))
    x = random_stacked_tree(num_agents)["bias"]
    mixed = by_vmap(ppermute(graph, "agents"))(x)
    np.testing.assert_allclose(mixed, graph.mixing_matrix @ np.asarray(x), atol=1e-13)


@pytest.mark.parametrize(("name", "rounds"), [("ring", 2), ("star", 7), ("complete", 7)])
def test_as_many_permutes_as_the_most_neighbors_and_no_message_but_along_edges(name, rounds):
    graph = GRAPHS[name]
    program = by_shard_map(ppermute(graph, "agents")).lower(jnp.ones((8, 3))).compile().as_text()
    found = collectives(program)
    assert [collective.kind for collective in found] == ["collective-permute"] * rounds
    messages = [(s, r) for collective in found for s, r in collective.links if s != r]
    edges = [edge for a, b in graph.graph.edges() for edge in ((a, b), (b, a))]
    assert sorted(messages) == sorted(edges)
    assert {collective.num_bytes for collective in found} == {3 * 4}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.sampled(2)
def test_a_transformation_inside_of_the_mapped_code_equals_the_stacked_one(form):
    graph, params = GRAPHS["random"], random_stacked_tree(8)

    def train(params, mix):
        tx = cdjax.cdmsgd(0.1, mix)
        carry = params, tx.init(params)
        for _ in range(3):
            params, state = carry
            updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
            carry = optax.apply_updates(params, updates), state
        return carry[0]

    result = form(lambda params: train(params, ppermute(graph, "agents")))(params)
    assert_trees_close(jax.device_get(result), train(params, mixing.dense(graph)), atol=1e-5)


def test_bfloat16_is_summed_in_float32_and_rounded_once():
    x = jax.random.normal(jax.random.key(0), (8, 500), jnp.bfloat16)
    mixed = by_shard_map(ppermute(GRAPHS["complete"], "agents"))(x)
    assert mixed.dtype == jnp.bfloat16
    expected = np.tile(np.asarray(x, np.float64).mean(axis=0), (8, 1))
    np.testing.assert_allclose(np.asarray(mixed, np.float64), expected, rtol=2**-8, atol=1e-6)


def test_leaves_that_are_the_same_on_every_device_are_mixed_too():
    graph = GRAPHS["non-symmetric"]
    mix, specs = ppermute(graph, "agents"), (PartitionSpec(), PartitionSpec("agents"))
    mesh = sharding.agent_mesh(8)
    mixed = jax.jit(jax.shard_map(mix, mesh=mesh, in_specs=specs[0], out_specs=specs[1]))
    expected = graph.mixing_matrix.sum(axis=1)
    np.testing.assert_allclose(mixed(jnp.ones(1)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [3, jnp.int32(3)])
def test_the_step_is_accepted_and_changes_nothing(step):
    mix, x = ppermute(GRAPHS["ring"], "agents"), jnp.arange(8.0)
    np.testing.assert_array_equal(by_vmap(lambda x: mix(x, step))(x), by_vmap(mix)(x))


def test_an_axis_of_another_length_is_named_with_both_numbers():
    mix = ppermute(GRAPHS["ring"], "agents")
    with pytest.raises(ValueError, match=r"axis 'agents' has length 4, but .* 8 agents; one dev"):
        by_vmap(mix)(jnp.ones((4, 3)))
