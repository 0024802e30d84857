import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cdjax
from cdjax import mixing, topology
from cdjax.robust._faults import (
    absent_agents,
    failing_links,
    faulty,
    lost_messages,
    random_absence,
    scheduled_absence,
)
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(3)
GRAPHS = {
    "one agent": topology.ring(1),
    "sparse": topology.from_graph(random_connected_graph(12)),
    "full": topology.complete(6),
}
UNDIRECTED = {
    "links": lambda graph: failing_links(graph, 0.3, key=KEY),
    "agents": lambda graph: absent_agents(graph, random_absence(graph.num_agents, 0.3, key=KEY)),
}


@pytest.fixture(params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]


def matrix_at(mix, num_agents, step):
    """The mixing matrix of a step: what the mixer makes of the identity."""
    return np.asarray(mix(jnp.eye(num_agents), step))


def weights_given_back(matrix, failed):
    """A loop over links: the weight of each that failed goes to the receiver's diagonal."""
    matrix, failed = matrix.copy(), iter(np.asarray(failed))
    for j, k in zip(*np.nonzero(matrix - np.diag(np.diag(matrix))), strict=True):
        if next(failed):
            matrix[j, j] += matrix[j, k]
            matrix[j, k] = 0
    return matrix


@pytest.mark.parametrize("fault", [failing_links, lost_messages])
def test_the_weight_of_a_failed_link_goes_back_to_its_receiver(graph, fault, x64):
    fault, x = jax.jit(fault(graph, 0.4, key=KEY)), random_stacked_tree(graph.num_agents)["bias"]
    mix = jax.jit(faulty(graph, fault))
    for step in range(4):
        matrix = weights_given_back(graph.mixing_matrix, fault(step))
        np.testing.assert_allclose(mix(x, step), matrix @ x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", UNDIRECTED)
def test_the_matrix_of_a_step_stays_symmetric_and_doubly_stochastic(graph, kind, x64):
    mix = jax.jit(faulty(graph, UNDIRECTED[kind](graph)))
    for step in range(5):
        matrix = matrix_at(mix, graph.num_agents, step)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
        np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-14)
        np.testing.assert_array_equal(matrix[graph.mixing_matrix == 0], 0)


@pytest.mark.parametrize("kind", UNDIRECTED)
def test_the_mean_is_conserved_and_agents_still_agree(kind, x64):
    graph, tree = GRAPHS["sparse"], random_stacked_tree(12)["bias"]
    mix, mixed = jax.jit(faulty(graph, UNDIRECTED[kind](graph))), tree
    for step in range(400):
        mixed = mix(mixed, step)
    assert_trees_close(cdjax.mean_params(mixed), cdjax.mean_params(tree), rtol=0, atol=1e-13)
    assert cdjax.metrics.consensus_distance(mixed) < 1e-3


def test_lost_messages_move_the_mean_and_keep_rows_stochastic(x64):
    mix = faulty(GRAPHS["sparse"], lost_messages(GRAPHS["sparse"], 0.3, key=KEY))
    matrix = matrix_at(mix, 12, step=0)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-14)
    assert np.abs(matrix.sum(axis=0) - 1).max() > 0.1
    assert np.abs(matrix - matrix.T).max() > 0.1


def test_lost_messages_conserve_the_mean_in_expectation(x64):
    graph = topology.ring(4)
    mix = faulty(graph, lost_messages(graph, 0.3, key=KEY))
    matrices = jax.vmap(lambda step: mix(jnp.eye(4), step))(jnp.arange(4000))
    columns = np.asarray(matrices).sum(axis=1)
    np.testing.assert_allclose(columns.mean(axis=0), 1, atol=5 * columns.std() / np.sqrt(4000))


@pytest.mark.parametrize("fault", [failing_links, lost_messages])
def test_nothing_fails_and_everything_fails(graph, fault, x64):
    tree = random_stacked_tree(graph.num_agents)["bias"]
    run = jax.jit(lambda probability: faulty(graph, fault(graph, probability, key=KEY))(tree, 0))
    assert_trees_close(run(0.0), mixing.dense(graph)(tree), rtol=1e-13, atol=1e-13)
    assert_trees_close(run(1.0), tree, rtol=1e-14, atol=1e-14)


@pytest.mark.sampled(3)
def test_without_a_fault_it_is_the_dense_mixer(graph, x64):
    tree = random_stacked_tree(graph.num_agents)
    assert_trees_close(faulty(graph)(tree), mixing.dense(graph)(tree), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("fault", [failing_links, lost_messages])
def test_every_link_fails_with_the_probability(fault):
    graph = GRAPHS["sparse"]
    failed = np.asarray(jax.vmap(fault(graph, 0.2, key=KEY))(jnp.arange(4000)))
    np.testing.assert_allclose(failed.mean(axis=0), 0.2, atol=5 * np.sqrt(0.16 / 4000))


def test_links_fail_apart_from_each_other_and_from_step_to_step():
    failed = np.asarray(jax.vmap(lost_messages(topology.ring(5), 0.5, key=KEY))(jnp.arange(4000)))
    together = np.corrcoef(np.concatenate([failed[1:].T, failed[:-1].T]))
    np.testing.assert_allclose(together, np.eye(20), atol=5 / np.sqrt(4000))


def test_an_absent_agent_keeps_its_parameters_and_is_not_heard():
    graph = topology.ring(5)
    away = scheduled_absence(5, {2: [(3, 4)]})
    x = jnp.arange(5.0).at[2].set(jnp.nan)
    mixed = faulty(graph, absent_agents(graph, away))(x, 3)
    np.testing.assert_allclose(mixed, [5 / 3, 2 / 3, np.nan, 10 / 3, 7 / 3], rtol=1e-6)


def test_a_schedule_holds_from_its_first_to_its_last_step():
    away = scheduled_absence(4, {1: [(2, 3), (6, 6)], 3: [(0, 2)]})
    found = np.asarray(jax.vmap(away)(jnp.arange(8)))
    np.testing.assert_array_equal(np.flatnonzero(found[:, 1]), [2, 3, 6])
    np.testing.assert_array_equal(np.flatnonzero(found[:, 3]), [0, 1, 2])
    assert not found[:, [0, 2]].any()


def test_an_absence_lasts_its_duration():
    away = np.asarray(jax.vmap(random_absence(20, 0.3, key=KEY, duration=5))(jnp.arange(100)))
    stretches = away.reshape(20, 5, 20)
    assert (stretches == stretches[:, :1]).all()
    assert 0.2 < away.mean() < 0.4
    assert len(np.unique(stretches[:, 0], axis=0)) > 10


def test_faults_add_up(x64):
    graph, tree = GRAPHS["sparse"], random_stacked_tree(12)["bias"]
    faults = failing_links(graph, 0.3, key=KEY), lost_messages(graph, 0.3, key=jax.random.key(4))
    either = lambda step: faults[0](step) | faults[1](step)  # noqa: E731
    both = faulty(graph, *faults)(tree, 5)
    assert_trees_close(both, faulty(graph, either)(tree, 5), rtol=0, atol=0)


@pytest.mark.parametrize("graph", [topology.ring(16), topology.complete(16)], ids=str)
def test_shards_of_the_agent_axis_change_nothing(graph):
    mix, x = jax.jit(faulty(graph, failing_links(graph, 0.3, key=KEY))), jnp.eye(16)
    mesh = jax.make_mesh((8,), ("agents",), axis_types=(AxisType.Auto,))
    sharded = mix(jax.device_put(x, NamedSharding(mesh, PartitionSpec("agents"))), 2)
    assert_trees_close(jax.device_get(sharded), jax.device_get(mix(x, 2)))


def test_a_sweep_of_probabilities_is_one_program(x64):
    graph, tree = GRAPHS["sparse"], random_stacked_tree(12)["bias"]
    run = lambda p: faulty(graph, failing_links(graph, p, key=KEY))(tree, 1)  # noqa: E731
    swept = jax.vmap(run)(jnp.array([0.0, 0.5]))
    assert_trees_close(swept, jnp.stack([run(0.0), run(0.5)]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: failing_links(topology.ring(3), 1.5, key=KEY), r"probability is 1.5; .*\[0, 1\]"),
        (lambda: lost_messages(topology.ring(3), np.nan, key=KEY), r"probability is nan"),
        (lambda: random_absence(0, 0.5, key=KEY), "num_agents is 0"),
        (lambda: random_absence(3, -0.5, key=KEY), "probability is -0.5"),
        (lambda: random_absence(3, 0.5, key=KEY, duration=0), "duration is 0"),
        (lambda: scheduled_absence(3, {3: [(0, 1)]}), "schedule names agent 3; expected 0 to 2"),
        (lambda: scheduled_absence(3, {1: [(5, 4)]}), "agent 1 away from step 5 to 4"),
        (
            lambda: absent_agents(topology.ring(3), random_absence(4, 0.5, key=KEY))(0),
            r"absence gave shape \(4,\), but the topology has 3 agents",
        ),
        (lambda: faulty(topology.ring(3))({"w": jnp.ones(4)}), "leaf 'w' has leading axis 4"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
