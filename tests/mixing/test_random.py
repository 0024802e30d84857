"""Random graphs against closed forms: over many keys, and with all draws enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks._collectives import collectives
from cdjax import mixing, sharding, topology
from tests.trees import assert_trees_close, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

NUM_KEYS = 4096
KEY = jax.random.key(0)


def oracle(n, s):
    return (1 - s / (n - 1)) / (s + 1)


def local(n, s):
    return (1 - (1 - s / (n - 1)) ** n) / s - 1 / (n - 1)


def equidyn(n, weight=0.5):
    return (1 - weight) ** 2 + weight**2 * (1 - 2 / n)


CASES = {
    "epidemic, 1 of 15": (lambda key: mixing.random_epidemic(16, key), local(16, 1)),
    "epidemic, 3 of 8": (lambda key: mixing.random_epidemic(9, key, count=3), local(9, 3)),
    "regular, 1 of 15": (lambda key: mixing.random_regular(16, key), oracle(16, 1)),
    "regular, 3 of 8": (lambda key: mixing.random_regular(9, key, degree=3), oracle(9, 3)),
    "matching": (lambda key: mixing.pull(mixing.random_matching(16, key)), oracle(16, 1)),
    "equitopo": (lambda key: mixing.random_equitopo(16, key), equidyn(16)),
}


def left_over(x, mixed):
    """The share of squared disagreement with the mean before the step."""
    mean = jnp.mean(x, axis=0, keepdims=True)
    return jnp.sum((mixed - mean) ** 2, axis=(-2, -1)) / jnp.sum((x - mean) ** 2)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sampled(3)
def test_disagreement_shrinks_by_the_closed_form_on_average(name, x64):
    make, expected = CASES[name]
    mix = make(KEY)
    num_agents = 9 if "of 8" in name else 16
    x = jnp.asarray(np.random.default_rng(0).normal(size=(num_agents, 3)))
    shares = jax.jit(jax.vmap(lambda step: left_over(x, mix(x, step))))(jnp.arange(NUM_KEYS))
    error = float(jnp.std(shares)) / NUM_KEYS**0.5
    assert float(jnp.mean(shares)) == pytest.approx(expected, abs=3 * error)


def mean_over(matrices, x):
    return np.mean([float(left_over(x, matrix @ x)) for matrix in matrices])


def test_epidemic_enumerated_over_all_choices_of_4_agents_is_the_closed_form(x64):
    others = [[k for k in range(4) if k != j] for j in range(4)]
    matrices = []
    for chosen in itertools.product(*others):
        received = np.eye(4)
        received[list(chosen), range(4)] = 1
        matrices.append(received / received.sum(axis=1, keepdims=True))
    x = np.random.default_rng(0).normal(size=(4, 2))
    # One x will do: the law does not change when agents swap, so it is the same for every x.
    assert len(matrices) == 81 and local(4, 1) == pytest.approx(0.46913580, abs=1e-8)
    assert mean_over(matrices, x) == pytest.approx(local(4, 1), abs=1e-14)
    assert drawn_matrices(mixing.random_epidemic(4, KEY), 4, 2000) == as_set(matrices)


@pytest.mark.slow
def test_matchings_and_circles_enumerated_over_all_orders_of_4_agents(x64):
    x = np.random.default_rng(0).normal(size=(4, 2))
    for degree in (1, 2, 3):
        circle = sum(np.roll(np.eye(4), m, axis=1) for m in range(degree + 1)) / (degree + 1)
        orders = [np.eye(4)[list(order)] for order in itertools.permutations(range(4))]
        matrices = [order.T @ circle @ order for order in orders]
        assert mean_over(matrices, x) == pytest.approx(oracle(4, degree), abs=1e-14)
        mix = mixing.random_regular(4, KEY, degree=degree)
        assert drawn_matrices(mix, 4, 200) == as_set(matrices)
    pairs = [np.eye(4)[[1, 0, 3, 2]], np.eye(4)[[2, 3, 0, 1]], np.eye(4)[[3, 2, 1, 0]]]
    matrices = [(np.eye(4) + pair) / 2 for pair in pairs]
    assert mean_over(matrices, x) == pytest.approx(oracle(4, 1), abs=1e-14)
    mix = mixing.pull(mixing.random_matching(4, KEY))
    assert drawn_matrices(mix, 4, 50) == as_set(matrices)


def drawn_matrices(mix, num_agents, num_steps):
    """All matrices that a mixer draws in so many steps."""
    draw = jax.jit(jax.vmap(lambda step: mix(jnp.eye(num_agents), step)))
    return as_set(np.asarray(draw(jnp.arange(num_steps))))


def as_set(matrices):
    return {(matrix.round(12) + 0.0).tobytes() for matrix in matrices}


def test_equitopo_draws_every_distance_and_its_mean_is_the_complete_graph(x64):
    mix = mixing.random_equitopo(7, KEY, weight=1.0)
    basis = [np.eye(7) / 7 + 6 / 7 * np.roll(np.eye(7), a, axis=1) for a in range(1, 7)]
    assert drawn_matrices(mix, 7, 100) == as_set(basis)
    np.testing.assert_allclose(np.mean(basis, axis=0), 1 / 7, rtol=0, atol=1e-16)


def test_all_agents_but_one_are_paired():
    peers = np.asarray(mixing.random_matching(7, KEY)(3))
    np.testing.assert_array_equal(peers[peers], np.arange(7))
    assert np.sum(peers == np.arange(7)) == 1


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.sampled(3)
def test_an_epidemic_reaches_as_many_as_it_should(count, x64):
    mix = mixing.random_epidemic(8, KEY, count=count)
    for step in range(5):
        received = np.asarray(mix(jnp.eye(8), step)) > 0
        np.testing.assert_array_equal(received.sum(axis=0), 1 + count)


@pytest.mark.parametrize("name", ["regular, 3 of 8", "matching", "equitopo", "matcha"])
def test_doubly_stochastic_draws_keep_the_mean_and_replay_a_step(name, x64):
    graph = topology.grid(16)
    make = lambda key: mixing.random_matchings(topology.matcha(graph, 0.5), key)  # noqa: E731
    mix = jax.jit((make if name == "matcha" else CASES[name][0])(KEY))
    tree = random_stacked_tree(9 if "of 8" in name else 16)
    mixed = mix(tree, 5)
    assert_trees_close(
        *[jax.tree.map(lambda x: jnp.mean(x, axis=0), t) for t in (mixed, tree)], atol=1e-14
    )
    assert_trees_close(mix(tree, 5), mixed, rtol=0, atol=0)


def test_matcha_uses_each_matching_as_often_as_it_should(x64):
    drawn = topology.matcha(topology.star(5), 0.4)
    mix = mixing.random_matchings(drawn, KEY)
    matrices = jax.vmap(lambda step: mix(jnp.eye(5), step))(jnp.arange(NUM_KEYS))
    mean = np.mean(matrices, axis=0)
    error = np.std(matrices, axis=0) / NUM_KEYS**0.5
    assert (np.abs(mean - drawn.mean().mixing_matrix) <= 4 * error + 1e-14).all()


def test_matcha_over_devices_is_the_same_and_gathers_nothing(x64):
    drawn = topology.matcha(topology.grid(16), 0.5)
    mesh = sharding.agent_mesh(4)
    one, several = (mixing.random_matchings(drawn, KEY, mesh=m) for m in (None, mesh))
    tree = random_stacked_tree(16)
    divided, mix = sharding.shard_agents(tree, mesh), jax.jit(several)
    for step in range(4):
        assert_trees_close(mix(divided, step), one(tree, step), rtol=1e-13, atol=1e-13)
    assert "all-gather" not in mix.lower(divided, 0).compile().as_text()


EVERYBODY = topology.complete(16)
DIVIDED = {
    "pull, peers": lambda m: mixing.pull(mixing.random_peers(EVERYBODY, KEY), mesh=m),
    "pull, matching": lambda m: mixing.pull(mixing.random_matching(16, KEY), mesh=m),
    "push": lambda m: mixing.push(
        mixing.random_peers(EVERYBODY, KEY, probability=0.6), mesh=m
    ),
    "epidemic": lambda m: mixing.random_epidemic(16, KEY, count=3, mesh=m),
    "regular": lambda m: mixing.random_regular(16, KEY, degree=2, mesh=m),
    "equitopo": lambda m: mixing.random_equitopo(16, KEY, mesh=m),
}  # fmt: skip


@pytest.mark.parametrize("name", DIVIDED)
@pytest.mark.sampled(5)
def test_over_devices_a_block_at_a_time_visits_and_none_is_gathered(name, x64):
    mesh, tree = sharding.agent_mesh(4), random_stacked_tree(16)
    one, several = (DIVIDED[name](m) for m in (None, mesh))
    divided, mix = sharding.shard_agents(tree, mesh), jax.jit(several)
    for step in range(3):
        assert_trees_close(mix(divided, step), one(tree, step), rtol=1e-13, atol=1e-13)
    whole = {"w": divided["layer"]["kernel"]}  # 30 numbers an agent
    found = collectives(mix.lower(whole, 0).compile().as_text())
    sent = [one for one in found if one.num_bytes > 16 * 8]  # other than numbers of agents
    # At each of three distances a block of four agents, if somebody there has drawn somebody.
    assert [one.kind for one in sent] == ["collective-permute"] * 3
    assert {one.num_bytes for one in sent} == {4 * 30 * 8}


def permutes(jaxpr, conditional=False):
    """For every permute in a program whether it stands in a branch."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "ppermute":
            yield conditional
        for inner in jaxprs_in_params(eqn.params):
            yield from permutes(inner, conditional or eqn.primitive.name == "cond")


def test_a_block_travels_only_where_somebody_has_drawn_somebody_at_its_distance():
    mix = DIVIDED["pull, matching"](sharding.agent_mesh(4))
    assert [*permutes(jax.make_jaxpr(mix)({"w": jnp.ones((16, 3))}, 0).jaxpr)] == [True] * 3


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match="count is 4, but of 4 agents each has 3 others"):
        mixing.random_epidemic(4, KEY, count=4)
    with pytest.raises(ValueError, match="degree is 4, but of 4 agents"):
        mixing.random_regular(4, KEY, degree=4)
    with pytest.raises(ValueError, match=r"weight is 2; it must lie in \[0, 1\]"):
        mixing.random_equitopo(4, KEY, weight=2)
    with pytest.raises(ValueError, match="changes with the step"):
        mixing.random_regular(4, KEY)(jnp.ones(4))
