"""Bias-corrected and momentum rules against loops in NumPy, written from their equations.

Losses change with every batch, the step size with every step and agent, and the mixing matrix with
every step where the rule allows it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import random_connected_graph

N, STEPS, MU, RHO, B1, B2 = 7, 100, 0.6, 0.8, 0.9, 0.95
GRAPHS = [topology.from_graph(random_connected_graph(N, seed), weights="lazy") for seed in (0, 1)]
MATRICES = [graph.mixing_matrix for graph in GRAPHS]
FIXED = mixing.dense(GRAPHS[0])
CHANGING = mixing.cycle(*map(mixing.dense, GRAPHS))
SCALES = 0.5 + np.arange(N) / N


def alpha(k):
    return 0.05 * (1 + 0.5 * np.cos(k)) * SCALES[:, None]


def schedule(k):
    return 0.05 * (1 + 0.5 * jnp.cos(jnp.asarray(k, float))) * SCALES


def w(k):
    return MATRICES[k % 2]


W, I = MATRICES[0], np.eye(N)  # noqa: E741


def combine_then_adapt(g, x):
    """x ← Wx − αg(Wx)."""
    for k in range(STEPS):
        x = w(k) @ x - alpha(k) * g(k, w(k) @ x)
    return x


def icdsgd(g, x):
    """x ← W²x − αg(x), with two rounds of a changing W."""
    for k in range(STEPS):
        x = w(2 * k + 1) @ w(2 * k) @ x - alpha(k) * g(k, x)
    return x


def gcdsgd(g, x):
    """x ← (1 − ω)Wx + ω(x − αg(x))."""
    for k in range(STEPS):
        x = 0.8 * w(k) @ x + 0.2 * (x - alpha(k) * g(k, x))
    return x


def gradient_tracking(g, x, atc):
    """x⁺ = Wx − αy or W(x − αy); y⁺ = Wy + g⁺ − g."""
    y = g(0, x)
    for k in range(STEPS):
        after = w(k) @ (x - alpha(k) * y) if atc else w(k) @ x - alpha(k) * y
        y = w(k) @ y + g(k + 1, after) - g(k, x)
        x = after
    return x


def augmented(g, x):
    """Aug-DGM: x⁺ = W(x − αy); y⁺ = W(y + g⁺ − g), y_0 = Wg_0."""
    y = w(0) @ g(0, x)
    for k in range(STEPS):
        after = w(k) @ (x - alpha(k) * y)
        y = w(k + 1) @ (y + g(k + 1, after) - g(k, x))
        x = after
    return x


def momentum_tracking(g, x):
    """u ← μu + g; x⁺ = Wx − α(u − c); c ← W(c − u) + u."""
    u, c = 0 * x, 0 * x
    for k in range(STEPS):
        u = MU * u + g(k, x)
        x = w(k) @ x - alpha(k) * (u - c)
        c = w(k) @ (c - u) + u
    return x


def exact_diffusion(g, x):
    """ψ⁺ = x − αg; x⁺ = W̄(ψ⁺ + x − ψ)."""
    psi = x
    for k in range(STEPS):
        before, psi = psi, x - alpha(k) * g(k, x)
        x = (I + w(k)) / 2 @ (psi + x - before)
    return x


def d2(g, x):
    """x_{k+1} = W(2x_k − x_{k−1} − α_k g_k + α_{k−1} g_{k−1})."""
    old, old_step = x, alpha(0) * g(0, x)
    x = w(0) @ (x - old_step)
    for k in range(1, STEPS):
        step = alpha(k) * g(k, x)
        x, old, old_step = w(k) @ (2 * x - old - step + old_step), x, step
    return x


def extra(g, x):
    """x_{k+2} = (I + W)x_{k+1} − ½(I + W)x_k − α_{k+1}g_{k+1} + α_k g_k."""
    old, old_step = x, alpha(0) * g(0, x)
    x = W @ x - old_step
    for k in range(1, STEPS):
        step = alpha(k) * g(k, x)
        x, old, old_step = (I + W) @ x - (I + W) / 2 @ old - step + old_step, x, step
    return x


def suda(g, x, a, b_squared, c):
    """x ← A(Cx − αg) − z; z ← z + B²x."""
    z = 0 * x
    for k in range(STEPS):
        x = a @ (c @ x - alpha(k) * g(k, x)) - z
        z = z + b_squared @ x
    return x


def decentlam(g, x):
    """g̃ = (x − W(x − αg))/α; m ← μm + g̃; x ← x − αm."""
    m = 0 * x
    for k in range(STEPS):
        m = MU * m + (x - w(k) @ (x - alpha(k) * g(k, x))) / alpha(k)
        x = x - alpha(k) * m
    return x


def quasi_global(g, x, decay, nesterov):
    """d = g + μm; x⁺ = W(x − αd); m ← ρm + (1 − ρ)(x − x⁺)/α."""
    m = 0 * x
    for k in range(STEPS):
        d = g(k, x) + MU * m
        if nesterov:
            d = g(k, x) + MU * d
        after = w(k) @ (x - alpha(k) * d)
        m = decay * m + (1 - decay) * (x - after) / alpha(k)
        x = after
    return x


def quasi_global_adam(g, x):
    """Adam's step, whose moments are then those of the move's direction."""
    m, v = 0 * x, 0 * x
    for k in range(STEPS):
        first = (B1 * m + (1 - B1) * g(k, x)) / (1 - B1 ** (k + 1))
        second = (B2 * v + (1 - B2) * g(k, x) ** 2) / (1 - B2 ** (k + 1))
        after = w(k) @ (x - alpha(k) * first / (np.sqrt(second) + 1e-8))
        d = (x - after) / (np.linalg.norm(x - after, axis=1, keepdims=True) + 1e-8)
        m, v, x = B1 * m + (1 - B1) * d, B2 * v + (1 - B2) * d**2, after
    return x


def suda_of(a, b_squared, c):
    return lambda g, x: suda(g, x, a, b_squared, c)


LAZY, SQUARE, GAP = (I + W) / 2, W @ W, (I - W) @ (I - W)
QUASI_GLOBAL = {"momentum": MU, "buffer_decay": RHO}
ALGORITHMS = {
    "combine then adapt": (
        cdjax.combine_then_adapt(
            optax.chain(cdjax.scale_by_agent(SCALES), optax.sgd(lambda k: schedule(k)[0] * 2)),
            CHANGING,
        ),
        combine_then_adapt,
    ),
    "i-CDSGD": (cdjax.icdsgd(schedule, CHANGING, rounds=2), icdsgd),
    "g-CDSGD": (cdjax.gcdsgd(schedule, CHANGING, own_weight=0.2), gcdsgd),
    "gradient tracking, DIGing": (
        cdjax.gradient_tracking(schedule, CHANGING),
        lambda *args: gradient_tracking(*args, atc=False),
    ),
    "gradient tracking, semi-ATC": (
        cdjax.gradient_tracking(schedule, CHANGING, form="semi-atc"),
        lambda *args: gradient_tracking(*args, atc=True),
    ),
    "gradient tracking, ATC": (
        cdjax.gradient_tracking(schedule, CHANGING, form="atc"),
        augmented,
    ),
    "momentum tracking": (
        cdjax.momentum_tracking(schedule, CHANGING, momentum=MU),
        momentum_tracking,
    ),
    "exact diffusion": (cdjax.exact_diffusion(schedule, CHANGING), exact_diffusion),
    "D²": (cdjax.d2(schedule, CHANGING, smallest_eigenvalue=0.0), d2),
    "EXTRA": (cdjax.extra(schedule, FIXED), extra),
    "SUDA, exact diffusion": (cdjax.suda(schedule, FIXED), suda_of(LAZY, I - LAZY, I)),
    "SUDA, EXTRA": (cdjax.suda(schedule, FIXED, form="extra"), suda_of(I, I - LAZY, LAZY)),
    "SUDA, ATC": (cdjax.suda(schedule, FIXED, form="atc-tracking"), suda_of(SQUARE, GAP, I)),
    "SUDA, DIGing": (cdjax.suda(schedule, FIXED, form="diging"), suda_of(I, GAP, SQUARE)),
    "DecentLaM": (cdjax.decentlam(schedule, CHANGING, momentum=MU), decentlam),
    "quasi-global momentum": (
        cdjax.quasi_global_momentum(schedule, CHANGING, momentum=MU),
        lambda *args: quasi_global(*args, decay=MU, nesterov=False),
    ),
    "quasi-global momentum, Nesterov": (
        cdjax.quasi_global_momentum(schedule, CHANGING, **QUASI_GLOBAL, nesterov=True),
        lambda *args: quasi_global(*args, decay=RHO, nesterov=True),
    ),
    "quasi-global Adam": (
        cdjax.quasi_global_adam(schedule, CHANGING, b1=B1, b2=B2),
        quasi_global_adam,
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.sampled(3)
def test_least_squares_agree_to_1e_10_over_100_steps(name, x64):
    tx, loop = ALGORITHMS[name]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(N, 20, 4)) / np.sqrt(20), rng.normal(size=(STEPS + 1, N, 20))
    # From consensus: EXTRA's own first step is another one than SUDA's elsewhere.
    start = np.tile(rng.normal(size=4), (N, 1))

    def numpy_gradient(k, x):
        return np.einsum("jid,ji->jd", a, np.einsum("jid,jd->ji", a, x) - b[k])

    expected = loop(numpy_gradient, start)
    batches = jnp.asarray(b)

    def step(k, carry):
        params, state = carry
        x = jnp.concatenate([params["body"], params["head"][:, None]], axis=1)
        residuals = jnp.einsum("jid,jd->ji", a, x) - batches[k]
        g = jnp.einsum("jid,ji->jd", a, residuals)
        grads = {"body": g[:, :3], "head": g[:, 3]}
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = {"body": jnp.asarray(start[:, :3]), "head": jnp.asarray(start[:, 3])}
    params, state = jax.lax.fori_loop(0, STEPS, step, (params, tx.init(params)))
    found = cdjax.eval_params(state, params)
    np.testing.assert_allclose(found["body"], expected[:, :3], atol=1e-10)
    np.testing.assert_allclose(found["head"], expected[:, 3], atol=1e-10)
