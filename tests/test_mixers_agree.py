"""Every mixer is the product with Π, whatever the graph, the leaves and the transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, topology
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

MIXERS = [mixing.dense, mixing.shifts, mixing.neighbors]  # auto is one of them: test_auto.py
ODD_SIZES = {"grid": 6, "torus": 6, "hypercube": 8}
# Of one agent or two, all families are the same graph.
FAMILIES = [("ring", 1), ("ring", 2), ("ring", 3)]
FAMILIES += [(f, n) for f in topology.FAMILIES for n in (ODD_SIZES.get(f, 5), 16)]


def matrix_topology(matrix):
    return topology.from_matrix(matrix, validate=False)


def random_matrix(num_agents, density, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_agents,) * 2) * (rng.random((num_agents,) * 2) < density)


def repeated_rows(num_agents):
    matrix = random_matrix(num_agents, 0.2)
    matrix[::2] = np.arange(num_agents)  # every other agent has the same full row
    return matrix


NON_SYMMETRIC = {
    "directed exponential": topology.exponential(16, directed=True),
    "sparse": matrix_topology(random_matrix(12, 0.15)),
    "half full": matrix_topology(random_matrix(12, 0.5)),
    "full": matrix_topology(random_matrix(12, 1.0)),
    "one sender": matrix_topology(np.eye(9) + 2 * np.eye(9)[[4] * 9]),
    "one receiver": matrix_topology(np.eye(9) + 2 * np.eye(9)[:, [4] * 9]),
    "repeated rows": matrix_topology(repeated_rows(10)),
    "zero": matrix_topology(np.zeros((4, 4))),
}


@pytest.fixture(params=MIXERS, ids=lambda make: make.__name__)
def make(request):
    return request.param


def random_array(num_agents):
    return np.random.default_rng(num_agents).normal(size=(num_agents, 3))


def product(matrix, x):
    """A loop over receivers and senders, in NumPy."""
    x, mixed = np.asarray(x), np.zeros(x.shape)
    for j in range(len(x)):
        for k in range(len(x)):
            mixed[j] += matrix[j, k] * x[k]
    return mixed


@pytest.mark.parametrize(("family", "num_agents"), FAMILIES)
@pytest.mark.sampled(4)
def test_every_family_at_every_size(make, family, num_agents, x64):
    graph, x = topology.create(family, num_agents), random_array(num_agents)
    expected = product(graph.mixing_matrix, x)
    np.testing.assert_allclose(make(graph)(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("family", ["star", "grid"])
@pytest.mark.sampled(3)
def test_every_leaf_of_a_tree_is_mixed_alike(make, family, x64):
    graph, tree = topology.create(family, 8), random_stacked_tree(8)
    expected = jax.tree.map(lambda x: product(graph.mixing_matrix, x), tree)
    assert_trees_close(make(graph)(tree), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NON_SYMMETRIC)
@pytest.mark.sampled(4)
def test_a_non_symmetric_matrix_is_not_transposed(make, name, x64):
    graph, x = NON_SYMMETRIC[name], random_array(NON_SYMMETRIC[name].num_agents)
    expected = product(graph.mixing_matrix, x)
    np.testing.assert_allclose(make(graph)(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("weights", ["uniform", "max_degree", "laplacian", "lazy"])
def test_any_weights_on_a_random_graph(make, weights, x64):
    graph = topology.from_graph(random_connected_graph(13), weights, validate=False)
    x = random_array(13)
    expected = product(graph.mixing_matrix, x)
    np.testing.assert_allclose(make(graph)(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.accelerator
@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [("float32", 2**-22), ("bfloat16", 2**-8), ("float16", 2**-10), ("complex64", 2**-22)],
)
@pytest.mark.parametrize("family", ["star", "erdos_renyi"])  # with a full row, and without
@pytest.mark.sampled(4)
def test_the_sum_is_float32_at_least_and_rounded_once(make, family, dtype, rounding):
    graph = topology.create(family, 16)
    x = jnp.asarray(random_array(16), dtype)
    mixed = make(graph)(x)
    assert mixed.dtype == dtype
    wide = np.complex128 if dtype == "complex64" else np.float64
    expected = graph.mixing_matrix @ np.asarray(x, wide)
    np.testing.assert_allclose(np.asarray(mixed, wide), expected, rtol=rounding, atol=1e-6)


def test_float64_leaves_are_mixed_in_float64(make, x64):
    graph = topology.star(7)
    mixed = make(graph)(jnp.arange(7.0) / 3)
    assert mixed.dtype == jnp.float64
    np.testing.assert_allclose(mixed, graph.mixing_matrix @ np.arange(7) / 3, rtol=1e-14)


def test_leaves_that_are_not_floating_point_pass_unchanged(make):
    tree = {"count": jnp.arange(4), "frozen": jnp.array([True, False, True, False])}
    assert_trees_close(make(topology.complete(4))(tree), tree, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("family", ["ring", "star"])
def test_passes_where_jax_promotes_no_dtypes(make, family, dtype):
    mix = make(topology.create(family, 8))
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(mix, jax.ShapeDtypeStruct((8, 3), dtype))


@pytest.mark.parametrize("step", [3, jnp.int32(3)])
def test_the_step_is_accepted_and_changes_nothing(make, step):
    mix, x = make(topology.ring(5)), jnp.arange(5.0)
    np.testing.assert_array_equal(mix(x, step), mix(x))


def test_another_leading_size_names_the_leaf(make):
    with pytest.raises(ValueError, match=r"leaf 'kernel' has leading axis 5, but .* 4 agents"):
        make(topology.ring(4))({"kernel": jnp.ones((5, 2))})


class TestTransformations:
    graph = NON_SYMMETRIC["repeated rows"]  # some agents read the table, some have a full row
    x = random_array(graph.num_agents)

    def test_jit_changes_nothing(self, make):
        mix, x = make(self.graph), jnp.asarray(self.x)
        np.testing.assert_allclose(jax.jit(mix)(x), mix(x), rtol=1e-5, atol=1e-5)

    def test_vmap_equals_one_call_each(self, make):
        mix, x = make(self.graph), jax.random.normal(jax.random.key(0), (3, *self.x.shape))
        expected = jnp.stack([mix(one) for one in x])
        np.testing.assert_allclose(jax.vmap(mix)(x), expected, rtol=1e-5, atol=1e-5)

    def test_scan_multiplies_by_powers(self, make, x64):
        mix, x = make(self.graph), jnp.asarray(self.x)
        scanned, _ = jax.lax.scan(lambda x, step: (mix(x, step), None), x, jnp.arange(3))
        expected = np.linalg.matrix_power(self.graph.mixing_matrix, 3) @ x
        np.testing.assert_allclose(scanned, expected, rtol=1e-10, atol=1e-10)

    def test_the_gradient_goes_back_along_the_edges(self, make, x64):
        mix, weights = make(self.graph), np.arange(self.graph.num_agents)
        gradient = jax.grad(lambda x: jnp.sum(weights[:, None] * mix(x)))(jnp.asarray(self.x))
        expected = np.tile((self.graph.mixing_matrix.T @ weights)[:, None], 3)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-12)
