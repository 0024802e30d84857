import jax.numpy as jnp
import numpy as np
import pytest

from cdjax._trees import along_agents, map_floats_together
from tests.trees import assert_trees_close


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 4)])
def test_every_agent_s_row_gets_its_own_number(shape):
    x, numbers = np.ones(shape), np.array([1.0, 2.0, 3.0])
    expected = np.stack([number * row for number, row in zip(numbers, x, strict=True)])
    np.testing.assert_array_equal(along_agents(numbers, x) * x, expected)


def test_together_only_floating_leaves_are_replaced():
    tree = {"count": np.arange(4), "x": np.ones(4), "mask": np.array([True]), "y": jnp.ones(1)}
    mapped = map_floats_together(lambda leaves: [2 * x for x in leaves], tree)
    assert_trees_close(mapped, tree | {"x": 2 * tree["x"], "y": 2 * tree["y"]}, rtol=0, atol=0)


def test_numbers_take_the_dtype_and_truth_values_do_not():
    x = jnp.ones((2, 2), jnp.bfloat16)
    assert along_agents(np.array([0.1, 0.2]), x).dtype == jnp.bfloat16
    assert along_agents(np.array([True, False]), x).dtype == bool
