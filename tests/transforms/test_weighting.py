import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import assert_trees_close, quadratic_gradients, random_stacked_tree, train

pytestmark = pytest.mark.sampled(3)


def loss(w, features, targets):
    return jnp.mean((features @ w - targets) ** 2)


@pytest.mark.parametrize("inner", [optax.sgd(0.1, momentum=0.9), optax.adam(0.1)])
def test_averaging_is_one_model_on_the_large_batch(inner, x64):
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(5, 8, 3)), rng.normal(size=(5, 8))
    tx = optax.chain(cdjax.average_updates(), inner)
    gradients = lambda w: jax.vmap(jax.grad(loss))(w, features, targets)  # noqa: E731
    agents, _ = train(tx, gradients, jnp.ones((5, 3)), 20)
    large = lambda w: jax.grad(loss)(w, features.reshape(40, 3), targets.reshape(40))  # noqa: E731
    one, _ = train(inner, large, jnp.ones(3), 20)
    np.testing.assert_allclose(agents, np.tile(one, (5, 1)), atol=1e-13)


def test_averaging_keeps_agents_exactly_equal():
    noise = jax.random.normal(jax.random.key(0), (3, 7))
    tx = optax.chain(cdjax.average_updates(jnp.array([1, 5, 3])), optax.sgd(0.1))
    start = cdjax.replicate(jnp.linspace(0.1, 1, 7), 3)
    trained, _ = train(tx, lambda x: x * noise, start, 10)
    np.testing.assert_array_equal(trained, np.tile(trained[0], (3, 1)))


@pytest.mark.slow
def test_sizes_as_weights_make_the_mean_over_samples(x64):
    sizes, tree = np.array([1, 2, 5]), random_stacked_tree(3)
    averaged, _ = cdjax.average_updates(sizes).update(tree, optax.EmptyState())
    repeated = jax.tree.map(lambda x: jnp.repeat(x, sizes, axis=0), tree)
    expected = cdjax.replicate(cdjax.mean_params(repeated), 3)
    assert_trees_close(averaged, expected, atol=1e-14)


def test_the_average_of_one_agent_is_itself():
    tree = random_stacked_tree(1)
    averaged, _ = cdjax.average_updates().update(tree, optax.EmptyState())
    assert_trees_close(averaged, tree, rtol=0, atol=0)


def test_bfloat16_is_summed_in_float32():
    x = jnp.concatenate([jnp.full(1, 256, jnp.bfloat16), jnp.ones(511, jnp.bfloat16)])
    averaged, _ = cdjax.average_updates().update(x, optax.EmptyState())
    np.testing.assert_allclose(np.asarray(averaged, float), 767 / 512, rtol=2**-8)


def test_weights_by_size_find_the_optimum_of_all_samples(x64):
    centers, sizes = np.array([0.0, 1.0, 5.0]), np.array([10, 30, 20])
    mix = mixing.dense(topology.complete(3))
    atc = cdjax.adapt_then_combine(optax.sgd(0.1), mix)
    tx = optax.chain(cdjax.scale_by_agent(jnp.asarray(sizes / sizes.mean())), atc)
    x, _ = train(tx, quadratic_gradients(centers), jnp.zeros(3), 500)
    assert float(x.mean()) == pytest.approx(np.average(centers, weights=sizes), abs=1e-10)


@pytest.mark.parametrize(
    ("make", "weights", "message"),
    [
        (
            cdjax.average_updates,
            [[1.0]],
            r"weights has shape \(1, 1\); expected one number per agent",
        ),
        (cdjax.scale_by_agent, np.ones((2, 2)), r"weights has shape \(2, 2\); expected one number"),
        (cdjax.average_updates, np.array([1.0, 0.0]), r"weights is \[1. 0.\]; .* in \(0, inf\)"),
    ],
)
def test_bad_weights_are_named(make, weights, message):
    with pytest.raises(ValueError, match=message):
        make(jnp.asarray(weights))


@pytest.mark.parametrize("make", [cdjax.average_updates, cdjax.scale_by_agent])
def test_another_number_of_agents_is_named(make):
    with pytest.raises(ValueError, match="leading axis 4, but weights has 3 agents"):
        make(jnp.ones(3)).update({"w": jnp.ones((4, 2))}, optax.EmptyState())
