import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, topology
from cdjax.mixing import cycle, every


def matrix_mixer(matrix):
    return mixing.dense(topology.from_matrix(matrix, validate=False))


def one_peer_exponential(num_agents):
    """Matrices of the one-peer exponential graph: half from agent j + 2^k in step k."""
    identity = np.eye(num_agents)
    hops = [2**k for k in range(num_agents.bit_length() - 1)]
    return [(identity + np.roll(identity, hop, axis=1)) / 2 for hop in hops]


def test_every_acts_at_the_last_step_of_each_period():
    mix = jax.jit(every(3, lambda tree, step=0: jax.tree.map(lambda x: x + 1, tree)))
    counts = [int(mix(jnp.zeros([], int), step)) for step in range(7)]
    assert counts == [0, 0, 1, 0, 0, 1, 0]


def test_every_tells_the_mixer_the_round():
    mix = jax.jit(every(4, lambda tree, step=0: tree + step))
    assert [int(mix(jnp.zeros([], int), step)) for step in (3, 7, 11)] == [0, 1, 2]


def test_a_cycle_inside_of_every_meets_all_its_mixers():
    doubled, negated = (lambda tree, step=0, f=f: f * tree for f in (2.0, -1.0))
    mix, x = jax.jit(every(2, cycle(doubled, negated))), jnp.ones([])
    for step in range(8):
        x = mix(x, step)
    assert float(x) == 4


@pytest.mark.parametrize("num_agents", [8, 32])
def test_a_cycle_of_one_peer_exponential_graphs_is_exactly_the_mean(num_agents):
    matrices = one_peer_exponential(num_agents)
    mix, x = jax.jit(cycle(*map(matrix_mixer, matrices))), jnp.arange(num_agents, dtype=float)
    for step in range(len(matrices), 2 * len(matrices)):
        x = mix(x, step)
    np.testing.assert_array_equal(x, (num_agents - 1) / 2)


def test_a_period_of_one_is_the_mixer_itself():
    mix = mixing.dense(topology.ring(3))
    assert every(1, mix) is mix


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"period is 0; it must lie in \[1, inf\)"):
        every(0, mixing.dense(topology.ring(3)))
    with pytest.raises(ValueError, match="cycle needs at least one mixer"):
        cycle()
