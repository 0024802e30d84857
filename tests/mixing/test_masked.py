import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, sharding, topology
from cdjax.mixing import masked
from tests.trees import assert_trees_close, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)
RING, COMPLETE = mixing.dense(topology.ring(5)), mixing.dense(topology.complete(5))


def test_a_fraction_of_one_is_the_mixer_itself():
    assert masked(RING, 1, KEY) is RING


@pytest.mark.slow
def test_every_number_is_either_mixed_or_kept_the_same_for_all_agents(x64):
    tree = random_stacked_tree(5)
    found, mixed = masked(RING, 0.5, KEY)(tree, 3), RING(tree)
    for x, y, z in zip(*map(jax.tree.leaves, (tree, mixed, found)), strict=True):
        kept, changed = np.asarray(z == x).all(axis=0), np.asarray(z == y).all(axis=0)
        assert (kept | changed).all()


@pytest.mark.parametrize("fraction", [0.1, 0.6])
@pytest.mark.sampled(3)
def test_on_average_it_is_lazy_mixing(fraction, x64):
    tree = random_stacked_tree(5)
    mix = masked(RING, fraction, KEY)
    steps = jnp.arange(4096)
    found = jax.jit(jax.vmap(lambda step: mix(tree, step)))(steps)

    def close(x, mixed, drawn):
        expected = (1 - fraction) * x + fraction * mixed
        error = np.std(drawn, axis=0) / len(steps) ** 0.5
        assert (np.abs(np.mean(drawn, axis=0) - expected) <= 4 * error + 1e-14).all()

    jax.tree.map(close, tree, RING(tree), found)


def test_on_a_complete_graph_disagreement_falls_by_the_fraction(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 40_000)))
    apart = lambda x: float(jnp.sum((x - jnp.mean(x, axis=0, keepdims=True)) ** 2))  # noqa: E731
    assert apart(masked(COMPLETE, 0.3, KEY)(x, 0)) == pytest.approx(0.7 * apart(x), rel=0.01)


@pytest.mark.parametrize("fraction", [0.5, 0.3, 0.25, 0.1])
def test_by_turns_a_complete_graph_agrees_after_exactly_one_over_the_fraction(fraction, x64):
    num_steps = math.ceil(1 / fraction)
    mix = jax.jit(masked(COMPLETE, fraction, KEY, partition=True))
    tree = x = random_stacked_tree(5) | {"counter": jnp.arange(5)}
    for step in range(7 * num_steps, 8 * num_steps):
        assert any(np.ptp(leaf, axis=0).max(initial=0) > 1e-3 for leaf in jax.tree.leaves(x))
        x = mix(x, step)
    assert_trees_close(x, COMPLETE(tree), rtol=1e-13, atol=1e-13)


def test_turns_are_dealt_afresh_in_every_round():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 100)))
    mix = masked(COMPLETE, 0.5, KEY, partition=True)
    changed = [np.asarray((mix(x, step) != x).any(axis=0)) for step in range(4)]
    assert all(part.sum() == 50 for part in changed)
    np.testing.assert_array_equal(changed[0], ~changed[1])
    assert (changed[0] != changed[2]).any()


def test_by_turns_devices_exchange_a_part_only():
    mesh = sharding.agent_mesh(4)
    ring = mixing.exchange(topology.ring(8), mesh)
    x = sharding.shard_agents(jnp.ones((8, 1000)), mesh)
    program = jax.jit(masked(ring, 0.01, KEY, partition=True)).lower(x, 0).compile().as_text()
    sent = [line for line in program.splitlines() if " collective-permute" in line]
    assert sent and all("f32[10]" in line or "f32[1,10]" in line for line in sent)
    assert "all-gather" not in program


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"fraction is 0; it must lie in \(0, 1\]"):
        masked(RING, 0, KEY)
    with pytest.raises(ValueError, match="masked changes with the step"):
        masked(RING, 0.5, KEY)(jnp.ones((5, 2)))
