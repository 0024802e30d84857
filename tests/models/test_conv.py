from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

from cdjax.models import _conv
from cdjax.models._conv import conv_general_dilated

pytestmark = pytest.mark.sampled(3)

NHWC = ("NHWC", "HWIO", "NHWC")
IMAGES, KERNEL = (5, 9, 8, 4), (3, 3, 4, 6)
# name: images, kernel, strides, padding, dilation of the images, dilation of the kernel
CASES = {
    "same": (IMAGES, KERNEL, (1, 1), "SAME", None, None),
    "same_lower": (IMAGES, (2, 4, 4, 3), (1, 1), "SAME_LOWER", None, None),
    "explicit": (IMAGES, KERNEL, (1, 1), ((3, 0), (1, 4)), None, (1, 1)),
    "cropped": (IMAGES, KERNEL, (1, 1), ((-1, 2), (0, -2)), None, None),
    "few_features": (IMAGES, (3, 3, 4, 1), (1, 1), "SAME", None, None),
    "one_by_one": (IMAGES, (1, 1, 4, 6), (1, 1), "SAME", None, None),
    "whole_image": (IMAGES, (9, 8, 4, 2), (1, 1), "VALID", None, None),
    "strides": (IMAGES, KERNEL, (2, 3), "SAME", None, None),
    "strides_beyond_kernel": (IMAGES, (2, 2, 4, 3), (3, 4), "VALID", None, None),
    "strides_and_dilation": (IMAGES, KERNEL, (2, 1), "SAME", None, (2, 2)),
    "dilated_images": (IMAGES, KERNEL, (1, 1), ((1, 1), (2, 0)), (2, 3), None),
    "all": (IMAGES, (3, 2, 4, 6), (2, 3), ((4, 1), (0, 3)), (2, 3), (1, 2)),
    "even_batch": ((6, 9, 8, 4), KERNEL, (1, 1), "SAME", None, None),
    "one_image": ((1, 5, 5, 3), (3, 3, 3, 2), (1, 1), "SAME", None, None),
}


def normal(shape, *, seed=0, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype or float)


def same(images, kernel, conv=conv_general_dilated):
    return conv(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def same_in_jax(images, kernel):
    return same(images, kernel, lax.conv_general_dilated)


def primitives(fn, *args):
    return str(jax.make_jaxpr(fn)(*args))


def assert_close(actual, expected, rtol=1e-10):
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * np.abs(y).max())


@partial(jax.jit, static_argnums=0)
def value_and_gradients(fn, images, kernel):
    value, vjp = jax.vjp(fn, images, kernel)
    return value, vjp(normal(value.shape, seed=2, dtype=value.dtype))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sampled(4)
def test_values_and_gradients_are_those_of_jax(name):
    images, kernel, *rest = CASES[name]
    with jax.enable_x64(True):

        def convolve(conv):
            return lambda x, k: conv(x, k, *rest, dimension_numbers=NHWC)

        args = normal(images), normal(kernel, seed=1)
        actual = value_and_gradients(convolve(conv_general_dilated), *args)
        assert_close(actual, value_and_gradients(convolve(lax.conv_general_dilated), *args))
        assert "conv_general_dilated" not in primitives(convolve(conv_general_dilated), *args)


@pytest.mark.parametrize("choice", range(4))
@pytest.mark.parametrize("name", ["explicit", "cropped", "strides", "all", "even_batch"])
@pytest.mark.sampled(5)
def test_a_kernels_gradient_is_the_same_however_the_pixels_are_read(name, choice, monkeypatch):
    monkeypatch.setattr(_conv, "_cheapest_views", lambda *axes, widths: _conv._views(*axes)[choice])
    monkeypatch.setattr(_conv, "_COPIED_BYTES", 50_000)  # some images at a time
    test_values_and_gradients_are_those_of_jax(name)


@pytest.mark.parametrize("widths, on_images", [((3, 32), 9), ((32, 32), 3), ((32, 3), 1)])
def test_the_wider_array_is_copied_less_often(widths, on_images):
    axis = _conv._Axis(16, 3, 16, 1, 1, 1, 1, 1)
    images, result = _conv._cheapest_views(axis, axis, widths=widths)
    assert (images.num_copies, result.num_copies) == (on_images, 9 // on_images)


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 2e-3)])
def test_dtypes_are_kept(dtype, rtol):
    images, kernel = normal(IMAGES, dtype=dtype), normal(KERNEL, seed=1, dtype=dtype)
    actual = value_and_gradients(same, images, kernel)
    assert [x.dtype for x in jax.tree.leaves(actual)] == [dtype] * 3
    exact = value_and_gradients(same_in_jax, images.astype(jnp.float32), kernel.astype(jnp.float32))
    assert_close(actual[0], exact[0], rtol)
    assert_close(actual[1][0], exact[1][0], 2 * rtol)
    assert_close(actual[1][1], exact[1][1], 2 * rtol)


@pytest.mark.parametrize(
    "axes, loop", [((0, 0), "vmap"), ((None, 0), "vmap"), ((0, None), "vmap"), ((0, 0), "map")]
)
def test_agents(axes, loop):
    agents = [(3,) if axis == 0 else () for axis in axes]
    with jax.enable_x64(True):
        images, kernel = normal((*agents[0], *IMAGES)), normal((*agents[1], *KERNEL), seed=1)

        def one(j):
            image = images[j] if agents[0] else images
            return value_and_gradients(same, image, kernel[j] if agents[1] else kernel)

        if loop == "vmap":
            actual = jax.vmap(lambda *args: value_and_gradients(same, *args), axes)(images, kernel)
        else:
            actual = jax.jit(lambda: lax.map(one, jnp.arange(3)))()
        for j in range(3):
            expected = value_and_gradients(
                same_in_jax,
                images[j] if agents[0] else images,
                kernel[j] if agents[1] else kernel,
            )
            assert_close(jax.tree.map(lambda x, j=j: x[j], actual), expected)


@pytest.mark.parametrize("mode", ["forward_over_reverse", "reverse_over_reverse", "forward_twice"])
def test_second_derivatives(mode):
    with jax.enable_x64(True):
        args = normal(IMAGES), normal(KERNEL, seed=1)
        direction = normal(IMAGES, seed=3), normal(KERNEL, seed=4)

        @partial(jax.jit, static_argnums=0)
        def derivative(conv):
            def loss(args):
                return jnp.sum(jnp.tanh(conv(*args)))

            def slope(args):
                return jax.jvp(loss, (args,), (direction,))[1]

            if mode == "forward_over_reverse":
                return jax.jvp(jax.grad(loss), (args,), (direction,))[1]
            if mode == "reverse_over_reverse":
                return jax.grad(lambda a: vdot(jax.grad(loss)(a), direction))(args)
            return jax.jvp(slope, (args,), (direction,))[1]

        assert_close(derivative(same), derivative(same_in_jax))


def vdot(left, right):
    return sum(map(jnp.vdot, left, right))


@pytest.mark.parametrize(
    ("number", "most", "size"), [(64, 6, 4), (64, 100, 64), (61, 6, 6), (10, 1, 1), (9, 6, 5)]
)
def test_images_are_taken_in_equal_parts_without_padding_where_that_is_near(number, most, size):
    assert _conv._chunk_size(number, most) == size


def test_backward_pass_keeps_no_copies():
    images, kernel = jnp.ones((64, 16, 16, 8)), jnp.ones((3, 3, 8, 8))
    _, vjp = jax.vjp(same, images, kernel)
    assert max(leaf.size for leaf in jax.tree.leaves(vjp)) <= images.size


def test_the_compiled_gradient_makes_no_patches():
    images, kernel = jnp.ones((64, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    gradients = jax.grad(lambda *args: jnp.sum(jnp.tanh(same(*args))), (0, 1))
    program = jax.jit(gradients).lower(images, kernel).compile()
    # The result, its gradient and one copy; patches would be 9 times the images.
    assert program.memory_analysis().temp_size_in_bytes < 4 * images.nbytes


def test_inside_shard_map_the_gradient_of_a_replicated_kernel_is_the_sum():
    num_devices = jax.device_count()
    mesh = jax.make_mesh((num_devices,), ("agents",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.P("agents")
    images, kernel = normal((3 * num_devices, 9, 8, 4)), normal(KERNEL, seed=1)

    def loss(kernel, images):
        return lax.psum(jnp.sum(jnp.tanh(same(images, kernel))), "agents")

    gradient = jax.shard_map(
        jax.grad(loss), mesh=mesh, in_specs=(jax.P(), sharded), out_specs=jax.P()
    )
    expected = jax.grad(lambda k: jnp.sum(jnp.tanh(same_in_jax(images, k))))(kernel)
    assert_close(jax.jit(gradient)(kernel, images), expected, 1e-4)


@pytest.mark.parametrize(
    "images, kernel, options",
    [
        ((2, 6, 6, 4), (3, 3, 2, 4), {"dimension_numbers": NHWC, "feature_group_count": 2}),
        ((2, 6, 6, 4), (3, 3, 4, 4), {"dimension_numbers": NHWC, "batch_group_count": 2}),
        ((2, 4, 6, 6), (4, 4, 3, 3), {}),
        ((2, 6, 4), (3, 4, 4), {"dimension_numbers": ("NWC", "WIO", "NWC")}),
        ((2, 6, 6, 6, 4), (3, 3, 3, 4, 4), {"dimension_numbers": ("NHWDC", "HWDIO", "NHWDC")}),
        ((0, 6, 6, 4), (3, 3, 4, 4), {"dimension_numbers": NHWC}),
    ],
)
def test_other_convolutions_are_left_to_jax(images, kernel, options):
    args = normal(images), normal(kernel, seed=1)
    arguments = {"window_strides": (1,) * (len(images) - 2), "padding": "SAME", **options}
    actual = conv_general_dilated(*args, **arguments)
    np.testing.assert_array_equal(actual, lax.conv_general_dilated(*args, **arguments))


def test_other_backends_are_left_to_jax(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in primitives(same, jnp.ones(IMAGES), jnp.ones(KERNEL))


def test_wrong_shapes_raise_the_error_of_jax():
    with pytest.raises(ValueError, match="feature dimension size"):
        same(jnp.ones(IMAGES), jnp.ones((3, 3, 5, 6)))


def test_both_flax_layers_take_it():
    options = {"strides": (2, 1), "kernel_dilation": (1, 2)}
    images = normal(IMAGES, dtype=jnp.float32)
    layers = [
        nn.Conv(6, (3, 3), conv_general_dilated=conv, **options)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    ]
    variables = layers[0].init(jax.random.key(0), images)
    assert_close(layers[0].apply(variables, images), layers[1].apply(variables, images), 1e-5)
    layer = nnx.Conv(
        4, 6, (3, 3), rngs=nnx.Rngs(0), conv_general_dilated=conv_general_dilated, **options
    )
    plain = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0), **options)
    assert_close(layer(images), plain(images), 1e-5)
