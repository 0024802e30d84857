import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import assert_trees_close, random_stacked_tree


def test_row_is_receiver_and_column_is_sender():
    matrix = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]])
    mix = mixing.dense(topology.from_matrix(matrix, validate=False))
    mixed = mix(jnp.array([1.0, 10.0, 100.0]))
    np.testing.assert_allclose(mixed, [0.5 * 1 + 0.5 * 10, 10, 0.25 * 10 + 0.75 * 100])


@pytest.mark.parametrize("family", topology.FAMILIES)
def test_equals_a_loop_over_agents_and_neighbors(family, x64):
    graph = topology.create(family, 16)
    x = random_stacked_tree(16)["bias"]
    expected = np.zeros(x.shape)
    for j in range(16):
        for k in [j, *graph.graph[j]]:
            expected[j] += graph.mixing_matrix[j, k] * x[k]
    np.testing.assert_allclose(mixing.dense(graph)(x), expected, atol=1e-14)


@pytest.mark.parametrize("num_agents", [1, 2, 5, 8])
@pytest.mark.sampled(4)
def test_column_sums_of_one_conserve_the_mean(num_agents):
    mix = mixing.dense(topology.ring(num_agents))
    tree = random_stacked_tree(num_agents)
    assert_trees_close(cdjax.mean_params(mix(tree)), cdjax.mean_params(tree))


def test_disagreement_on_ring_8_falls_as_published(x64):
    mix, x = mixing.dense(topology.ring(8)), jnp.arange(8.0)
    norms = {}
    for step in range(1, 51):
        x = mix(x)
        norms[step] = float(jnp.linalg.norm(x - 3.5))
    expected = {1: 4.346135, 5: 1.763901, 10: 0.595298, 20: 0.0678077, 50: 1.002102e-4}
    for step, norm in expected.items():
        assert norms[step] == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("family", ["ring", "star", "torus", "erdos_renyi"])
def test_the_worst_disagreement_contracts_by_sigma(family, x64):
    graph = topology.create(family, 16)
    values, vectors = np.linalg.eigh(graph.mixing_matrix)
    worst = vectors[:, np.argsort(np.abs(values))[-2]]
    mixed = mixing.dense(graph)(jnp.asarray(worst))
    assert float(jnp.linalg.norm(mixed)) == pytest.approx(1 - graph.spectral_gap, abs=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_keeps_dtypes(dtype):
    mixed = mixing.dense(topology.ring(4))({"x": jnp.ones((4, 3), dtype)})
    assert mixed["x"].dtype == dtype


def test_bfloat16_is_accumulated_in_float32():
    x = jnp.linspace(1, 2, 64, dtype=jnp.bfloat16)
    mixed = mixing.dense(topology.complete(64))(x)
    expected = np.mean(np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(mixed, np.float64), expected, rtol=2**-8)


def test_another_leading_size_names_the_leaf_and_both_sizes():
    mix = mixing.dense(topology.ring(4))
    with pytest.raises(ValueError, match=r"leaf 'dense/kernel' has leading axis 5, but .* 4 agent"):
        mix({"dense": {"kernel": jnp.ones((5, 2))}})
    with pytest.raises(ValueError, match=r"leaf 'scale' has no axes"):
        mix({"scale": jnp.ones(())})
