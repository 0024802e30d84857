import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from cdjax.models._pool import max_pool

IMAGES = (3, 7, 8, 2)
# images, window, strides, padding
CASES = {
    "tiles": (IMAGES, (2, 3), (2, 3), "VALID"),
    "two_batch_axes": ((2, 3, 6, 6, 2), (2, 2), (2, 2), "VALID"),
    "no_batch_axis": ((6, 6, 2), (3, 3), (3, 3), "VALID"),
    "stride_of_one": (IMAGES, (2, 2), None, "VALID"),
    "same": (IMAGES, (2, 2), (2, 2), "SAME"),
    "overlapping_and_padded": (IMAGES, (3, 3), (2, 1), ((1, 1), (0, 2))),
    "gaps": (IMAGES, (1, 2), (2, 3), "VALID"),
    "whole_image": (IMAGES, (7, 8), (1, 1), "VALID"),
    "one_axis": ((3, 9, 2), (3,), (3,), "VALID"),
    "three_axes": ((1, 4, 6, 5, 1), (2, 3, 2), (2, 3, 2), "VALID"),
}


def with_ties(shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).integers(0, 3, shape), dtype)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_flax_ties_and_all(name):
    shape, *window = CASES[name]
    images = with_ties(shape)
    actual, vjp = jax.vjp(lambda x: max_pool(x, *window), images)
    expected, vjp_of_flax = jax.vjp(lambda x: nn.max_pool(x, *window), images)
    np.testing.assert_array_equal(actual, expected)
    # Whole numbers, whose sums over overlapping windows are exact in any order.
    cotangent = jnp.arange(actual.size, dtype=jnp.float32).reshape(actual.shape)
    np.testing.assert_array_equal(vjp(cotangent)[0], vjp_of_flax(cotangent)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes_are_kept(dtype):
    assert max_pool(with_ties(IMAGES, dtype), (2, 2), padding="SAME").dtype == dtype


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_nan_anywhere_in_a_window_is_its_maximum(place):
    images = jnp.zeros((4, 4, 1)).at[place].set(jnp.nan)
    np.testing.assert_array_equal(
        jnp.isnan(max_pool(images, (2, 2), (2, 2)))[..., 0], [[True, False], [False, False]]
    )


def test_agents_pool_alike_under_vmap_and_map():
    images = with_ties((4, *IMAGES))

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(max_pool(x, (2, 2), (2, 2)) ** 2))(x)

    expected = jnp.stack([gradient(x) for x in images])
    np.testing.assert_array_equal(jax.vmap(gradient)(images), expected)
    np.testing.assert_array_equal(lax.map(gradient, images), expected)


def test_second_derivatives_are_those_of_flax():
    images, direction = with_ties(IMAGES), jnp.ones(IMAGES)

    def curvature(pool):
        slope = jax.grad(lambda x: jnp.sum(pool(x, (2, 2), (2, 2)) ** 3))
        return jax.jvp(slope, (images,), (direction,))[1]

    np.testing.assert_array_equal(curvature(max_pool), curvature(nn.max_pool))
