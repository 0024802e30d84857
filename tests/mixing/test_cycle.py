"""Schedules as mixers; cycles of mixers are tested beside ``every``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, sharding, topology
from cdjax.mixing import cycle
from tests.trees import assert_trees_close, random_stacked_tree

SCHEDULES = {
    "one-peer exponential": topology.one_peer_exponential(12),
    "one-peer hypercube": topology.one_peer_hypercube(8),
    "base-2": topology.base_graph(12, 1),
    "base-4": topology.base_graph(20, 3),
    "complete and ring": topology.round_robin([topology.complete(64), topology.ring(64)]),
    "directed": topology.round_robin([topology.exponential(8, directed=True), topology.star(8)]),
    "one agent": topology.base_graph(1),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.sampled(3)
def test_a_schedule_mixes_by_the_matrix_of_each_step(name, x64):
    schedule = SCHEDULES[name]
    mix, tree = jax.jit(cycle(schedule)), random_stacked_tree(schedule.num_agents)
    for step in range(2 * schedule.period):
        matrix = schedule.mixing_matrix(step)
        expected = jax.tree.map(lambda x, m=matrix: np.einsum("jl,l...->j...", m, x), tree)
        assert_trees_close(mix(tree, step), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["one-peer exponential", "base-4"])
@pytest.mark.sampled(2)
def test_divided_over_devices_it_is_the_same_and_gathers_nothing(name, x64):
    schedule = SCHEDULES[name]
    mesh = sharding.agent_mesh(4)
    mix, tree = jax.jit(cycle(schedule, mesh=mesh)), random_stacked_tree(schedule.num_agents)
    divided = sharding.shard_agents(tree, mesh)
    for step in range(schedule.period):
        expected = cycle(schedule)(tree, step)
        assert_trees_close(mix(divided, step), expected, rtol=1e-13, atol=1e-13)
    program = mix.lower(divided, 0).compile().as_text()
    assert "collective-permute" in program and "all-gather" not in program


@pytest.mark.parametrize("num_agents", [8, 16, 32])
@pytest.mark.parametrize("build", [topology.one_peer_exponential, topology.one_peer_hypercube])
@pytest.mark.sampled(3)
def test_a_period_ends_in_consensus_and_consensus_stays_bitwise(build, num_agents, x64):
    schedule, x = build(num_agents), jnp.arange(num_agents, dtype=float)
    mix = jax.jit(cycle(schedule))
    for step in range(schedule.period):
        x = mix(x, step)
    np.testing.assert_array_equal(x, (num_agents - 1) / 2)
    agreed = jnp.full((num_agents, 3), 0.1)
    np.testing.assert_array_equal(mix(agreed, 1), agreed)


def test_all_steps_are_one_program():
    traces = []
    mix = cycle(topology.one_peer_exponential(8))
    step = jax.jit(lambda x, k: (traces.append(0), mix(x, k))[1])
    for k in range(10):
        step(jnp.ones(8), k)
    assert len(traces) == 1


def test_what_does_not_fit_is_named():
    schedule = topology.one_peer_exponential(4)
    with pytest.raises(ValueError, match="takes one schedule; join several by"):
        cycle(schedule, schedule)
    with pytest.raises(ValueError, match="mesh is for a schedule"):
        cycle(mixing.dense(topology.ring(4)), mesh=sharding.agent_mesh(4))
    with pytest.raises(ValueError, match="leading axis 3, but the schedule has 4 agents"):
        cycle(schedule)(jnp.ones((3, 2)), 0)
    with pytest.raises(ValueError, match=r"cycle changes with the step: call mix\(tree, step\)"):
        cycle(schedule)(jnp.ones((4, 2)))
