from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, train

pytestmark = pytest.mark.sampled(2)


@partial(jax.jit, static_argnums=0)
def round_robin_matrix(num_agents, learning_rate, moving_rate):
    """The linear map of one step on ½x², of agents and centre, column by column."""
    tx = cdjax.elastic_averaging(
        optax.sgd(learning_rate),
        beta=moving_rate * num_agents,
        period=1,
        clocks=np.zeros(num_agents, int),
    )

    def step(agents_and_center):
        x, center = agents_and_center[:-1], agents_and_center[-1]
        updates, state = tx.update(x, tx.init(x)._replace(center=center), x)
        return jnp.append(x + updates, state.center)

    return jax.vmap(step, in_axes=1, out_axes=1)(jnp.eye(num_agents + 1))


def spectral_radius(*args):
    return np.max(np.abs(np.linalg.eigvals(round_robin_matrix(*args))))


def test_synchronous_is_cdsgd_on_a_star_whose_hub_has_no_gradient(x64):
    laplacian, a = np.eye(6), 0.9 / 5
    laplacian[0] = laplacian[:, 0] = [5, -1, -1, -1, -1, -1]
    mix = mixing.dense(topology.from_matrix(np.eye(6) - a * laplacian, validate=False))
    centers, curvatures = np.arange(5.0), np.linspace(0.5, 2, 5)
    hub_first = quadratic_gradients(np.append(0, centers), np.append(0, curvatures))
    on_star, _ = train(cdjax.cdsgd(0.1, mix), hub_first, jnp.zeros(6), 50)
    gradient = quadratic_gradients(centers, curvatures)
    x, state = train(cdjax.easgd(0.1, period=1), gradient, jnp.zeros(5), 50)
    np.testing.assert_allclose(np.append(state.center, x), on_star, atol=1e-13)


@pytest.mark.parametrize("learning_rate", [0.0, 0.1, 1.0, 1.9, 2.0])
@pytest.mark.parametrize("num_agents", [1, 3, 5])
def test_round_robin_is_stable_up_to_the_published_bound(num_agents, learning_rate, x64):
    bound = (4 - 2 * learning_rate) / (4 - learning_rate)
    radii = [
        spectral_radius(num_agents, learning_rate, moving_rate)
        for moving_rate in (0, bound / 2, bound, bound + 1e-3)
    ]
    assert max(radii[:3]) <= 1 + 1e-9
    assert radii[2] == pytest.approx(1, abs=1e-9)
    assert radii[3] > 1 + 1e-4


@pytest.mark.parametrize("num_agents", [1, 2, 5, 8])
@pytest.mark.parametrize("learning_rate", [-1e-3, 2 + 1e-3])
def test_round_robin_diverges_with_a_step_out_of_range(num_agents, learning_rate, x64):
    assert spectral_radius(num_agents, learning_rate, 0.0) == pytest.approx(1.001, abs=1e-9)


@pytest.mark.parametrize("num_agents", [2, 4, 8])
def test_round_robin_of_an_even_number_is_stable_within_the_bound(num_agents, x64):
    for learning_rate in np.linspace(0, 2, 5):
        for moving_rate in np.linspace(0, (4 - 2 * learning_rate) / (4 - learning_rate), 4):
            assert spectral_radius(num_agents, learning_rate, moving_rate) <= 1 + 1e-9


def test_exchanges_conserve_the_sum_of_agents_and_center(x64):
    for clocks in (None, np.arange(4)):
        tx = cdjax.easgd(0.0, beta=0.7, period=3, clocks=clocks)
        x, state = train(tx, jnp.zeros_like, jnp.arange(4.0), 20)
        assert float(jnp.sum(x) + state.center) == pytest.approx(6 + 1.5, abs=1e-13)
        assert np.ptp(x) < 2.9


def test_agents_exchange_when_their_own_clock_says(x64):
    x = jnp.arange(4.0)
    tx = cdjax.easgd(0.0, period=4, clocks=np.array([0, 3, 2, 2]))
    for num_steps, moved in enumerate([[0], [0, 1], [0, 1, 2, 3]], start=1):
        after, _ = train(tx, jnp.zeros_like, x, num_steps)
        assert np.flatnonzero(np.asarray(after != x)).tolist() == moved


def test_without_springs_it_is_the_inner_optimizer(x64):
    gradient, x = quadratic_gradients(np.arange(3.0)), jnp.ones(3)
    tx = cdjax.elastic_averaging(optax.adam(0.1), beta=0.0, period=1)
    ours, theirs = (train(t, gradient, x, 10)[0] for t in (tx, optax.adam(0.1)))
    np.testing.assert_allclose(ours, theirs, atol=1e-15)
    eamsgd = cdjax.eamsgd(0.1, momentum=0.9, beta=0.0)
    ours, theirs = (
        train(t, gradient, x, 10)[0] for t in (eamsgd, optax.sgd(0.1, 0.9, nesterov=True))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-14)


def test_one_agent_is_tied_to_its_center(x64):
    x, state = train(cdjax.easgd(0.1, beta=0.5, period=1), lambda x: x, jnp.ones(1), 7)
    both = np.linalg.matrix_power([[0.4, 0.5], [0.5, 0.5]], 7) @ [1, 1]
    np.testing.assert_allclose([x[0], state.center], both, atol=1e-14)


def test_without_momentum_eamsgd_is_easgd(x64):
    gradient, clocks = quadratic_gradients(np.arange(4.0)), np.arange(4)
    (x, state), (y, other) = (
        train(tx, gradient, jnp.zeros(4), 30)
        for tx in (cdjax.easgd(0.1, clocks=clocks), cdjax.eamsgd(0.1, momentum=0.0, clocks=clocks))
    )
    np.testing.assert_allclose(x, y, atol=1e-14)
    np.testing.assert_allclose(state.center, other.center, atol=1e-14)


def test_the_elastic_term_stays_out_of_the_velocity(x64):
    tx = cdjax.eamsgd(0.0, momentum=0.9, beta=0.5, period=1)
    x, state = train(tx, jnp.zeros_like, jnp.array([0.0, 4.0]), 1)
    np.testing.assert_array_equal(x, [0 + 0.25 * 2, 4 - 0.25 * 2])
    np.testing.assert_array_equal(state.inner.velocity, [0, 0])


def test_the_center_finds_the_optimum_of_the_mean_loss(x64):
    tx = cdjax.easgd(0.1, beta=0.9, period=1)
    _, state = train(tx, quadratic_gradients(np.array([0.0, 1.0, 5.0])), jnp.zeros(3), 500)
    assert float(cdjax.server_params(state)) == pytest.approx(2, abs=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, r"beta is -1.0; it must lie in \[0, inf\)"),
        ({"period": 0}, r"period is 0; it must lie in \[1, inf\)"),
    ],
)
@pytest.mark.parametrize("transform", [cdjax.easgd, cdjax.eamsgd])
def test_arguments_out_of_range_are_named(transform, options, message):
    with pytest.raises(ValueError, match=message):
        transform(0.1, **options)
