"""Loops of rounds against the loop of steps with the transformation that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import data, mixing, topology, training
from cdjax.training._rounds import _block_size
from tests.slow import slow
from tests.trees import assert_trees_close

NUM_AGENTS, KEY = 6, jax.random.key(3)
OWN_STEPS = np.array([1, 2, 3, 4, 2, 1])
# Dispatches that begin and end within rounds and at their ends, and one of no step.
DISPATCHES = (2, 5, 0, 7, 6)
CLIPPED = cdjax.per_agent(optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(0.2, momentum=0.9)))
HALF = {"fraction": 0.5, "key": KEY}
SIZES = {"weights": np.arange(1.0, 7.0)}


def agent_loss(params, model_state, batch, key):
    """Cross entropy with noise that tells agents and steps apart, and a count of its calls."""
    noise = 0.1 * jax.random.normal(key, (3,))
    logits = batch.images @ params["kernel"] + (params["bias"] + noise)[None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()
    return loss, ({"calls": model_state["calls"] + 1}, {"twice": 2 * loss})


def problem():
    rng = np.random.default_rng(0)
    samples = data.AgentData(
        rng.normal(size=(NUM_AGENTS, 12, 5)), rng.integers(3, size=(NUM_AGENTS, 12))
    )
    params = {
        "kernel": rng.normal(size=(NUM_AGENTS, 5, 3)),
        "bias": rng.normal(size=(NUM_AGENTS, 3)),
    }
    return samples, params


def dispatched(loop, tx):
    """The states and metrics after every dispatch."""
    samples, params = problem()
    order = {"first_step": 0, "num_steps": sum(DISPATCHES), "seed": 0}
    indices = data.batch_indices([12] * NUM_AGENTS, 4, **order)
    calls = {"calls": jnp.zeros((NUM_AGENTS, 1))}
    state = training.init_state(params, tx, key=KEY, model_state=calls)
    done = 0
    for num_steps in DISPATCHES:
        rest = np.roll(indices, -done, axis=0)
        state, rows = loop(state, samples, rest, num_steps)
        done += num_steps
        yield jax.tree.map(np.asarray, state._replace(key=0)), rows


def assert_same_numbers(loop, tx):
    reference = training.train_loop(training.train_step(agent_loss, tx))
    for (ours, rows), (theirs, all_rows) in zip(
        dispatched(loop, tx), dispatched(reference, tx), strict=True
    ):
        trained = rows.pop("trained", True)
        all_rows = jax.tree.map(lambda x: jnp.where(trained, x, 0), all_rows)  # noqa: B023
        assert_trees_close(rows, all_rows, atol=1e-12)
        # A loss of its own model state is computed for agents that rest, and not for them here.
        assert_trees_close(
            ours._replace(model_state={}), theirs._replace(model_state={}), atol=1e-12
        )
    return ours


@pytest.mark.parametrize("plan", ["auto", *slow("map")])
@pytest.mark.parametrize(
    ("inner", "rounds"),
    [
        (optax.adam(0.05), {"local_steps": 3, **HALF}),
        *slow(
            (optax.adam(0.05), {"local_steps": 3}),
            (CLIPPED, {"local_steps": OWN_STEPS, **SIZES, **HALF}),
            (optax.sgd(0.1), {"local_steps": OWN_STEPS, **SIZES}),
            (optax.sgd(0.1), {"local_steps": 1, "fraction": 0.0, "key": KEY}),
        ),
    ],
)
@pytest.mark.slow
def test_a_loop_of_clients_is_the_loop_of_steps_with_fedavg(inner, rounds, plan, x64):
    loop = training.fedavg_loop(agent_loss, inner, plan=plan, **rounds)
    assert_same_numbers(loop, cdjax.fedavg(inner, **rounds))


@pytest.mark.parametrize(
    ("inner", "plan"), [(optax.adam(0.05), "map"), *slow((CLIPPED, "auto"), (CLIPPED, "map"))]
)
@pytest.mark.slow
def test_a_loop_of_local_steps_is_the_loop_of_steps_that_mixes_now_and_then(inner, plan, x64):
    pairs = mixing.random_pairs(topology.ring(NUM_AGENTS), KEY)
    mix = mixing.pull(pairs)
    loop = training.local_loop(agent_loss, inner, mix=mix, period=4, plan=plan)
    tx = cdjax.adapt_then_combine(inner, mixing.every(4, mix))
    state = assert_same_numbers(loop, tx)
    np.testing.assert_array_equal(state.model_state["calls"], sum(DISPATCHES))


def test_agents_step_in_blocks_that_the_cache_holds():
    one_agent = ({"kernel": jax.ShapeDtypeStruct((110_000,), jnp.float32)}, {}, (), ())
    sizes = {plan: [_block_size(lambda *args: args, one_agent, n, plan=plan) for n in (10, 100, 7)]
             for plan in ("auto", "vmap", "map")}  # fmt: skip
    assert sizes == {"auto": [5, 5, 1], "vmap": [10, 100, 7], "map": [1, 1, 1]}


@pytest.mark.slow
def test_agents_that_are_not_drawn_compute_nothing_and_keep_their_states():
    samples, params = problem()
    inner, rounds = optax.sgd(0.1, momentum=0.9), {"local_steps": 2, **HALF}
    tx = cdjax.fedavg(inner, **rounds)
    loop = training.fedavg_loop(agent_loss, inner, **rounds)
    indices = np.zeros((2, NUM_AGENTS, 4), np.int32)
    calls = {"calls": jnp.zeros((NUM_AGENTS, 1))}
    start = training.init_state(params, tx, key=KEY, model_state=calls)
    trained = np.asarray(loop(start, samples, indices, 2)[1]["trained"])
    assert trained.sum(axis=1).tolist() == [3, 3]
    resting = ~trained[0]
    # Samples that are not a number would show in whatever is computed from them.
    samples.images[resting] = np.nan
    start = training.init_state(params, tx, key=KEY, model_state=calls)
    state, rows = loop(start, samples, indices, 2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, rows)))
    trace = state.opt_state.inner.inner[0].trace["kernel"]
    assert not np.any(trace[resting]) and np.all(np.any(trace[~resting], axis=(1, 2)))
    np.testing.assert_array_equal(state.model_state["calls"][:, 0], 2 * trained[0])
    np.testing.assert_array_equal(state.params["kernel"], state.params["kernel"][:1].repeat(6, 0))


def test_a_state_of_another_transformation_is_refused():
    samples, params = problem()
    loop = training.fedavg_loop(agent_loss, optax.sgd(0.1), local_steps=2)
    state = training.init_state(params, optax.sgd(0.1), key=KEY)
    with pytest.raises(ValueError, match="state.opt_state is a tuple; expected the state of"):
        loop(state, samples, np.zeros((2, NUM_AGENTS, 4), np.int32), 2)


def test_a_bad_plan_or_period_is_named():
    with pytest.raises(ValueError, match="period is 0"):
        training.local_loop(
            agent_loss, optax.sgd(0.1), mix=mixing.dense(topology.ring(6)), period=0
        )
    with pytest.raises(ValueError, match="best"):
        training.fedavg_loop(agent_loss, optax.sgd(0.1), local_steps=1, plan="best")


@pytest.mark.parametrize("rounds_of", ["fedavg", "local"])
def test_rounds_measure_no_norms_of_gradients_that_are_not_wanted(rounds_of):
    sgd, mix = optax.sgd(0.1), mixing.neighbors(topology.ring(NUM_AGENTS))
    options = {"local_steps": 5, **HALF}
    tx, loop_of = {
        "fedavg": (
            cdjax.fedavg(sgd, **options),
            lambda **more: training.fedavg_loop(agent_loss, sgd, **options, **more),
        ),
        "local": (
            cdjax.adapt_then_combine(sgd, mixing.every(5, mix)),
            lambda **more: training.local_loop(agent_loss, sgd, mix=mix, period=5, **more),
        ),
    }[rounds_of]
    measured, plain = (list(dispatched(loop_of(gradient_norm=norm), tx)) for norm in (True, False))
    for (with_norm, rows), (without, fewer) in zip(measured, plain, strict=True):
        assert set(rows) - set(fewer) == {"gradient_norm"}
        assert_trees_close(without, with_norm, rtol=1e-6)
