"""The paper's rivals against loops over agents in NumPy, written from the references.

Each loop takes ``gradient(j, x, k)`` of agent j at step k and the agents' parameters, and returns
the agents' parameters at the end, and the server's where it has one.
"""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import topology
from cdjax.mixing import pull, push, random_pairs, random_peers

N, STEPS, ETA = 6, 100, 0.05
KEY = jax.random.key(3)
SIZES = np.array([10, 50, 20, 30, 40, 10])
BETA, DELTA, TAU = 0.9, 0.8, 5
CLOCKS = np.array([0, 1, 2, 3, 1, 0])
GAMMA, PUSH, FETCH = 0.02, 2, 3
# Compiled, since the loops ask for the peers of one step after another.
PEERS = jax.jit(random_peers(topology.star(N), KEY, probability=0.6))
PAIRS = jax.jit(random_pairs(topology.complete(N), KEY))


def centralized(gradient, x, num_steps):
    """One model that takes the weighted mean of the gradients."""
    model = x[0]
    for k in range(num_steps):
        mean = sum(SIZES[j] * gradient(j, model, k) for j in range(N)) / sum(SIZES)
        model = model - ETA * mean
    return [model] * N, None


def fedavg(gradient, x, num_steps):
    """McMahan et al., Algorithm 1: only the round's clients train, from the server's model."""
    server = x[0]
    for r in range(num_steps // TAU):
        draw = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, r), N))
        clients = [j for j in range(N) if draw[j] < 3]
        trained = {}
        for j in clients:
            local = server.copy()
            for k in range(r * TAU, (r + 1) * TAU):
                local = local - ETA * gradient(j, local, k)
            trained[j] = local
        total = sum(SIZES[j] for j in clients)
        server = sum(SIZES[j] / total * trained[j] for j in clients)
    return [server] * N, None


def easgd(gradient, x, num_steps):
    """Zhang et al., eqs. 5 and 6, every τ steps."""
    center, a = x[0], BETA / N
    for k in range(num_steps):
        talk = a if k % TAU == 0 else 0
        new_x = [x[j] - ETA * gradient(j, x[j], k) - talk * (x[j] - center) for j in range(N)]
        center = center + talk * sum(x[j] - center for j in range(N))
        x = new_x
    return x, center


def easgd_asynchronous(gradient, x, num_steps):
    """Zhang et al., Algorithm 1, a worker's whole iteration after another's."""
    x, center, a = list(x), x[0], BETA / N
    for k in range(num_steps):
        for j in range(N):
            old = x[j]
            if (k + CLOCKS[j]) % TAU == 0:
                x[j], center = x[j] - a * (old - center), center + a * (old - center)
            x[j] = x[j] - ETA * gradient(j, old, k)
    return x, center


def eamsgd_asynchronous(gradient, x, num_steps):
    """Zhang et al., Algorithm 2."""
    x, v, center, a = list(x), [np.zeros_like(x[0])] * N, x[0], BETA / N
    for k in range(num_steps):
        for j in range(N):
            old = x[j]
            if (k + CLOCKS[j]) % TAU == 0:
                x[j], center = x[j] - a * (old - center), center + a * (old - center)
            v[j] = DELTA * v[j] - ETA * gradient(j, old + DELTA * v[j], k)
            x[j] = x[j] + v[j]
    return x, center


def downpour(gradient, x, num_steps):
    """Dean et al., DownpourSGDClient for every agent, and Adagrad at the server."""
    x, server, sums, accrued = list(x), x[0], np.zeros_like(x[0]), [0.0] * N
    for k in range(num_steps + 1):
        for j in range(N):
            if (k + CLOCKS[j]) % FETCH == 0:
                x[j] = server
        if k == num_steps:
            return x, server
        for j in range(N):
            g = gradient(j, x[j], k)
            accrued[j] = accrued[j] + g
            x[j] = x[j] - ETA * g
            if (k + CLOCKS[j]) % PUSH == 0:
                sums = sums + accrued[j] ** 2
                server = server - GAMMA * accrued[j] / np.sqrt(sums)
                accrued[j] = 0.0


def pull_gossip(gradient, x, num_steps, peers=PEERS):
    """Jin et al.: a local step, then the average with the peer's parameters."""
    for k in range(num_steps):
        x = [x[j] - ETA * gradient(j, x[j], k) for j in range(N)]
        if (k + 1) % TAU == 0:
            peer = np.asarray(peers(k // TAU))
            x = [(x[j] + x[peer[j]]) / 2 for j in range(N)]
    return x, None


def push_gossip(gradient, x, num_steps):
    """Jin et al.: a local step, then the average of what has arrived with one's own."""
    for k in range(num_steps):
        x = [x[j] - ETA * gradient(j, x[j], k) for j in range(N)]
        if (k + 1) % TAU == 0:
            inboxes = [[x[j]] for j in range(N)]
            for sender, receiver in enumerate(np.asarray(PEERS(k // TAU))):
                if sender != receiver:
                    inboxes[receiver].append(x[sender])
            x = [np.mean(inbox, axis=0) for inbox in inboxes]
    return x, None


def gosgd(gradient, x, num_steps, delay):
    """Blot et al.: process the queue, step, push with half the weight; queues of messages."""
    x, weight, queues = list(x), [1 / N] * N, [deque() for _ in range(N)]
    for k in range(num_steps + 1):
        for j in range(N):
            while queues[j] and queues[j][0][0] <= k:
                _, message, message_weight = queues[j].popleft()
                total = weight[j] + message_weight
                x[j] = (weight[j] * x[j] + message_weight * message) / total
                weight[j] = total
        if k == num_steps:
            return x, None
        for j, receiver in enumerate(np.asarray(PEERS(k))):
            x[j] = x[j] - ETA * gradient(j, x[j], k)
            if receiver != j:
                weight[j] = weight[j] / 2
                queues[receiver].append((k + 1 + delay, x[j], weight[j]))


SGD = optax.sgd(ETA)
ALGORITHMS = {
    "centralized": (optax.chain(cdjax.average_updates(SIZES), SGD), centralized),
    "fedavg": (
        cdjax.fedavg(SGD, local_steps=TAU, fraction=0.5, weights=SIZES, key=KEY),
        fedavg,
    ),
    "easgd": (cdjax.easgd(ETA, beta=BETA, period=TAU), easgd),
    "easgd asynchronous": (
        cdjax.easgd(ETA, beta=BETA, period=TAU, clocks=CLOCKS),
        easgd_asynchronous,
    ),
    "eamsgd asynchronous": (
        cdjax.eamsgd(ETA, momentum=DELTA, beta=BETA, period=TAU, clocks=CLOCKS),
        eamsgd_asynchronous,
    ),
    "downpour": (
        cdjax.downpour(ETA, GAMMA, push_period=PUSH, fetch_period=FETCH, clocks=CLOCKS),
        downpour,
    ),
    "pull gossip": (cdjax.gossip(SGD, pull(PEERS), period=TAU), pull_gossip),
    "push gossip": (cdjax.gossip(SGD, push(PEERS), period=TAU), push_gossip),
    "pair gossip": (
        cdjax.gossip(SGD, pull(PAIRS), period=TAU),
        lambda *args: pull_gossip(*args, peers=PAIRS),
    ),
    "gosgd": (cdjax.gosgd(SGD, PEERS), lambda *args: gosgd(*args, delay=0)),
    "gosgd with delay": (cdjax.gosgd(SGD, PEERS, delay=3), lambda *args: gosgd(*args, delay=3)),
}


@pytest.mark.accelerator
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.sampled(3)
def test_least_squares_agree_to_1e_10_over_100_steps(name, x64):
    tx, loop = ALGORITHMS[name]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(N, 20, 4)) / np.sqrt(20), rng.normal(size=(STEPS, N, 20))
    start = rng.normal(size=4)
    expected, server = loop(
        lambda j, xj, k: a[j].T @ (a[j] @ xj - b[k, j]), [start.copy() for _ in range(N)], STEPS
    )
    gradient = jax.vmap(jax.grad(lambda x, a, b: 0.5 * jnp.sum((a @ x - b) ** 2)))

    def step(k, carry):
        x, state = carry
        updates, state = tx.update(gradient(x, a, jnp.asarray(b)[k]), state, x)
        return optax.apply_updates(x, updates), state

    x = cdjax.replicate(jnp.asarray(start), N)
    x, state = jax.lax.fori_loop(0, STEPS, step, (x, tx.init(x)))
    np.testing.assert_allclose(cdjax.eval_params(state, x), expected, atol=1e-10)
    if server is not None:
        np.testing.assert_allclose(cdjax.server_params(state), server, atol=1e-10)
