import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients


def test_weights_by_size_find_the_optimum_of_all_samples(x64):
    centers, sizes = np.array([0.0, 1.0, 5.0]), np.array([10, 30, 20])
    mix = mixing.dense(topology.complete(3))
    atc = cdjax.adapt_then_combine(optax.sgd(0.1), mix)
    tx = optax.chain(cdjax.scale_by_agent(jnp.asarray(sizes / sizes.mean())), atc)
    x, state = jnp.zeros(3), tx.init(jnp.zeros(3))
    for _ in range(500):
        updates, state = tx.update(quadratic_gradients(centers)(x), state, x)
        x = optax.apply_updates(x, updates)
    assert float(x.mean()) == pytest.approx(np.average(centers, weights=sizes), abs=1e-10)


def test_another_number_of_agents_is_named():
    tx = cdjax.scale_by_agent(jnp.ones(3))
    with pytest.raises(ValueError, match="leading axis 4, but weights has 3 agents"):
        tx.update({"w": jnp.ones((4, 2))}, tx.init({}))


def test_weights_are_a_vector():
    with pytest.raises(ValueError, match=r"weights has shape \(2, 2\); expected one number an"):
        cdjax.scale_by_agent(jnp.ones((2, 2)))
