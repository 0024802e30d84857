import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, robust, topology
from cdjax.robust._means import comparators, median, trimmed_mean
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

IRREGULAR = topology.from_graph(random_connected_graph(11, seed=1))
GRAPHS = {
    "one agent": topology.ring(1),
    "ring": topology.ring(6),
    "irregular": IRREGULAR,
    "full": topology.complete(6),
    "directed": topology.exponential(8, directed=True),
}


@pytest.fixture(params=["one agent", "irregular", "full"])
def graph(request):
    return GRAPHS[request.param]


def heard_by(graph, agent):
    return sorted({agent, *np.flatnonzero(graph.mixing_matrix[agent])})


def middle_means(graph, x, num_trimmed):
    """A loop over agents: sort what an agent hears, cut off both ends, average."""
    mixed = np.empty_like(x)
    for j in range(len(x)):
        heard = np.sort(x[heard_by(graph, j)], axis=0)
        cut = (len(heard) - 1) // 2 if num_trimmed is None else num_trimmed
        mixed[j] = heard[cut : len(heard) - cut].mean(axis=0)
    return mixed


@pytest.mark.parametrize("num_values", range(1, 12))
def test_the_comparators_sort_all_zeros_and_ones_and_so_everything(num_values):
    inputs = np.array(list(itertools.product([0, 1], repeat=num_values)))
    values = list(inputs.T)
    for i, j in comparators(num_values):
        values[i], values[j] = np.minimum(values[i], values[j]), np.maximum(values[i], values[j])
    np.testing.assert_array_equal(np.array(values).T, np.sort(inputs, axis=1))


@pytest.mark.parametrize("num_values", [31, 32, 33, 64])
def test_the_comparators_sort_many_values(num_values):
    values = list(np.random.default_rng(0).normal(size=(num_values, 1000)))
    expected = np.sort(values, axis=0)
    for i, j in comparators(num_values):
        values[i], values[j] = np.minimum(values[i], values[j]), np.maximum(values[i], values[j])
    np.testing.assert_array_equal(values, expected)


def test_the_median_is_each_neighborhoods(graph, x64):
    tree = random_stacked_tree(graph.num_agents)
    expected = jax.tree.map(lambda x: middle_means(graph, np.asarray(x), None), tree)
    assert_trees_close(jax.jit(median(graph))(tree), expected, rtol=1e-14, atol=1e-14)
    neighborhood = np.asarray(tree["bias"])[heard_by(graph, 0)]
    np.testing.assert_allclose(expected["bias"][0], np.median(neighborhood, axis=0))


@pytest.mark.parametrize(("name", "num_trimmed"), [("ring", 1), ("full", 2), ("directed", 1)])
def test_the_trimmed_mean_is_each_neighborhoods(name, num_trimmed, x64):
    graph, tree = GRAPHS[name], random_stacked_tree(GRAPHS[name].num_agents)
    expected = jax.tree.map(lambda x: middle_means(graph, np.asarray(x), num_trimmed), tree)
    mixed = jax.jit(trimmed_mean(graph, num_trimmed))(tree)
    assert_trees_close(mixed, expected, rtol=1e-14, atol=1e-14)


def test_irregular_neighborhoods_are_each_trimmed_by_their_own_size(x64):
    graph = topology.from_graph(random_connected_graph(14, seed=1))
    assert {len(heard_by(graph, j)) for j in range(14)} == {3, 4, 5, 6, 7}
    x = np.asarray(random_stacked_tree(14)["bias"])
    mixed = jax.jit(trimmed_mean(graph, 1))(x)
    np.testing.assert_allclose(mixed, middle_means(graph, x, 1), rtol=1e-13)


def test_nothing_trimmed_is_the_uniform_mean(graph, x64):
    uniform = graph.mixing_matrix != 0
    uniform = topology.from_matrix(uniform / uniform.sum(axis=1, keepdims=True), validate=False)
    tree = random_stacked_tree(graph.num_agents)
    mixed = jax.jit(trimmed_mean(graph, 0))(tree)
    assert_trees_close(mixed, mixing.dense(uniform)(tree), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("make", [lambda graph: trimmed_mean(graph, 1), median])
def test_one_malicious_agent_moves_nobody_out_of_the_honest_range(make):
    graph, x = GRAPHS["ring"], np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    mix = jax.jit(make(graph))
    for sent, j in itertools.product([1e6, -1e6, 3e38, np.inf, -np.inf, np.nan], (1, 3)):
        mixed = np.asarray(mix(jnp.asarray(x).at[2].set(sent)))[j]
        honest = x[[k for k in heard_by(graph, j) if k != 2]]
        assert (honest.min(axis=0) <= mixed).all() and (mixed <= honest.max(axis=0)).all()


@pytest.mark.parametrize(
    ("name", "num_trimmed"),
    [("irregular", None), ("full", 2), ("directed", 1)],
)
@pytest.mark.sampled(3)
def test_an_agent_takes_its_own_value_for_one_that_does_not_arrive(name, num_trimmed, x64):
    graph, key = GRAPHS[name], jax.random.key(3)
    faults = [
        robust.lost_messages(graph, 0.4, key=key),
        robust.failing_links(graph, 0.2, key=key),
    ]
    make = median if num_trimmed is None else lambda *a: trimmed_mean(a[0], num_trimmed, *a[1:])
    mix = jax.jit(make(graph, *faults))
    x = np.asarray(random_stacked_tree(graph.num_agents)["bias"])
    links = np.argwhere((graph.mixing_matrix != 0) & ~np.eye(graph.num_agents, dtype=bool))
    for step in range(3):
        failed = {tuple(link) for link in links[np.any([fault(step) for fault in faults], axis=0)]}
        assert 0 < len(failed) < len(links)
        for j, mixed in enumerate(mix(x, step)):
            heard = np.sort([x[j if (j, k) in failed else k] for k in heard_by(graph, j)], axis=0)
            cut = (len(heard) - 1) // 2 if num_trimmed is None else num_trimmed
            np.testing.assert_allclose(mixed, heard[cut : len(heard) - cut].mean(axis=0))


def test_counters_pass_and_dtypes_stay():
    tree = {"count": jnp.arange(6), "x": jnp.ones((6, 2), jnp.bfloat16), "z": jnp.ones(6) * 1j}
    mixed = jax.jit(median(GRAPHS["full"]))(tree)
    assert_trees_close(mixed, tree, rtol=0, atol=0)
    assert mixed["x"].dtype == jnp.bfloat16


def test_complex_values_are_ordered_by_their_parts():
    x = jnp.array([1 + 9j, 2 + 8j, 30 + 7j, 4 + 60j, 5 - 50j])
    np.testing.assert_allclose(median(topology.complete(5))(x), np.full(5, 4 + 8j))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: trimmed_mean(topology.ring(5), -1),
            "num_trimmed is -1; it must lie in",
        ),
        (
            lambda: trimmed_mean(topology.star(5), 1),
            "num_trimmed is 1, but agent 1 hears 2 agents, itself included; give at most 0",
        ),
        (
            lambda: median(topology.ring(5), lambda step: jnp.zeros(3, bool))(jnp.ones(5), 0),
            r"fault gave shape \(3,\), but the topology has 10 links",
        ),
        (lambda: median(topology.ring(5))({"w": jnp.ones(4)}), "leaf 'w' has leading axis 4"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
