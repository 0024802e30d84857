"""Bias correction and momentum for unequal data: what the rules promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, trajectory

pytestmark = pytest.mark.sampled(3)

GRAPH = topology.ring(5)
W = GRAPH.mixing_matrix
MIX = mixing.dense(GRAPH)
CENTERS, CURVATURES = np.arange(5.0), np.arange(1, 6) / 3
GRADIENT = quadratic_gradients(CENTERS, CURVATURES)


def iterates(tx, num_steps=50, start=0.0):
    x, states = trajectory(tx, GRADIENT, jnp.zeros(5) + jnp.asarray(start), num_steps)
    return jax.vmap(cdjax.eval_params)(states, x)


def ignore_params(tx):
    """The updates that a transformation makes of given ones, of shape (steps, N)."""

    def outputs(updates):
        step = lambda state, u: tx.update(u, state)[::-1]  # noqa: E731
        return jax.lax.scan(step, tx.init(updates[0]), updates)[1]

    return outputs


@pytest.mark.parametrize("combined", [False, True])
def test_the_mean_of_the_estimates_is_that_of_the_gradients_in_every_step(combined, x64):
    mix = mixing.cycle(MIX, mixing.dense(topology.path(5)), mixing.dense(topology.star(5)))
    gradients = np.random.default_rng(0).normal(size=(60, 5))
    estimates = ignore_params(cdjax.tracking(mix, combined=combined))(jnp.asarray(gradients))
    np.testing.assert_allclose(estimates.mean(axis=1), gradients.mean(axis=1), atol=1e-14)


def test_tracking_starts_from_the_own_gradient_and_ends_at_the_mean_of_constant_ones(x64):
    gradients = jnp.tile(jnp.arange(5.0), (80, 1))
    estimates = ignore_params(cdjax.tracking(MIX))(gradients)
    np.testing.assert_array_equal(estimates[0], np.arange(5.0))
    np.testing.assert_allclose(estimates[-1], 2.0, atol=1e-12)


def test_signs_are_averaged_to_the_median_and_tracked_to_the_mean(x64):
    everybody = mixing.dense(topology.complete(3))
    gradient = quadratic_gradients([0.0, 0.0, 3.0])
    sign = optax.chain(
        optax.scale_by_sign(), optax.scale_by_learning_rate(lambda k: 0.5 * (k + 1.0) ** -0.6)
    )
    ends = {
        name: trajectory(cdjax.adapt_then_combine(tx, everybody), gradient, jnp.ones(3) / 2, 20_000)
        for name, tx in {
            "averaged": sign,
            "tracked": optax.chain(cdjax.tracking(everybody, combined=True), sign),
        }.items()
    }
    np.testing.assert_allclose(ends["averaged"][0][-1], 0.0, atol=2e-3)
    np.testing.assert_allclose(ends["tracked"][0][-1], 1.0, atol=2e-3)


def test_momentum_tracking_is_tracking_around_momentum_as_long_as_the_weights_stay(x64):
    def around(mix):
        sgd = optax.sgd(0.05, momentum=0.8)
        return optax.chain(cdjax.tracking(mix), sgd, cdjax.consensus(mix))

    ours = functools.partial(cdjax.momentum_tracking, 0.05, momentum=0.8)
    np.testing.assert_allclose(iterates(ours(MIX)), iterates(around(MIX)), atol=1e-13)
    changing = mixing.cycle(MIX, mixing.dense(topology.path(5)))
    assert np.abs(iterates(ours(changing)) - iterates(around(changing))).max() > 1e-3


def test_extra_is_cdsgd_less_half_of_all_disagreement_so_far(x64):
    x = np.concatenate([np.zeros((1, 5)), iterates(cdjax.extra(0.1, MIX))])
    for k in range(50):
        gradient = CURVATURES * (x[k] - CENTERS)
        expected = W @ x[k] - 0.1 * gradient - (np.eye(5) - W) @ x[:k].sum(axis=0) / 2
        np.testing.assert_allclose(x[k + 1], expected, atol=1e-13)


@pytest.mark.parametrize(
    ("form", "tx"),
    [
        ("exact-diffusion", cdjax.exact_diffusion(0.1, MIX)),
        ("extra", cdjax.extra(0.1, MIX)),
        ("atc-tracking", cdjax.gradient_tracking(0.1, MIX, form="atc")),
        ("diging", cdjax.gradient_tracking(0.1, MIX)),
    ],
)
def test_the_rows_of_suda_are_the_algorithms(form, tx, x64):
    ours = iterates(cdjax.suda(0.1, MIX, form=form))
    np.testing.assert_allclose(ours, iterates(tx), atol=1e-13, rtol=0)


@pytest.mark.parametrize("smallest", [-0.8, -1 / 3, topology.ring(8).smallest_eigenvalue])
def test_d2_refuses_a_matrix_on_which_it_diverges(smallest):
    with pytest.raises(ValueError, match=r"smallest_eigenvalue is -0\.\d+; d2 diverges unless"):
        cdjax.d2(0.1, MIX, smallest_eigenvalue=smallest)


@pytest.mark.parametrize(("smallest", "grows"), [(-0.34, True), (-0.33, False)])
def test_disagreement_in_d2_grows_below_minus_a_third(smallest, grows, x64):
    own = (1 + smallest) / 2
    pair = topology.from_matrix([[own, 1 - own], [1 - own, own]])
    assert pair.smallest_eigenvalue == pytest.approx(smallest)
    tx = cdjax.adapt_correct_combine(optax.sgd(0.0), mixing.dense(pair))
    x, _ = trajectory(tx, jnp.zeros_like, jnp.array([1.0, -1.0]), 3000)
    assert (np.abs(x[-1]).max() > 1e3) == grows


def test_corrections_sum_to_zero_whatever_the_step_sizes(x64):
    rates = lambda k: 0.1 * jnp.arange(1, 6) / (k + 1)  # noqa: E731
    for make in (cdjax.exact_diffusion, cdjax.extra, cdjax.gradient_tracking):
        _, states = trajectory(make(rates, MIX), GRADIENT, jnp.arange(5.0), 30)
        ((_, correction),) = optax.tree.get_all_with_path(states, "correction")
        np.testing.assert_allclose(correction.sum(axis=1), 0, atol=1e-13)


def test_without_momentum_quasi_global_is_adapt_then_combine_and_its_buffer_the_last_move(x64):
    plain = iterates(cdjax.adapt_then_combine(optax.sgd(0.1), MIX))
    x = np.concatenate([np.zeros((1, 5)), plain])
    moves = (x[:-1] - x[1:]) / 0.1
    for decay in (None, 0.9):
        tx = cdjax.quasi_global_momentum(0.1, MIX, momentum=0.0, buffer_decay=decay)
        stored, states = trajectory(tx, GRADIENT, jnp.zeros(5), 50)
        np.testing.assert_allclose(stored, plain, atol=1e-14)
        weights = (1 - (decay or 0)) * (decay or 0.0) ** np.arange(49, -1, -1.0)
        np.testing.assert_allclose(states.momentum[-1], weights @ moves, atol=1e-13)


def test_the_weight_of_the_quasi_global_buffer_is_apart_from_the_momentum(x64):
    tied = iterates(cdjax.quasi_global_momentum(0.1, MIX, momentum=0.5))
    released = iterates(cdjax.quasi_global_momentum(0.1, MIX, momentum=0.5, buffer_decay=0.9))
    assert np.abs(tied - released).max() > 0.01


def test_decentlam_is_the_heavy_ball_on_what_adapt_then_combine_does(x64):
    x, v = np.zeros(5), np.zeros(5)
    for after in iterates(cdjax.decentlam(0.1, MIX, momentum=0.9)):
        v = 0.9 * v + W @ (x - 0.1 * CURVATURES * (x - CENTERS)) - x
        x = x + v
        np.testing.assert_allclose(after, x, atol=1e-13)


def test_g_cdsgd_weighs_a_step_of_its_own_against_an_exchange(x64):
    x = np.arange(5.0)
    for after in iterates(cdjax.gcdsgd(0.1, MIX, own_weight=0.3), start=np.arange(5.0)):
        x = 0.7 * W @ x + 0.3 * (x - 0.1 * CURVATURES * (x - CENTERS))
        np.testing.assert_allclose(after, x, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "alone"),
    [
        (cdjax.gradient_tracking, optax.sgd(0.1)),
        (cdjax.exact_diffusion, optax.sgd(0.1)),
        (functools.partial(cdjax.d2, smallest_eigenvalue=1.0), optax.sgd(0.1)),
        (cdjax.extra, optax.sgd(0.1)),
        (cdjax.suda, optax.sgd(0.1)),
        (lambda lr, mix: cdjax.combine_then_adapt(optax.sgd(lr), mix), optax.sgd(0.1)),
        (cdjax.momentum_tracking, optax.sgd(0.1, momentum=0.9)),
        (cdjax.decentlam, optax.sgd(0.1, momentum=0.9)),
    ],
)
def test_one_agent_is_the_plain_optimizer(make, alone, x64):
    gradient, x = quadratic_gradients(3.0, 0.7), jnp.zeros(1)
    tx = make(0.1, mixing.dense(topology.ring(1)))
    ours, _ = trajectory(tx, gradient, x, 30)
    theirs, _ = trajectory(alone, gradient, x, 30)
    np.testing.assert_allclose(ours, theirs, atol=1e-13)


def test_the_first_step_of_quasi_global_adam_is_that_of_adam(x64):
    ours = iterates(cdjax.quasi_global_adam(0.1, MIX), num_steps=1)
    adam = iterates(cdjax.adapt_then_combine(optax.adam(0.1), MIX), num_steps=1)
    np.testing.assert_allclose(ours, adam, atol=1e-14)


@pytest.mark.parametrize(
    "make", [cdjax.decentlam, cdjax.quasi_global_momentum, cdjax.quasi_global_adam]
)
def test_a_step_of_size_zero_mixes_and_leaves_finite_numbers(make, x64):
    warm_up = lambda k: 0.01 * k  # noqa: E731
    x = iterates(make(warm_up, MIX), num_steps=3, start=np.arange(5.0))
    np.testing.assert_allclose(x[0], W @ np.arange(5.0), atol=1e-15)
    assert np.isfinite(x).all()


def test_the_memory_of_extra_does_not_stop_growing_in_bfloat16():
    params = jnp.asarray([0.0, 2.0], jnp.bfloat16)
    tx = cdjax.corrected_consensus(mixing.dense(topology.ring(2)))
    zeros = jnp.zeros_like(params)
    step = lambda _, state: tx.update(zeros, state, params)[1]  # noqa: E731
    state = jax.lax.fori_loop(0, 600, step, tx.init(params))
    np.testing.assert_allclose(state.correction, [300, -300])
