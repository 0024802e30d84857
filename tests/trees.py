"""The one helper file of the tests: random stacked trees, random problems, tree comparison."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax


def random_stacked_tree(num_agents, *, dtype=None, seed=0):
    """Leaves of odd shapes: one scalar per agent, a vector, a kernel, and an empty one."""
    # Drawn by NumPy: jax.random.normal compiles for seconds per shape and dtype.
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(num_agents, *shape)), dtype)  # noqa: E731
    return {"scalar": draw(), "bias": draw(3), "layer": {"kernel": draw(2, 3, 5), "empty": draw(0)}}


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
    """Gradients of f_j(x) = ½ h_j (x − c_j)², one scalar per agent."""
    return lambda x: jnp.asarray(curvatures) * (x - jnp.asarray(centers))


def train(tx, gradient, x, num_steps):
    """Stored parameters and state after some steps, in one compiled loop."""

    def step(_, carry):
        x, state = carry
        updates, state = tx.update(gradient(x), state, x)
        return optax.apply_updates(x, updates), state

    return jax.lax.fori_loop(0, num_steps, step, (x, tx.init(x)))


def trajectory(tx, gradient, x, num_steps):
    """Stored parameters and states after each step, stacked along a leading axis of steps."""

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    return jax.lax.scan(step, (x, tx.init(x)), length=num_steps)[1]


def with_cross_gradients(tx, cross):
    """The transformation as one that computes the cross gradients that it needs, from params."""

    def update(grads, state, params=None):
        given = grads if params is None else params
        return tx.update(grads, state, params, cross_gradients=cross(given))

    return optax.GradientTransformation(tx.init, update)
