import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax.transforms._server import clocks_tick
from tests.trees import assert_trees_close, random_stacked_tree


@pytest.mark.parametrize("tx", [cdjax.easgd(0.1), cdjax.eamsgd(0.1), cdjax.downpour(0.1, 0.1)])
def test_the_server_starts_as_the_mean_of_the_agents(tx):
    params = random_stacked_tree(3)
    state = optax.chain(optax.clip(1.0), tx).init(params)
    assert_trees_close(cdjax.server_params(state), cdjax.mean_params(params))


@pytest.mark.slow
def test_the_server_is_read_from_the_state_of_a_later_step():
    params = random_stacked_tree(2)
    tx = optax.chain(cdjax.average_updates(), cdjax.downpour(0.1, 0.25))
    _, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    expected = jax.tree.map(lambda x: x - 0.25 * (1 + 1 / jnp.sqrt(2.0)), cdjax.mean_params(params))
    assert_trees_close(cdjax.server_params(state), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx, {"w": True, "frozen": False}),
        lambda tx: optax.multi_transform(
            {"w": tx, "f": optax.adam(0.1)}, {"w": "w", "frozen": "f"}
        ),
        lambda tx: optax.inject_hyperparams(lambda rate: optax.chain(optax.scale(rate), tx))(0.5),
    ],
    ids=["masked", "multi_transform", "inject_hyperparams"],
)
def test_the_server_is_found_inside_of_optax_wrappers(wrap):
    params = {"w": jnp.arange(3.0), "frozen": jnp.ones(3)}
    server = cdjax.server_params(wrap(cdjax.easgd(0.1)).init(params))
    assert float(server["w"]) == 1


def test_without_a_server_the_error_says_what_to_evaluate():
    with pytest.raises(ValueError, match=r"no server; average its agents with cdjax.mean_params"):
        cdjax.server_params(optax.sgd(0.1).init(jnp.ones(3)))


def test_a_clock_ticks_when_the_period_divides_it():
    ticks = [clocks_tick(jnp.int32(k), 3, np.array([0, 1, 5]), 3).tolist() for k in range(4)]
    expected = [[(k + offset) % 3 == 0 for offset in (0, 1, 5)] for k in range(4)]
    assert ticks == expected


def test_without_offsets_all_clocks_agree():
    assert clocks_tick(jnp.int32(4), 2, None, 3).tolist() == [True] * 3
    assert clocks_tick(jnp.int32(5), 2, None, 3).tolist() == [False] * 3


@pytest.mark.parametrize("make", [cdjax.easgd, lambda rate, **kw: cdjax.downpour(rate, rate, **kw)])
def test_another_number_of_clocks_is_named(make):
    tx, x = make(0.1, clocks=jnp.arange(3)), jnp.ones(4)
    with pytest.raises(ValueError, match=r"clocks has shape \(3,\); expected one offset per agent"):
        tx.update(x, tx.init(x), x)
