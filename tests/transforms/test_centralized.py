import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from tests.trees import assert_trees_close, random_stacked_tree


def loss(w, features, targets):
    return jnp.mean((features @ w - targets) ** 2)


def train(tx, gradient, params, num_steps):
    state = tx.init(params)
    for k in range(num_steps):
        updates, state = tx.update(gradient(params, k), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("inner", [optax.sgd(0.1, momentum=0.9), optax.adam(0.1)])
def test_is_one_model_on_the_large_batch(inner, x64):
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(20, 5, 8, 3)), rng.normal(size=(20, 5, 8))
    agents = train(
        optax.chain(cdjax.average_updates(), inner),
        lambda w, k: jax.vmap(jax.grad(loss))(w, features[k], targets[k]),
        jnp.ones((5, 3)),
        20,
    )
    large = lambda w, k: jax.grad(loss)(w, features[k].reshape(40, 3), targets[k].reshape(40))  # noqa: E731
    one = train(inner, large, jnp.ones(3), 20)
    np.testing.assert_allclose(agents, np.tile(one, (5, 1)), atol=1e-13)


def test_agents_stay_exactly_equal():
    params = cdjax.replicate({"w": jnp.linspace(0.1, 1, 7)}, 3)
    tx = optax.chain(cdjax.average_updates(jnp.array([1, 5, 3])), optax.sgd(0.1))
    noise = lambda p, k: jax.tree.map(  # noqa: E731
        lambda x: jax.random.normal(jax.random.key(k), x.shape), p
    )
    trained = train(tx, noise, params, 10)["w"]
    np.testing.assert_array_equal(trained, np.tile(trained[0], (3, 1)))


def test_sizes_as_weights_make_the_mean_over_samples(x64):
    sizes, tree = np.array([1, 2, 5]), random_stacked_tree(3)
    averaged, _ = cdjax.average_updates(sizes).update(tree, optax.EmptyState())
    repeated = jax.tree.map(lambda x: jnp.repeat(x, sizes, axis=0), tree)
    expected = cdjax.replicate(cdjax.mean_params(repeated), 3)
    assert_trees_close(averaged, expected, atol=1e-14)


def test_one_agent_is_the_inner_optimizer():
    tree = random_stacked_tree(1)
    averaged, _ = cdjax.average_updates().update(tree, optax.EmptyState())
    assert_trees_close(averaged, tree, rtol=0, atol=0)


def test_bfloat16_is_summed_in_float32():
    x = jnp.concatenate([jnp.full(1, 256, jnp.bfloat16), jnp.ones(511, jnp.bfloat16)])
    averaged, _ = cdjax.average_updates().update(x, optax.EmptyState())
    np.testing.assert_allclose(np.asarray(averaged, float), 767 / 512, rtol=2**-8)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0]], r"weights has shape \(1, 1\); expected one number an agent"),
        (np.array([1.0, 0.0]), r"weights is \[1. 0.\]; it must lie in \(0, inf\)"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        cdjax.average_updates(jnp.asarray(weights))


def test_another_number_of_agents_is_named():
    with pytest.raises(ValueError, match="leading axis 4, but weights has 3 agents"):
        cdjax.average_updates(jnp.ones(3)).update({"w": jnp.ones((4, 2))}, optax.EmptyState())
