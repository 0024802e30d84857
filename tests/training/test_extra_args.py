"""What a step hands on to optimizers that take the loss, and the copies that it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology, training
from tests.trees import assert_trees_close

pytestmark = pytest.mark.sampled(3)

MIX = mixing.dense(topology.ring(3))
KEY = jax.random.key(0)
PARAMS = {"w": jnp.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])}
BATCH = jnp.array([[1.0, 1.0], [2.0, 2.0], [0.0, 4.0]])


def loss_fn(params, model_state, batch, key):
    return 0.5 * jnp.sum((params["w"] - batch) ** 2), (model_state, {})


LOSSES = 0.5 * np.sum((np.asarray(PARAMS["w"]) - BATCH) ** 2, axis=1)


def stepped(tx, **options):
    state = training.init_state(PARAMS, tx, key=KEY)
    return training.train_step(loss_fn, tx, **options)(state, BATCH)[0]


@pytest.mark.slow
def test_a_plateau_of_all_agents_sees_the_mean_loss():
    tx = optax.chain(cdjax.cdsgd(0.1, MIX), optax.contrib.reduce_on_plateau())
    assert float(stepped(tx).opt_state[1].best_value) == pytest.approx(LOSSES.mean())


@pytest.mark.slow
def test_a_plateau_of_each_agent_sees_its_own_loss():
    local = cdjax.per_agent(optax.contrib.reduce_on_plateau(), stacked=["value"])
    state = stepped(optax.chain(optax.sgd(0.1), local), value="each")
    np.testing.assert_allclose(state.opt_state[1].best_value, LOSSES, rtol=1e-6)
    with pytest.raises(ValueError, match="leaf '1/value' has no axes.*stacked names"):
        stepped(local)


def test_polyaks_step_of_each_agent_is_its_loss_by_its_squared_gradient():
    tx = cdjax.per_agent(optax.polyak_sgd(), stacked=["value"])
    gradients = np.asarray(PARAMS["w"] - BATCH)
    steps = LOSSES / np.sum(gradients**2, axis=1)
    expected = PARAMS["w"] - steps[:, None] * gradients
    np.testing.assert_allclose(stepped(tx, value="each").params["w"], expected, rtol=1e-6)


def test_value_grad_and_value_fn_are_of_one_function():
    """Of the mean over agents, or of each agent with its own batch."""
    seen = {}

    def update(updates, state, params, *, value, grad, value_fn, **extra_args):
        seen.update(value=value, grad=grad, value_fn=value_fn, **extra_args)
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    stepped(tx)
    found = jax.value_and_grad(seen["value_fn"])(PARAMS)
    assert_trees_close(found, (seen["value"], seen["grad"]))
    assert float(seen["value"]) == pytest.approx(LOSSES.mean())
    stepped(tx, value="each")
    given = {name: seen[name] for name in training.OF_EACH if name not in ("value", "grad")}
    of_each = lambda params, given: jax.value_and_grad(seen["value_fn"])(params, **given)  # noqa: E731
    assert_trees_close(jax.vmap(of_each)(PARAMS, given), (seen["value"], seen["grad"]))


def test_line_searches_reach_each_agents_minimum():
    # On ½‖x − b‖² the first backtracking step of length 1 is the minimum.
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)
    tx = cdjax.per_agent(optax.chain(optax.sgd(1.0), search), stacked=training.OF_EACH)
    np.testing.assert_allclose(stepped(tx, value="each").params["w"], BATCH, atol=1e-5)


def indices():
    return jnp.zeros((2, 3, 1), jnp.int32)


def flat_loss(params, model_state, batch, key):
    return loss_fn(params, model_state, batch[0], key)


def test_local_steps_hand_each_agent_its_own_loss():
    inner = cdjax.per_agent(optax.polyak_sgd(), stacked=["value"])
    tx = cdjax.adapt_then_combine(inner, mixing.every(2, MIX))
    start = lambda: training.init_state(PARAMS, tx, key=KEY)  # noqa: E731
    loop = training.local_loop(flat_loss, inner, mix=MIX, period=2)
    step = training.train_step(flat_loss, tx, value="each")
    results = [
        f(start(), BATCH[:, None], indices(), 2)[0] for f in (loop, training.train_loop(step))
    ]
    assert_trees_close(results[0].params, results[1].params)


@pytest.mark.parametrize("name", ["params", "key", "noise", "momentum"])
@pytest.mark.sampled(4)
def test_runs_leave_their_arguments_to_the_caller(name):
    given = {"params": jnp.ones((3, 2)), "key": jax.random.key(1), "noise": jax.random.key(2)}
    given["momentum"] = jnp.array(0.9)

    def tx():
        noise = optax.add_noise(0.1, 0.5, given["noise"])
        return optax.chain(noise, cdjax.cdmsgd(0.1, MIX, momentum=given["momentum"]))

    for _ in range(2):
        state = training.init_state({"w": given["params"]}, tx(), key=given["key"])
        training.train_loop(training.train_step(flat_loss, tx()))(
            state, BATCH[:, None], indices(), 2
        )
    assert not given[name].is_deleted()
