"""A convolution that is fast where XLA's own is slow: on a CPU, in loops and under an agent axis.

XLA:CPU runs its convolution some 50 times slower inside of a loop and some 10 times slower when
``vmap`` gives every agent its own kernel (jax issues 26568, 15339, 13800). A convolution is a
product of image patches and the kernel, and matrix products suffer from neither; the patches of a
few images at a time stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Float

Images: TypeAlias = "Float[Array, 'batch height width channels']"
Kernel: TypeAlias = "Float[Array, 'height width in_channels out_channels']"

# The patches of one chunk of images should leave room in a core's second-level cache.
_PATCH_BYTES = 3 << 20
_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


class _Geometry(NamedTuple):
    """What is static about a convolution, each for rows and columns."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
) -> Array:
    """Drop-in for :func:`jax.lax.conv_general_dilated`, for the argument of that name of Flax.

    Takes its own way on a CPU, for two-dimensional NHWC images and HWIO kernels with one group and
    undilated images; hands everything else to XLA. Values and gradients are the same up to
    rounding. The backward pass makes the patches again and keeps none.

    Args:
        lhs: images, shape (batch, height, width, in_channels).
        rhs: the kernel, shape (height, width, in_channels, out_channels).
        window_strides: steps of the window, rows and columns.
        padding: ``"SAME"``, ``"VALID"``, ``"SAME_LOWER"`` or a (low, high) pair an axis.
        lhs_dilation: as in JAX.
        rhs_dilation: steps between the kernel's taps, rows and columns.
        dimension_numbers: as in JAX.
        feature_group_count: as in JAX.
        batch_group_count: as in JAX.
        precision: of the products, as in JAX.
        preferred_element_type: as in JAX.

    Returns:
        Images, shape (batch, out_height, out_width, out_channels).

    Example::

        flax.linen.Conv(32, (3, 3), conv_general_dilated=conv_general_dilated)
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    suits = (
        jax.default_backend() == "cpu"
        and numbers == _NHWC
        and feature_group_count == batch_group_count == 1
        and all(d == 1 for d in lhs_dilation or ())
        and preferred_element_type is None
        and lhs.dtype == rhs.dtype
        and 0 not in lhs.shape + rhs.shape
    )
    if not suits:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    strides = (window_strides[0], window_strides[1])
    dilation = (rhs_dilation[0], rhs_dilation[1]) if rhs_dilation else (1, 1)
    if isinstance(padding, str):
        window = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], window, strides, padding)
    (top, bottom), (left, right) = padding
    return _conv(_Geometry(strides, ((top, bottom), (left, right)), dilation), precision, lhs, rhs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(geometry: _Geometry, precision: Any, images: Images, kernel: Kernel) -> Images:
    return _by_patches(geometry, precision, images, kernel)


def _conv_forward(
    geometry: _Geometry, precision: Any, images: Images, kernel: Kernel
) -> tuple[Images, tuple[Images, Kernel]]:
    return _by_patches(geometry, precision, images, kernel), (images, kernel)


def _conv_backward(
    geometry: _Geometry, precision: Any, residuals: tuple[Images, Kernel], cotangent: Images
) -> tuple[Images, Kernel]:
    images, kernel = residuals
    return (
        _image_gradient(geometry, precision, images, kernel, cotangent),
        _kernel_gradient(geometry, precision, images, kernel, cotangent),
    )


_conv.defvjp(_conv_forward, _conv_backward)


def _by_patches(geometry: _Geometry, precision: Any, images: Images, kernel: Kernel) -> Images:
    """Patches times kernel, a few images at a time."""
    weights = kernel.reshape(-1, kernel.shape[-1])

    def one_image(image: Array) -> Array:
        patches = _patches(geometry, image, kernel.shape)
        return jnp.matmul(patches, weights, precision=precision)

    return lax.map(one_image, images, batch_size=_chunk(geometry, images, kernel))


def _kernel_gradient(
    geometry: _Geometry, precision: Any, images: Images, kernel: Kernel, cotangent: Images
) -> Kernel:
    """The sum over chunks of patchesᵀ times cotangent."""
    chunk = _chunk(geometry, images, kernel)

    def add_chunk(total: Array, image_and_cotangent: tuple[Array, Array]) -> tuple[Array, None]:
        image, cotangent = image_and_cotangent
        patches = jax.vmap(lambda x: _patches(geometry, x, kernel.shape))(image)
        product = lax.dot_general(
            patches,
            cotangent,
            (((0, 1, 2), (0, 1, 2)), ((), ())),
            precision=precision,
            preferred_element_type=total.dtype,
        )
        return total + product, None

    # Sums of many products are taken in float32 at least.
    dtype = jnp.promote_types(kernel.dtype, jnp.float32)
    total = jnp.zeros((kernel.size // kernel.shape[-1], kernel.shape[-1]), dtype)
    chunks = len(images) // chunk
    split = jax.tree.map(
        lambda x: x[: chunks * chunk].reshape(chunks, chunk, *x.shape[1:]), (images, cotangent)
    )
    total, _ = lax.scan(add_chunk, total, split)
    if len(images) % chunk:
        total, _ = add_chunk(total, (images[chunks * chunk :], cotangent[chunks * chunk :]))
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _image_gradient(
    geometry: _Geometry, precision: Any, images: Images, kernel: Kernel, cotangent: Images
) -> Images:
    """The cotangent, spread by the strides, convolved with the flipped kernel."""
    spread = [(0, 0, 0)]
    for axis in (0, 1):
        reach = (kernel.shape[axis] - 1) * geometry.dilation[axis]
        low = reach - geometry.padding[axis][0]
        stride = geometry.strides[axis]
        covered = (cotangent.shape[axis + 1] - 1) * stride + 1
        high = images.shape[axis + 1] + reach - covered - low
        spread.append((low, high, stride - 1))
    cotangent = lax.pad(cotangent, jnp.zeros([], cotangent.dtype), [*spread, (0, 0, 0)])
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    unpadded = _Geometry((1, 1), ((0, 0), (0, 0)), geometry.dilation)
    return _by_patches(unpadded, precision, cotangent, flipped)


def _patches(geometry: _Geometry, image: Array, kernel_shape: tuple[int, ...]) -> Array:
    """What the kernel sees from each place: (out_height, out_width, taps × channels)."""
    (pad_rows, pad_columns), (row_stride, column_stride) = geometry.padding, geometry.strides
    zero = jnp.zeros([], image.dtype)
    image = lax.pad(image, zero, [(*pad_rows, 0), (*pad_columns, 0), (0, 0, 0)])
    height, width = _out_shape(geometry, image.shape, kernel_shape, padded=True)
    taps = []
    for row in range(0, kernel_shape[0] * geometry.dilation[0], geometry.dilation[0]):
        for column in range(0, kernel_shape[1] * geometry.dilation[1], geometry.dilation[1]):
            last_row = row + (height - 1) * row_stride + 1
            last_column = column + (width - 1) * column_stride + 1
            taps.append(image[row:last_row:row_stride, column:last_column:column_stride])
    return jnp.concatenate(taps, axis=-1)


def _out_shape(
    geometry: _Geometry,
    image_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    *,
    padded: bool = False,
) -> tuple[int, int]:
    sides = []
    for axis in (0, 1):
        side = image_shape[axis] + (0 if padded else sum(geometry.padding[axis]))
        reach = (kernel_shape[axis] - 1) * geometry.dilation[axis]
        sides.append(max(0, (side - reach - 1) // geometry.strides[axis] + 1))
    return sides[0], sides[1]


def _chunk(geometry: _Geometry, images: Images, kernel: Kernel) -> int:
    height, width = _out_shape(geometry, images.shape[1:], kernel.shape)
    patch_bytes = height * width * kernel.size // kernel.shape[-1] * images.dtype.itemsize
    return min(len(images), max(1, _PATCH_BYTES // max(1, patch_bytes)))
