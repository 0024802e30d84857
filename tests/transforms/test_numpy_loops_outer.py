"""Rounds of local steps, directed graphs and relays against loops over agents in NumPy.

Each loop is written from the reference of the algorithm. It takes ``gradient(j, x, k)`` of agent j
at step k and the agents' parameters, and returns the agents' parameters after 100 steps.
"""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import random_connected_graph

N, STEPS, ALPHA, H = 6, 100, 0.05, 10
GRAPH = topology.from_graph(random_connected_graph(N), "lazy")
PI = GRAPH.mixing_matrix
MIX = mixing.dense(GRAPH)
EDGES = [(j, (j + 1) % N) for j in range(N)] + [(1, 4), (3, 0), (5, 2)]
DIRECTED = topology.from_digraph(nx.DiGraph(EDGES))
PUSH = mixing.dense(DIRECTED)
TREE = nx.Graph([(0, 1), (1, 2), (1, 3), (3, 4), (3, 5)])
ETA, MU, GAMMA = 0.6, 0.7, 0.3


def halved(step):
    """A step size that is halved after five rounds."""
    return ALPHA * 0.5 ** (step >= 5 * H)


def mixed(x, pi=PI):
    return [sum(pi[j, i] * x[i] for i in range(N)) for j in range(N)]


def local(gradient, x, k, alpha=lambda k: ALPHA):
    """H steps of SGD of every agent."""
    x = list(x)
    for i in range(k, k + H):
        x = [x[j] - alpha(i) * gradient(j, x[j], i) for j in range(N)]
    return x


def outer(gradient, x):
    """DiLoCo with Π in place of the mean: torch's SGD with Nesterov momentum."""
    slow, v = list(x), [0 * x[0]] * N
    for k in range(0, STEPS, H):
        received = mixed(local(gradient, slow, k))
        for j in range(N):
            delta = slow[j] - received[j]
            v[j] = MU * v[j] + delta
            slow[j] = slow[j] - ETA * (delta + MU * v[j])
    return slow


def streaming(gradient, x):
    """Streaming DiLoCo as torchft runs it: two fragments, each sent τ before it is merged."""
    tau, a, window = 2, 0.3, H // 2
    x, slow = [y.copy() for y in x], [y.copy() for y in x]
    parts = [slice(0, 3), slice(3, 4)]  # the larger first
    for k in range(STEPS):
        x = [x[j] - ALPHA * gradient(j, x[j], k) for j in range(N)]
        number = k // window
        part = parts[number % 2]
        if (k + 1 + tau) % window == 0:
            received = mixed(x)
            for j in range(N):
                slow[j][part] -= ETA * (slow[j][part] - received[j][part])
        if (k + 1) % window == 0:
            for j in range(N):
                x[j][part] = a * x[j][part] + (1 - a) * slow[j][part]
    return slow


def factored(gradient, x):
    """φ⁺ = Π[Πφ + u], u the outer step on each agent's own φ − x."""
    slow, v = list(x), [0 * x[0]] * N
    for k in range(0, STEPS, H):
        start, learned = mixed(slow), local(gradient, slow, k)
        for j in range(N):
            v[j] = MU * v[j] + slow[j] - learned[j]
            start[j] = start[j] - ETA * v[j]
        slow = mixed(start)
    return slow


def accelerated(gradient, x, before_mix):
    """y = φ + η(x − φ); φ⁺ = Πy + γ(y − y₋₁), or Π(y + γ(y − y₋₁))."""
    slow, y_before = list(x), list(x)
    for k in range(0, STEPS, H):
        learned = local(gradient, slow, k)
        y = [slow[j] + ETA * (learned[j] - slow[j]) for j in range(N)]
        push = [GAMMA * (y[j] - y_before[j]) for j in range(N)]
        if before_mix:
            slow = mixed([y[j] + push[j] for j in range(N)])
        else:
            slow = [m + p for m, p in zip(mixed(y), push, strict=True)]
        y_before = y
    return slow


def slowmo(gradient, x):
    """Wang et al., Algorithm 1, with the mean over all agents: α of the round, u per unit of it."""
    slow, u = x[0], 0 * x[0]
    for k in range(0, STEPS, H):
        mean = sum(local(gradient, [slow] * N, k, halved)) / N
        u = MU * u + (slow - mean) / halved(k)
        slow = slow - ETA * halved(k) * u
    return [slow] * N


def kgt(gradient, x):
    """Liu et al., Algorithm 1: z = (x − y)/(Kη_c), c ← c − z + Πz, x ← Π(x − Kη_sη_c z)."""
    c = [0 * x[0]] * N
    for k in range(0, STEPS, H):
        y = list(x)
        for i in range(k, k + H):
            y = [y[j] - ALPHA * (gradient(j, y[j], i) + c[j]) for j in range(N)]
        z = [(x[j] - y[j]) / (H * ALPHA) for j in range(N)]
        c = [c[j] - z[j] + m for j, m in enumerate(mixed(z))]
        x = mixed([x[j] - H * ETA * ALPHA * z[j] for j in range(N)])
    return x


def led(gradient, x, beta=0.04):
    """Alghunaim, Algorithm 1: φ ← φ − αg(φ) − βy τ times, x ← Πφ, y ← y + φ − x."""
    y = [0 * x[0]] * N
    for k in range(0, STEPS, H):
        phi = list(x)
        for i in range(k, k + H):
            phi = [phi[j] - ALPHA * gradient(j, phi[j], i) - beta * y[j] for j in range(N)]
        x = mixed(phi)
        y = [y[j] + phi[j] - x[j] for j in range(N)]
    return x


def exact_diffusion(gradient, x):
    """x⁺ = Π(2x − x₋₁ − α(g − g₋₁)), the first step Π(x − αg)."""
    g = [gradient(j, x[j], 0) for j in range(N)]
    before, x = x, mixed([x[j] - ALPHA * g[j] for j in range(N)])
    for k in range(1, STEPS):
        g_before, g = g, [gradient(j, x[j], k) for j in range(N)]
        step = [2 * x[j] - before[j] - ALPHA * (g[j] - g_before[j]) for j in range(N)]
        before, x = x, mixed(step)
    return x


def push_sum(gradient, x):
    """Assran et al., Algorithm 1: every agent deals what it has to its targets and itself."""
    s, w = list(x), [1.0] * N
    targets = [[i, *(b for a, b in EDGES if a == i)] for i in range(N)]
    for k in range(STEPS):
        s = [s[j] - ALPHA * gradient(j, s[j] / w[j], k) for j in range(N)]
        new_s, new_w = [0 * x[0]] * N, [0.0] * N
        for i in range(N):
            for j in targets[i]:
                new_s[j] = new_s[j] + s[i] / len(targets[i])
                new_w[j] = new_w[j] + w[i] / len(targets[i])
        s, w = new_s, new_w
    return [s[j] / w[j] for j in range(N)]


def push_diging(gradient, x):
    """Nedić, Olshevsky & Shi, Algorithm 2, with gradients of the step they are taken in."""
    p = DIRECTED.mixing_matrix
    s, w, z = list(x), np.ones(N), list(x)
    g = [gradient(j, z[j], 0) for j in range(N)]
    y = g
    for k in range(STEPS):
        s = mixed([s[j] - ALPHA * y[j] for j in range(N)], p)
        w = p @ w
        z = [s[j] / w[j] for j in range(N)]
        g_before, g = g, [gradient(j, z[j], k + 1) for j in range(N)]
        y = [m + g[j] - g_before[j] for j, m in enumerate(mixed(y, p))]
    return z


def relay(gradient, x):
    """Vogels et al., Algorithm 1: sums along the tree with their counts, from the start x⁰."""
    start = x[0]
    sums, counts = {}, {}
    for k in range(STEPS):
        x = [x[j] - ALPHA * gradient(j, x[j], k) for j in range(N)]
        new_sums, new_counts = {}, {}
        for i in range(N):
            for j in TREE[i]:
                others = [a for a in TREE[i] if a != j and (a, i) in sums]
                new_sums[i, j] = x[i] + sum(sums[a, i] for a in others)
                new_counts[i, j] = 1 + sum(counts[a, i] for a in others)
        sums, counts = new_sums, new_counts
        x = [
            (x[i] + sum(sums[a, i] for a in TREE[i])
             + (N - 1 - sum(counts[a, i] for a in TREE[i])) * start) / N
            for i in range(N)
        ]  # fmt: skip
    return x


SGD = optax.sgd(ALPHA)
NESTEROV = optax.sgd(ETA, momentum=MU, nesterov=True)
MEAN = mixing.dense(topology.complete(N))
ALGORITHMS = {
    "outer": (cdjax.outer(SGD, NESTEROV, MIX, period=H), outer),
    "streaming": (
        cdjax.outer(SGD, optax.sgd(ETA), MIX, period=H, fragments=2, delay=2, merge=0.3),
        streaming,
    ),
    "factored": (
        cdjax.outer(SGD, optax.sgd(ETA, momentum=MU), MIX, period=H, overlapped=MIX),
        factored,
    ),
    "accelerated": (
        cdjax.accelerated_outer(SGD, MIX, period=H, learning_rate=ETA, momentum=GAMMA),
        lambda gradient, x: accelerated(gradient, x, before_mix=False),
    ),
    "accelerated, momentum before the mix": (
        cdjax.accelerated_outer(
            SGD, MIX, period=H, learning_rate=ETA, momentum=GAMMA, momentum_before_mix=True
        ),
        lambda gradient, x: accelerated(gradient, x, before_mix=True),
    ),
    "slowmo, the step size halved": (
        cdjax.slowmo(
            optax.sgd(halved), MEAN,
            learning_rate=halved, period=H, momentum=MU, slow_learning_rate=ETA,
        ),
        slowmo,
    ),
    "kgt": (cdjax.kgt(SGD, MIX, period=H, learning_rate=ETA), kgt),
    "led": (cdjax.led(SGD, MIX, period=H, gain=0.04 / ALPHA), led),
    "led of one step": (cdjax.led(SGD, MIX, period=1, gain=1 / ALPHA), exact_diffusion),
    "push_sum": (cdjax.push_sum(SGD, PUSH), push_sum),
    "relay": (cdjax.relay(SGD, TREE), relay),
}  # fmt: skip


def problem():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(N, 20, 4)) / np.sqrt(20), rng.normal(size=(N, 20))
    return a, b, rng.normal(size=4)


def result(tx, noise):
    """The evaluated parameters after all steps, with gradients that differ from step to step."""
    a, b, start = map(jnp.asarray, problem())
    x = cdjax.replicate({"main": start[:3], "rest": start[3:]}, N)
    gradient = jax.vmap(lambda x, a, b: a.T @ (a @ x - b))

    def step(k, carry):
        x, state = carry
        whole = jnp.concatenate([x["main"], x["rest"]], axis=1)
        g = gradient(whole, a, b) + noise[k]
        updates, state = tx.update({"main": g[:, :3], "rest": g[:, 3:]}, state, x)
        return optax.apply_updates(x, updates), state

    x, state = jax.lax.fori_loop(0, STEPS, step, (x, tx.init(x)))
    x = cdjax.eval_params(state, x)
    return np.concatenate([x["main"], x["rest"]], axis=1)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.sampled(3)
def test_an_algorithm_is_the_loop_of_its_reference(name, x64):
    tx, loop = ALGORITHMS[name]
    a, b, start = problem()
    noise = 0.1 * np.random.default_rng(1).normal(size=(STEPS, N, 4))
    gradient = lambda j, x, k: a[j].T @ (a[j] @ x - b[j]) + noise[k, j]  # noqa: E731
    expected = loop(gradient, [start.copy() for _ in range(N)])
    np.testing.assert_allclose(result(tx, jnp.asarray(noise)), expected, atol=1e-13)


def test_push_diging_is_the_loop_of_its_reference(x64):
    """The gradient of a step is taken at the start of it: the noise of the loop is one ahead."""
    a, b, start = problem()
    noise = 0.1 * np.random.default_rng(1).normal(size=(STEPS + 1, N, 4))
    gradient = lambda j, x, k: a[j].T @ (a[j] @ x - b[j]) + noise[k, j]  # noqa: E731
    expected = push_diging(gradient, [start.copy() for _ in range(N)])
    found = result(cdjax.push_diging(ALPHA, PUSH), jnp.asarray(noise))
    np.testing.assert_allclose(found, expected, atol=1e-13)
