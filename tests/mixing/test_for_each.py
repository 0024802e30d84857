import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, robust, topology
from tests.slow import slow

pytestmark = pytest.mark.sampled(3)

N = 5
RING = topology.ring(N)
MIXERS = {
    "auto": mixing.auto(RING),
    "dense": mixing.dense(RING),
    "cycle": mixing.cycle(mixing.dense(RING), mixing.dense(topology.complete(N))),
    "every": mixing.every(2, mixing.dense(RING)),
    "trimmed": robust.trimmed_mean(topology.complete(N), 1),
    "clipped": robust.clipped_gossip(RING, 0.5),
}


def tree_of(seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(N, 3, 2)), dtype),
        "b": jnp.asarray(rng.normal(size=(N, 2)), dtype),
        "count": jnp.arange(N),
    }


def assert_trees_close(actual, expected, rtol=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, 1e-14), actual, expected)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.sampled(4)
def test_under_vmap_it_is_the_mixer(name, jit):
    mix, tree = MIXERS[name], tree_of()
    mapped = jax.vmap(lambda tree, step: mixing.for_each(mix)(tree, step))
    for step in (0, 1):
        actual = (jax.jit(mapped) if jit else mapped)(tree, jnp.full(N, step))
        assert_trees_close(actual, mix(tree, step))
        closed = jax.vmap(lambda tree, step=step: mixing.for_each(mix)(tree, step))(tree)
        assert_trees_close(closed, mix(tree, step))


def test_agents_may_be_another_axis_than_the_first():
    tree = {"w": tree_of()["w"]}
    last = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)
    actual = jax.vmap(mixing.for_each(MIXERS["auto"]), in_axes=-1)(last)
    assert_trees_close(actual, MIXERS["auto"](tree))


def test_the_inner_vmap_is_the_one_over_agents():
    mix, runs = MIXERS["auto"], jnp.stack([tree_of(seed)["w"] for seed in range(3)])
    actual = jax.vmap(jax.vmap(mixing.for_each(mix)))(runs)
    assert_trees_close(actual, jnp.stack([mix(run) for run in runs]))


def test_a_leaf_that_all_agents_share_stays():
    def step(w, shared):
        return mixing.for_each(MIXERS["auto"])((w, shared))

    mixed, shared = jax.vmap(step, in_axes=(0, None))(tree_of()["w"], jnp.ones(2))
    assert_trees_close(mixed, MIXERS["auto"](tree_of()["w"]))
    np.testing.assert_array_equal(shared, jnp.ones((N, 2)))


@pytest.mark.parametrize("name", ["auto", *slow("clipped", "trimmed")])
@pytest.mark.parametrize("remat", [False, True])
def test_gradient_is_that_of_the_sum_of_all_agents_values(name, remat):
    mix, x, weight = MIXERS[name], tree_of()["w"], tree_of(1)["w"]

    def of_one(x, weight):
        mixed = mixing.for_each(mix)({"x": x})["x"]
        return jnp.sum(jnp.sin(mixed) * weight)

    of_one = jax.checkpoint(of_one) if remat else of_one
    actual = jax.vmap(jax.grad(of_one))(x, weight)
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(mix({"x": x})["x"]) * weight))(x)
    assert_trees_close(actual, expected)


@pytest.mark.parametrize("name", ["auto", *slow("clipped")])
def test_second_derivatives(name):
    mix, x, v = MIXERS[name], tree_of()["w"], tree_of(1)["w"]

    def of_one(x):
        return jnp.sum(jnp.cos(mixing.for_each(mix)(x)))

    actual = jax.vmap(lambda x, v: jax.jvp(jax.grad(of_one), (x,), (v,))[1])(x, v)
    of_all = jax.grad(lambda x: jnp.sum(jnp.cos(mix(x))))
    assert_trees_close(actual, jax.jvp(of_all, (x,), (v,))[1])


@pytest.mark.parametrize("make", [cdjax.cdmsgd, cdjax.cdsgd])
def test_a_whole_training_loop_of_one_agent_is_that_of_stacked_agents(make):
    params, targets = tree_of()["w"], tree_of(1)["w"]

    def loss(params, target):
        return jnp.sum(jnp.square(params - target))

    def train(tx, params, target, grad):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(grad(params, target), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=20)[0][0]

    of_one = make(0.1, mixing.for_each(MIXERS["auto"]))
    actual = jax.jit(jax.vmap(lambda x, t: train(of_one, x, t, jax.grad(loss))))(params, targets)
    of_all = make(0.1, MIXERS["auto"])
    assert_trees_close(actual, train(of_all, params, targets, jax.vmap(jax.grad(loss))))


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, lambda f: jax.vmap(lambda _: f(0.0))])
def test_without_a_vmap_over_trees_that_differ_it_raises(around):
    def mix(_):
        return mixing.for_each(MIXERS["auto"])(jnp.ones(3))

    with pytest.raises(ValueError, match="for_each takes the tree of one agent.*under jax.vmap"):
        around(mix)(jnp.ones(N))


def test_a_mixer_that_needs_the_step_asks_for_it():
    with pytest.raises(ValueError, match="cycle changes with the step"):
        jax.vmap(mixing.for_each(MIXERS["cycle"]))(tree_of())


def test_another_number_of_agents_is_named():
    with pytest.raises(ValueError, match="has leading axis 3, but the topology has 5 agents"):
        jax.vmap(mixing.for_each(MIXERS["auto"]))(jnp.ones((3, 2)))
