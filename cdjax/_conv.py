r"""A convolution that is fast on a CPU under the agent axis and in loops.

XLA:CPU runs its own convolution some 50 times slower inside a loop and some 10 times slower when
``vmap`` gives every agent its own kernel (jax issues 26568, 15339, 13800). Matrix products suffer
from neither. With :math:`X_r` the copies of row r of the padded image, one shifted to each column
of the kernel, beside each other, and :math:`K_i` row i of the kernel, a convolution is

.. math:: y_r = \sum_i X_{r+i} K_i.

Made for a few images at a time, the copies stay in the cache; the backward pass makes them again.
All is plain JAX, so every transformation applies, to any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Float

# Bytes of copies of one chunk of images: a core's second-level cache. Processor time of a gradient
# of the paper's CNN with 0.5, 1, 2 and 4 MiB: 1.02, 1, 1.10 and 1.22.
_CHUNK_BYTES = 1 << 20
_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


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
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> Array:
    """A drop-in for :func:`jax.lax.conv_general_dilated`, for Flax's argument of that name.

    On a CPU, two-dimensional convolutions of floats in the layout NHWC, HWIO with one group go
    their own way. All else, and every other backend, is handed on to JAX. Values and derivatives
    are JAX's up to rounding.

    Args:
        lhs: the images; on the fast path of shape (batch, height, width, channels).
        rhs: the kernel; on the fast path of shape (height, width, channels, features).
        window_strides: strides of the kernel.
        padding: ``"SAME"``, ``"VALID"`` or a pair (low, high) for each spatial axis.
        lhs_dilation: dilation of the images, none by default.
        rhs_dilation: dilation of the kernel, none by default.
        dimension_numbers: the layout of images, kernel and result.
        feature_group_count: groups of channels.
        batch_group_count: groups of images.
        precision: of the matrix products.
        preferred_element_type: the dtype of the result.
        out_sharding: the sharding of the result.

    Returns:
        The convolved images; on the fast path of shape (batch, height, width, features).

    Example::

        flax.linen.Conv(32, (3, 3), conv_general_dilated=conv_general_dilated)
    """
    convolve = partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    result = jax.eval_shape(convolve, lhs, rhs)  # JAX's own checks and error messages
    if not (
        jax.default_backend() == "cpu"
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _NHWC
        and feature_group_count == batch_group_count == 1
        and lhs.dtype == rhs.dtype == result.dtype
        and jnp.issubdtype(result.dtype, jnp.floating)
        and 0 not in (*lhs.shape, *rhs.shape, *result.shape)
        and out_sharding is None
    ):
        return convolve(lhs, rhs)
    kernel_dilation = rhs_dilation or (1, 1)
    if isinstance(padding, str):
        spans = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], kernel_dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], spans, window_strides, padding)
    interior = [dilation - 1 for dilation in lhs_dilation or (1, 1)]
    pads = [(low, high, inner) for (low, high), inner in zip(padding, interior, strict=True)]
    rows, columns = map(_Axis, rhs.shape[:2], result.shape[1:3], window_strides, kernel_dilation)
    return _convolve(lhs, rhs, pads, rows, columns, precision)


class _Axis(NamedTuple):
    """A convolution along one of the images' two axes."""

    kernel: int
    result: int
    stride: int
    dilation: int

    def met_by(self, element: int, padded: Array, *, axis: int) -> Array:
        """The pixels that an element of the kernel meets, one for each pixel of the result."""
        start = element * self.dilation
        limit = start + (self.result - 1) * self.stride + 1
        return lax.slice_in_dim(padded, start, limit, self.stride, axis)


def _convolve(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
    pads: list[tuple[int, int, int]],
    rows: _Axis,
    columns: _Axis,
    precision: Any,
) -> Float[Array, "batch result_height result_width features"]:
    """A few images at a time."""
    channels, features = kernel.shape[2:]
    row_size = columns.kernel * channels
    # Time goes with the numbers written: copies before the product, sums to add after it.
    adds_rows = rows.stride == 1 and row_size + rows.kernel * features <= rows.kernel * row_size
    if adds_rows:
        matrix = jnp.moveaxis(kernel, 0, 2).reshape(row_size, rows.kernel * features)
        height = rows.result + (rows.kernel - 1) * rows.dilation
    else:
        matrix = kernel.reshape(rows.kernel * row_size, features)
        height = rows.result * rows.kernel
    product = _sum_of_rows if adds_rows else _product_of_copies

    # Without the checkpoint the backward pass keeps the copies of all images.
    @partial(jax.checkpoint, prevent_cse=False)
    def convolve_one(image: Array, matrix: Array) -> Array:
        padded = lax.pad(image, jnp.zeros([], image.dtype), [*pads, (0, 0, 0)])
        return product(padded, matrix, rows, columns, precision).astype(image.dtype)

    copies_bytes = height * columns.result * row_size * images.dtype.itemsize
    chunk_size = _chunk_size(len(images), max(1, _CHUNK_BYTES // copies_bytes))
    return lax.map(lambda image: convolve_one(image, matrix), images, batch_size=chunk_size)


def _chunk_size(num_images: int, most: int) -> int:
    """The largest size of chunks without a rest, unless it is far from the most."""
    sizes = range(1, min(most, num_images) + 1)
    largest = max(size for size in sizes if num_images % size == 0)
    return largest if 2 * largest >= sizes[-1] else sizes[-1]


def _product_of_copies(
    padded: Float[Array, "height width channels"],
    matrix: Float[Array, "copies features"],
    rows: _Axis,
    columns: _Axis,
    precision: Any,
) -> Float[Array, "result_height result_width features"]:
    """Copies for every element of the kernel, times the kernel."""
    copies = [
        columns.met_by(j, rows.met_by(i, padded, axis=0), axis=1)
        for i in range(rows.kernel)
        for j in range(columns.kernel)
    ]
    return _dot(jnp.concatenate(copies, axis=2), matrix, precision)


def _sum_of_rows(
    padded: Float[Array, "height width channels"],
    matrix: Float[Array, "copies rows_of_features"],
    rows: _Axis,
    columns: _Axis,
    precision: Any,
) -> Float[Array, "result_height result_width features"]:
    """Copies for every column of the kernel, times each row of the kernel, rows added up."""
    copies = [columns.met_by(j, padded, axis=1) for j in range(columns.kernel)]
    products = _dot(jnp.concatenate(copies, axis=2), matrix, precision)
    parts = lax.split(products, [products.shape[2] // rows.kernel] * rows.kernel, axis=2)

    # XLA turns this into slices. Written as slices it is as fast forward, but transposed it pads
    # once for each row of the kernel: 20 to 40 % more time backward.
    margin = (rows.kernel - 1) * rows.dilation
    shifts = (i * rows.dilation for i in range(rows.kernel))
    shifted = (
        jnp.pad(part, ((margin - shift, shift), (0, 0), (0, 0)))
        for part, shift in zip(parts, shifts, strict=True)
    )
    return lax.slice_in_dim(reduce(jnp.add, shifted), margin, margin + rows.result)


def _dot(x: Array, y: Array, precision: Any) -> Array:
    # Half precision adds up in float32, as in XLA's convolution.
    dtype = jnp.promote_types(y.dtype, jnp.float32)
    return jnp.dot(x, y, precision=precision, preferred_element_type=dtype)
