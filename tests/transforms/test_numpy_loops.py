"""Every algorithm against a loop over agents in NumPy, written from the paper's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import random_connected_graph

ALPHA, MU = 0.05, 0.8


def cdsgd(pi, gradients, x, num_steps):
    """eq. 5: x^j ← Σ_l π_jl x^l − α g_j(x^j)."""
    n = len(x)
    for k in range(num_steps):
        x = [sum(pi[j, i] * x[i] for i in range(n)) - ALPHA * gradients(j, x[j], k)
             for j in range(n)]  # fmt: skip
    return x


def atc(pi, gradients, x, num_steps):
    """Step, then mix: x^j ← Σ_l π_jl (x^l − α g_l(x^l))."""
    n = len(x)
    for k in range(num_steps):
        stepped = [x[j] - ALPHA * gradients(j, x[j], k) for j in range(n)]
        x = [sum(pi[j, i] * stepped[i] for i in range(n)) for j in range(n)]
    return x


def cdmsgd(pi, gradients, x, num_steps, lookahead):
    """Algorithms 2 and 3: v^j ← Σ_l π_jl x^l − x^j + μv^j − α g_j(x^j + lookahead·v^j)."""
    n = len(x)
    v = [0 * x[j] for j in range(n)]
    for k in range(num_steps):
        mixed = [sum(pi[j, i] * x[i] for i in range(n)) for j in range(n)]
        g = [gradients(j, x[j] + lookahead * v[j], k) for j in range(n)]
        v = [mixed[j] - x[j] + MU * v[j] - ALPHA * g[j] for j in range(n)]
        x = [x[j] + v[j] for j in range(n)]
    return x


ALGORITHMS = {
    "cdsgd": (lambda mix: cdjax.cdsgd(ALPHA, mix), cdsgd),
    "atc": (lambda mix: cdjax.adapt_then_combine(optax.sgd(ALPHA), mix), atc),
    "polyak": (
        lambda mix: cdjax.cdmsgd(ALPHA, mix, momentum=MU, nesterov=False),
        lambda *args: cdmsgd(*args, lookahead=0.0),
    ),
    "nesterov": (
        lambda mix: cdjax.cdmsgd(ALPHA, mix, momentum=MU),
        lambda *args: cdmsgd(*args, lookahead=MU),
    ),
}


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    return ALGORITHMS[request.param]


@pytest.fixture
def graph():
    return topology.from_graph(random_connected_graph(7))


@pytest.mark.accelerator
def test_least_squares_agree_to_1e_10_over_200_steps(algorithm, graph, x64):
    transform, loop = algorithm
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 20, 4)) / np.sqrt(20), rng.normal(size=(7, 20))
    x = rng.normal(size=(7, 4))

    expected = loop(graph.mixing_matrix, lambda j, xj, k: a[j].T @ (a[j] @ xj - b[j]), list(x), 200)
    tx = transform(mixing.dense(graph))
    gradient = cdjax.agent_map(jax.grad(lambda x, a, b: 0.5 * jnp.sum((a @ x - b) ** 2)))

    def step(_, carry):
        x, state = carry
        updates, state = tx.update(gradient(x, a, b), state, x)
        return optax.apply_updates(x, updates), state

    x, state = jax.lax.fori_loop(0, 200, step, (jnp.asarray(x), tx.init(jnp.asarray(x))))
    np.testing.assert_allclose(cdjax.eval_params(state, x), expected, atol=1e-10)


def cnn_gradient(flat, images, labels):
    """Cross entropy of conv 3×3 → ReLU → dense, differentiated by hand."""
    kernel, dense = flat[:36].reshape(9, 4), flat[36:].reshape(64, 3)
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    patches = patches.reshape(len(images), 16, 9)
    hidden = np.maximum(patches @ kernel, 0)
    features = hidden.reshape(len(images), 64)
    logits = features @ dense
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    d_logits = (probabilities - np.eye(3)[labels]) / len(images)
    d_hidden = (d_logits @ dense.T).reshape(hidden.shape) * (hidden > 0)
    d_kernel = np.einsum("bpi,bpo->io", patches, d_hidden)
    return np.concatenate([d_kernel.ravel(), (features.T @ d_logits).ravel()])


def cnn_loss(params, images, labels):
    convolved = jax.lax.conv_general_dilated(
        images[..., None], params["kernel"], (1, 1), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    features = jax.nn.relu(convolved).reshape(len(images), -1)
    losses = optax.softmax_cross_entropy_with_integer_labels(features @ params["dense"], labels)
    return jnp.mean(losses)


cnn_gradients = jax.jit(cdjax.agent_map(jax.grad(cnn_loss)))  # compiled once for all algorithms


def test_a_small_cnn_agrees_to_1e_4_over_20_steps_in_float32(algorithm, graph):
    transform, loop = algorithm
    rng = np.random.default_rng(1)
    images = rng.normal(size=(20, 7, 8, 6, 6)).astype(np.float32)
    labels = rng.integers(3, size=(20, 7, 8))
    start = 0.3 * rng.normal(size=36 + 192)

    expected = loop(
        graph.mixing_matrix,
        lambda j, xj, k: cnn_gradient(xj, images[k, j].astype(np.float64), labels[k, j]),
        [start] * 7,
        20,
    )
    start = np.float32(start)
    params = {"kernel": start[:36].reshape(3, 3, 1, 4), "dense": start[36:].reshape(64, 3)}
    params = cdjax.replicate(params, 7)
    tx = transform(mixing.dense(graph))
    state, update = tx.init(params), jax.jit(tx.update)

    for k in range(20):
        grads = cnn_gradients(params, images[k], labels[k])
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    params = cdjax.eval_params(state, params)
    actual = np.concatenate(
        [params["kernel"].reshape(7, -1), params["dense"].reshape(7, -1)], axis=1
    )
    np.testing.assert_allclose(actual, expected, atol=1e-4)
