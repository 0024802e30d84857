import jax.numpy as jnp
import numpy as np
import pytest

from cdjax.transforms._clocks import clocks_tick


def test_a_clock_ticks_when_the_period_divides_it():
    ticks = [clocks_tick(jnp.int32(k), 3, np.array([0, 1, 5]), 3).tolist() for k in range(4)]
    expected = [[(k + offset) % 3 == 0 for offset in (0, 1, 5)] for k in range(4)]
    assert ticks == expected


def test_without_offsets_all_clocks_agree():
    assert clocks_tick(jnp.int32(4), 2, None, 3).tolist() == [True] * 3
    assert clocks_tick(jnp.int32(5), 2, None, 3).tolist() == [False] * 3


def test_another_number_of_agents_is_named():
    with pytest.raises(ValueError, match=r"clocks has shape \(2,\); expected one .*, \(3,\)"):
        clocks_tick(jnp.int32(0), 2, jnp.arange(2), 3)
