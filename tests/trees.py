"""The one helper file of the tests: random stacked trees, random problems, tree comparison."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax


def random_stacked_tree(num_agents, *, dtype=None, seed=0):
    """Leaves of odd shapes: a scalar an agent, a vector, a kernel, and an empty one."""
    rng = np.random.default_rng(seed)  # jax.random would compile a program per shape
    shapes = {"scalar": (), "bias": (3,), "layer": {"kernel": (2, 3, 5), "empty": (0,)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=(num_agents, *shape)), dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def assert_trees_close(actual, expected, *, rtol=1e-6, atol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol, atol), actual, expected)


def random_connected_graph(num_agents, seed=0):
    """A random tree with as many random edges on top."""
    rng = np.random.default_rng(seed)
    graph = nx.empty_graph(num_agents)
    graph.add_edges_from((j, int(rng.integers(j))) for j in range(1, num_agents))
    graph.add_edges_from(map(tuple, rng.integers(num_agents, size=(num_agents, 2))))
    return graph


def quadratic_gradients(centers, curvatures=1.0):
    """Gradients of f_j(x) = ½ h_j (x − c_j)², one scalar an agent."""
    return lambda x: jnp.asarray(curvatures) * (x - jnp.asarray(centers))


def iterate(tx, gradient, x, num_steps):
    state = tx.init(x)
    for _ in range(num_steps):
        updates, state = tx.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
    return x
