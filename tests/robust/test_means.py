import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, robust, topology
from cdjax.robust._means import clipped_gossip, comparators, median, trimmed_mean
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

IRREGULAR = topology.from_graph(random_connected_graph(11, seed=1))
GRAPHS = {
    "one agent": topology.ring(1),
    "ring": topology.ring(6),
    "irregular": IRREGULAR,
    "hub": topology.star(7),
    "full": topology.complete(6),
    "directed": topology.exponential(8, directed=True),
}
OUTLIERS = [1e6, -1e6, 3e38, np.inf, -np.inf, np.nan]


@pytest.fixture(params=GRAPHS)
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


def clipped_sums(matrix, rows, radius):
    """A loop over links: every difference shortened to the radius."""
    mixed = rows.copy()
    for j, k in np.argwhere(matrix != 0):
        difference = rows[k] - rows[j]
        length = np.linalg.norm(difference)
        mixed[j] += matrix[j, k] * difference * min(1, radius / length if length else 1)
    return mixed


def flat(tree):
    """Each agent's leaves end to end."""
    return np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(tree)], axis=1)


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


@pytest.mark.parametrize("seed", range(3))
def test_irregular_neighborhoods_are_each_trimmed_by_their_own_size(seed, x64):
    graph = topology.from_graph(random_connected_graph(14, seed))
    smallest = min(len(heard_by(graph, j)) for j in range(14))
    x = np.asarray(random_stacked_tree(14, seed=seed)["layer"]["kernel"])
    for num_trimmed in range((smallest + 1) // 2):
        mixed = jax.jit(trimmed_mean(graph, num_trimmed))(x)
        np.testing.assert_allclose(mixed, middle_means(graph, x, num_trimmed), rtol=1e-13)


def test_nothing_trimmed_is_the_uniform_mean(graph, x64):
    uniform = graph.mixing_matrix != 0
    uniform = topology.from_matrix(uniform / uniform.sum(axis=1, keepdims=True), validate=False)
    tree = random_stacked_tree(graph.num_agents)
    mixed = jax.jit(trimmed_mean(graph, 0))(tree)
    assert_trees_close(mixed, mixing.dense(uniform)(tree), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("radius", [0.0, 1.0, 5.0, np.inf])
def test_differences_are_clipped_by_their_length_over_all_leaves(graph, radius, x64):
    tree = random_stacked_tree(graph.num_agents)
    mixed = jax.jit(clipped_gossip(graph, radius))(tree)
    expected = clipped_sums(graph.mixing_matrix, flat(tree), radius)
    np.testing.assert_allclose(flat(mixed), expected, rtol=1e-12, atol=1e-12)


def test_an_infinite_radius_is_the_dense_mixer(graph, x64):
    tree = random_stacked_tree(graph.num_agents)
    mixed = jax.jit(clipped_gossip(graph, np.inf))(tree)
    assert_trees_close(mixed, mixing.dense(graph)(tree), rtol=1e-12, atol=1e-12)


def test_clipped_gossip_conserves_the_mean(x64):
    mix, tree = jax.jit(clipped_gossip(IRREGULAR, 0.5)), random_stacked_tree(11)
    mixed = tree
    for step in range(100):
        mixed = mix(mixed, step)
    assert_trees_close(cdjax.mean_params(mixed), cdjax.mean_params(tree), rtol=0, atol=1e-13)
    assert cdjax.metrics.consensus_distance(mixed) < cdjax.metrics.consensus_distance(tree)


def test_the_radius_may_be_a_schedule(x64):
    tree = random_stacked_tree(6)
    mix = clipped_gossip(GRAPHS["ring"], lambda step: 2.0 / (1 + step))
    assert_trees_close(mix(tree, 3), clipped_gossip(GRAPHS["ring"], 0.5)(tree), rtol=1e-14)


@pytest.mark.parametrize("sent", OUTLIERS)
@pytest.mark.parametrize("make", [lambda graph: trimmed_mean(graph, 1), median])
def test_one_liar_moves_nobody_out_of_the_honest_range(make, sent):
    graph, x = GRAPHS["ring"], np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    mixed = np.asarray(jax.jit(make(graph))(jnp.asarray(x).at[2].set(sent)))
    for j in (1, 3):
        honest = x[[k for k in heard_by(graph, j) if k != 2]]
        assert (honest.min(axis=0) <= mixed[j]).all() and (mixed[j] <= honest.max(axis=0)).all()


@pytest.mark.parametrize("sent", OUTLIERS)
def test_one_liar_moves_nobody_by_more_than_weight_times_radius(sent):
    graph, tree, radius = GRAPHS["irregular"], random_stacked_tree(11, dtype=jnp.float32), 0.3
    liar = max(range(11), key=lambda j: graph.graph.degree[j])
    lies = jax.tree.map(lambda x: x.at[liar].set(sent), tree)
    mixed = flat(jax.jit(clipped_gossip(graph, radius))(lies))
    silent = np.array(graph.mixing_matrix)
    silent[:, liar] = 0
    expected = clipped_sums(silent, flat(tree).astype(float), radius)
    moved = np.linalg.norm(mixed - expected, axis=1)
    honest = np.arange(11) != liar
    assert (moved[honest] <= graph.mixing_matrix[honest, liar] * radius + 1e-5).all()


@pytest.mark.parametrize(
    ("name", "num_trimmed"),
    [("irregular", None), ("irregular", 0), ("full", None), ("full", 2), ("directed", 1)],
)
def test_an_agent_takes_its_own_value_for_one_that_does_not_arrive(name, num_trimmed, x64):
    graph, key = GRAPHS[name], jax.random.key(3)
    faults = [robust.lost_messages(graph, 0.4, key), robust.failing_links(graph, 0.2, key)]
    make = median if num_trimmed is None else lambda *a: trimmed_mean(a[0], num_trimmed, *a[1:])
    mix, x = (
        jax.jit(make(graph, *faults)),
        np.asarray(random_stacked_tree(graph.num_agents)["bias"]),
    )
    links = np.argwhere((graph.mixing_matrix != 0) & ~np.eye(graph.num_agents, dtype=bool))
    for step in range(3):
        failed = {tuple(link) for link in links[np.any([fault(step) for fault in faults], axis=0)]}
        assert 0 < len(failed) < len(links)
        for j, mixed in enumerate(mix(x, step)):
            heard = np.sort([x[j if (j, k) in failed else k] for k in heard_by(graph, j)], axis=0)
            cut = (len(heard) - 1) // 2 if num_trimmed is None else num_trimmed
            np.testing.assert_allclose(mixed, heard[cut : len(heard) - cut].mean(axis=0))


def test_clipped_gossip_over_failing_links_is_that_with_their_weights_given_back(x64):
    fault = robust.failing_links(IRREGULAR, 0.4, jax.random.key(0))
    mix, tree = jax.jit(clipped_gossip(IRREGULAR, 0.5, fault)), random_stacked_tree(11)
    for step in range(3):
        matrix = np.asarray(robust.faulty(IRREGULAR, fault)(jnp.eye(11), step))
        expected = clipped_sums(matrix, flat(tree), 0.5)
        np.testing.assert_allclose(flat(mix(tree, step)), expected, rtol=1e-12, atol=1e-12)
    assert_trees_close(cdjax.mean_params(mix(tree, 5)), cdjax.mean_params(tree), rtol=1e-12)


@pytest.mark.parametrize("make", [median, lambda graph: clipped_gossip(graph, np.inf)])
def test_counters_pass_and_dtypes_stay(make):
    tree = {"count": jnp.arange(6), "x": jnp.ones((6, 2), jnp.bfloat16), "z": jnp.ones(6) * 1j}
    assert_trees_close(make(GRAPHS["full"])(tree), tree, rtol=0, atol=0)
    assert make(GRAPHS["full"])(tree)["x"].dtype == jnp.bfloat16


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
        (lambda: clipped_gossip(topology.ring(5), -1.0), r"radius is -1.0; .* \[0, inf\)"),
        (lambda: clipped_gossip(topology.ring(5), np.nan), "radius is nan"),
        (
            lambda: median(topology.ring(5), lambda step: jnp.zeros(3, bool))(jnp.ones(5)),
            r"fault gave shape \(3,\), but the topology has 10 links",
        ),
        (lambda: median(topology.ring(5))({"w": jnp.ones(4)}), "leaf 'w' has leading axis 4"),
        (
            lambda: clipped_gossip(topology.ring(5), 1.0)({"w": jnp.ones(4)}),
            "leaf 'w' has leading axis 4",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
