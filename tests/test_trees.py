import jax.numpy as jnp
import numpy as np
import pytest

from cdjax._trees import along_agents


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 4)])
def test_every_agent_s_row_gets_its_own_number(shape):
    x, numbers = np.ones(shape), np.array([1.0, 2.0, 3.0])
    expected = np.stack([number * row for number, row in zip(numbers, x, strict=True)])
    np.testing.assert_array_equal(along_agents(numbers, x) * x, expected)


def test_numbers_take_the_dtype_and_truth_values_do_not():
    x = jnp.ones((2, 2), jnp.bfloat16)
    assert along_agents(np.array([0.1, 0.2]), x).dtype == jnp.bfloat16
    assert along_agents(np.array([True, False]), x).dtype == bool
