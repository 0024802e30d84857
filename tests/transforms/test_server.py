import jax
import jax.numpy as jnp
import optax
import pytest

import cdjax
from tests.trees import assert_trees_close, random_stacked_tree


@pytest.mark.parametrize("tx", [cdjax.easgd(0.1), cdjax.eamsgd(0.1), cdjax.downpour(0.1, 0.1)])
def test_the_server_starts_as_the_mean_of_the_agents(tx):
    params = random_stacked_tree(3)
    state = optax.chain(optax.clip(1.0), tx).init(params)
    assert_trees_close(cdjax.server_params(state), cdjax.mean_params(params))


def test_the_server_is_read_from_the_state_of_a_later_step():
    params = random_stacked_tree(2)
    tx = optax.chain(cdjax.average_updates(), cdjax.downpour(0.1, 0.25))
    _, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    expected = jax.tree.map(lambda x: x - 0.25 * (1 + 1 / jnp.sqrt(2.0)), cdjax.mean_params(params))
    assert_trees_close(cdjax.server_params(state), expected)


def test_without_a_server_the_error_says_what_to_evaluate():
    with pytest.raises(ValueError, match=r"no server; average its agents with cdjax.mean_params"):
        cdjax.server_params(optax.sgd(0.1).init(jnp.ones(3)))
