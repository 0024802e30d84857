"""Algorithms that compress against loops over agents in NumPy, written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import compress, mixing, topology
from tests.trees import random_connected_graph

ALPHA, GAMMA, MU, BETA, PERIOD = 0.05, 0.2, 0.6, 0.9, 3


def largest(x, k=2):
    """Top-k of a vector."""
    kept = np.zeros_like(x)
    places = np.argsort(-np.abs(x), kind="stable")[:k]
    kept[places] = x[places]
    return kept


def scaled_sign(x):
    return np.mean(np.abs(x)) * np.where(x >= 0, 1.0, -1.0)


def choco(pi, gradient, x, num_steps, compressed):
    n, h = len(x), [np.zeros_like(xj) for xj in x]
    for _ in range(num_steps):
        x = [x[j] - ALPHA * gradient(j, x[j]) for j in range(n)]
        h = [h[j] + compressed(x[j] - h[j]) for j in range(n)]
        x = [x[j] + GAMMA * sum(pi[j, i] * (h[i] - h[j]) for i in range(n)) for j in range(n)]
    return x


def motef(pi, gradient, x, num_steps, compressed, weight=1.0):
    n, h = len(x), [np.zeros_like(xj) for xj in x]
    s, m = list(h), [gradient(j, x[j]) for j in range(n)]
    v = list(m)
    pull = lambda h, j: sum(pi[j, i] * (h[i] - h[j]) for i in range(n))  # noqa: E731
    for _ in range(num_steps):
        x = [x[j] + GAMMA * pull(h, j) - ALPHA * v[j] for j in range(n)]
        h = [h[j] + compressed(x[j] - h[j]) for j in range(n)]
        new = [(1 - weight) * m[j] + weight * gradient(j, x[j]) for j in range(n)]
        v = [v[j] + GAMMA * pull(s, j) + new[j] - m[j] for j in range(n)]
        s, m = [s[j] + compressed(v[j] - s[j]) for j in range(n)], new
    return x


def mean_of_senders(messages):
    counts = np.maximum(np.sum([q != 0 for q in messages], axis=0), 1)
    return np.sum(messages, axis=0) / counts


def demo(pi, gradient, x, num_steps, compressed):
    del pi
    n, e = len(x), [np.zeros_like(xj) for xj in x]
    for _ in range(num_steps):
        e = [BETA * e[j] + ALPHA * gradient(j, x[j]) for j in range(n)]
        q = [compressed(ej) for ej in e]
        e = [e[j] - q[j] for j in range(n)]
        x = [xj - ALPHA * np.sign(mean_of_senders(q)) for xj in x]
    return x


def sparse_loco(pi, gradient, x, num_steps, compressed):
    del pi
    n, e, theta = len(x), [np.zeros_like(xj) for xj in x], list(x)
    for k in range(num_steps):
        x = [x[j] - ALPHA * gradient(j, x[j]) for j in range(n)]
        if (k + 1) % PERIOD == 0:
            e = [BETA * e[j] + theta[j] - x[j] for j in range(n)]
            q = [compressed(ej) for ej in e]
            e = [e[j] - q[j] for j in range(n)]
            theta = [t - mean_of_senders(q) for t in theta]
            x = list(theta)
    return x


ALGORITHMS = {
    "choco, top-k": (
        lambda mix: cdjax.choco(optax.sgd(ALPHA), mix, compress.top_k(0.5), consensus_step=GAMMA),
        lambda *args: choco(*args, largest),
    ),
    "choco, sign": (
        lambda mix: cdjax.choco(optax.sgd(ALPHA), mix, compress.sign(), consensus_step=GAMMA),
        lambda *args: choco(*args, scaled_sign),
    ),
    "beer": (
        lambda mix: cdjax.beer(ALPHA, mix, compress.top_k(0.5), consensus_step=GAMMA),
        lambda *args: motef(*args, largest),
    ),
    "motef": (
        lambda mix: cdjax.beer(ALPHA, mix, compress.top_k(0.5), consensus_step=GAMMA, momentum=MU),
        lambda *args: motef(*args, largest, weight=1 - MU),
    ),
    "demo": (
        lambda mix: cdjax.demo(ALPHA, compress.top_k(0.5), decay=BETA),
        lambda *args: demo(*args, largest),
    ),
    "sparse loco": (
        lambda mix: cdjax.sparse_loco(
            optax.sgd(ALPHA), compress.chunk_top_k(2, 4), period=PERIOD, decay=BETA
        ),
        lambda *args: sparse_loco(*args, largest),
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_least_squares_agree_over_100_steps(name, x64):
    transform, loop = ALGORITHMS[name]
    graph, rng = topology.from_graph(random_connected_graph(7)), np.random.default_rng(0)
    a, b = rng.normal(size=(7, 20, 4)) / np.sqrt(20), rng.normal(size=(7, 20))
    x = np.tile(rng.normal(size=4), (7, 1))

    expected = loop(graph.mixing_matrix, lambda j, xj: a[j].T @ (a[j] @ xj - b[j]), list(x), 100)
    tx = transform(mixing.dense(graph))
    gradient = cdjax.agent_map(jax.grad(lambda x, a, b: 0.5 * jnp.sum((a @ x - b) ** 2)))

    def step(_, carry):
        x, state = carry
        updates, state = tx.update(gradient(x, a, b), state, x)
        return optax.apply_updates(x, updates), state

    # BEER's loop steps from x₀ before the first gradient at x₁: both move x a hundred times.
    x, _ = jax.lax.fori_loop(0, 100, step, (jnp.asarray(x), tx.init(jnp.asarray(x))))
    np.testing.assert_allclose(x, expected, atol=1e-10)
