import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from tests.trees import assert_trees_close, quadratic_gradients, random_stacked_tree, train


@pytest.mark.parametrize("initial", [0.0, 0.1])
def test_one_agent_that_pushes_and_fetches_always_is_adagrad(initial, x64):
    tree = random_stacked_tree(1)
    gradient = lambda tree: jax.tree.map(jnp.sin, tree)  # noqa: E731
    schedule = lambda step: 0.1 / (1 + step)  # noqa: E731
    ours, _ = train(
        cdjax.downpour(0.5, schedule, initial_sum_of_squares=initial), gradient, tree, 50
    )
    adagrad = optax.adagrad(schedule, initial_accumulator_value=initial, eps=0.0)
    theirs, _ = train(adagrad, gradient, tree, 50)
    assert_trees_close(ours, theirs, atol=1e-13)


def test_with_both_periods_one_agents_hold_the_servers_parameters(x64):
    tx = cdjax.downpour(0.5, 0.1, clocks=np.arange(4))
    x, state = train(tx, quadratic_gradients(np.arange(4.0)), jnp.zeros(4), 20)
    np.testing.assert_allclose(x, np.full(4, state.server), atol=1e-14)


def test_pushes_of_one_step_come_one_after_another(x64):
    tx = cdjax.downpour(0.0, 1.0)
    _, state = train(tx, lambda x: jnp.array([3.0, 4.0, -12.0]), jnp.zeros(3), 1)
    assert float(state.server) == pytest.approx(-(3 / 3 + 4 / 5 - 12 / 13), abs=1e-14)
    assert float(state.sums_of_squares) == pytest.approx(13**2, abs=1e-12)


def test_gradients_wait_until_they_are_pushed(x64):
    tx = cdjax.downpour(0.0, 0.1, push_period=3, clocks=np.array([1, 2]))
    _, state = train(tx, lambda x: jnp.array([1.0, 10.0]), jnp.zeros(2), 1)
    np.testing.assert_array_equal(state.accrued, [1, 10])
    assert float(state.server) == 0
    _, state = train(tx, lambda x: jnp.array([1.0, 10.0]), jnp.zeros(2), 3)
    np.testing.assert_array_equal(state.accrued, [0, 10])
    assert float(state.sums_of_squares) == 20**2 + 3**2


def test_agents_step_by_themselves_between_fetches(x64):
    gradient = lambda x: x - jnp.array([1.0, 2.0])  # noqa: E731
    tx = cdjax.downpour(0.1, 0.0, fetch_period=4, push_period=4)
    x, state = train(tx, gradient, jnp.zeros(2), 3)
    np.testing.assert_allclose(x, (1 - 0.9**3) * np.array([1, 2]), atol=1e-15)
    x, state = train(tx, gradient, jnp.zeros(2), 4)
    np.testing.assert_array_equal(x, np.full(2, state.server))


def test_parameters_without_a_gradient_stay():
    x, state = train(cdjax.downpour(0.1, 0.1), jnp.zeros_like, jnp.ones((2, 3)), 3)
    np.testing.assert_array_equal(x, np.ones((2, 3)))
    np.testing.assert_array_equal(state.server, np.ones(3))


def test_the_sums_of_bfloat16_parameters_are_float32():
    tx, x = cdjax.downpour(0.1, 0.1), jnp.ones((3, 2), jnp.bfloat16)
    x, state = train(tx, jnp.ones_like, x, 100)
    assert (x.dtype, state.server.dtype) == (jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(state.sums_of_squares, np.float32([300, 300]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server_learning_rate": -1.0}, r"server_learning_rate is -1.0; it must lie in \[0, inf"),
        ({"push_period": 0}, r"push_period is 0; it must lie in \[1, inf\)"),
        ({"fetch_period": 0}, r"fetch_period is 0; it must lie in \[1, inf\)"),
        ({"initial_sum_of_squares": -1.0}, r"initial_sum_of_squares is -1.0; it must lie in"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        cdjax.downpour(**{"learning_rate": 0.1, "server_learning_rate": 0.1} | options)
