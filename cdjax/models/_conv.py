r"""A convolution that is fast on a CPU under the agent axis and in loops.

XLA:CPU's own runs at the speed of its matrix products in one form alone: images of layout NHWC and
a kernel of layout HWIO, in one group. Outside of loops it brings gradients into that form, inside
of loops it does not, and there they are some 40 times slower (jax issues 26568, 15339, 13800); so
are the groups into which ``vmap`` turns a kernel an agent. Here everything has that form.

A convolution :math:`y = x * k` is bilinear, so :math:`\langle \bar{y},\, x * k \rangle` is linear
in each of three arrays. Its derivatives by them are the convolution and the two gradients:

.. math::
    (x, k) \mapsto y, \qquad (\bar{y}, k) \mapsto \bar{x}, \qquad (x, \bar{y}) \mapsto \bar{k}.

Each of these maps is bilinear, and its transposes are the other two: one primitive with these three
faces has derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

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
        precision: of the products.
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
    axes = map(
        _Axis,
        lhs.shape[1:3],
        rhs.shape[:2],
        result.shape[1:3],
        window_strides,
        *zip(*padding, strict=True),
        lhs_dilation or (1, 1),
        kernel_dilation,
    )
    operands = _vary_like(lhs, rhs), _vary_like(rhs, lhs)
    return _convolution.bind(*operands, wanted="result", axes=tuple(axes), precision=precision)


class _Axis(NamedTuple):
    """A convolution along one of the images' two axes."""

    image: int
    kernel: int
    result: int
    stride: int
    low: int
    high: int
    image_dilation: int
    kernel_dilation: int

    @property
    def image_span(self) -> int:
        return (self.image - 1) * self.image_dilation + 1

    @property
    def kernel_span(self) -> int:
        return (self.kernel - 1) * self.kernel_dilation + 1

    @property
    def result_span(self) -> int:
        return (self.result - 1) * self.stride + 1

    def transposed(self) -> _Axis:
        """The convolution of the result's gradient with the turned kernel: the images'."""
        low = self.kernel_span - 1 - self.low
        high = self.image_span + self.kernel_span - 1 - self.result_span - low
        pads = {"low": low, "high": high}
        dilations = {"stride": self.image_dilation, "image_dilation": self.stride}
        return self._replace(image=self.result, result=self.image, **pads, **dilations)


def _result(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
    rows: _Axis,
    columns: _Axis,
    precision: Any,
) -> Float[Array, "batch result_height result_width features"]:
    """All images side by side as a single one: XLA:CPU cuts wide images among the cores."""
    batch, _, _, channels = images.shape
    if channels % 2 and channels > 1:  # XLA:CPU is three times slower with an odd number
        images, kernel = _zeros_behind(images, 3), _zeros_behind(kernel, 2)
    # The zeros between two images are the padding of both.
    pitch = max(
        columns.image_span + max(columns.low, columns.high, 0), columns.stride * columns.result
    )
    pitch = -(-pitch // columns.stride) * columns.stride
    strip = _dilated(images, rows, columns, high=pitch - columns.image_span).swapaxes(0, 1)
    after_last = columns.kernel_span - columns.stride - columns.low
    result = lax.conv_general_dilated(
        strip.reshape(1, len(strip), -1, images.shape[3]),
        kernel,
        window_strides=(rows.stride, columns.stride),
        padding=[(rows.low, rows.high), (columns.low, after_last)],
        rhs_dilation=(rows.kernel_dilation, columns.kernel_dilation),
        dimension_numbers=_NHWC,
        precision=precision,
    )
    result = result.reshape(rows.result, batch, -1, kernel.shape[3])
    return result[:, :, : columns.result].swapaxes(0, 1)


def _images(
    result: Float[Array, "batch result_height result_width features"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
    rows: _Axis,
    columns: _Axis,
    precision: Any,
) -> Float[Array, "batch height width channels"]:
    """A convolution of the result with the kernel turned around."""
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _result(result, turned, rows.transposed(), columns.transposed(), precision)


def _kernel(
    images: Float[Array, "batch height width channels"],
    result: Float[Array, "batch result_height result_width features"],
    rows: _Axis,
    columns: _Axis,
    precision: Any,
) -> Float[Array, "kernel_height kernel_width channels features"]:
    """A convolution that has channels for images, the result for a kernel and images for channels.

    Two images at a time: their copies in the other layout stay in the cache, and an odd number, one
    too, takes XLA:CPU longer.
    """
    images = _dilated(images, rows, columns)
    if len(images) % 2:
        images, result = _zeros_behind(images, 0), _zeros_behind(result, 0)

    def add_pair(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        images, result = pair
        kernel = lax.conv_general_dilated(
            images.transpose(3, 1, 2, 0),
            result.transpose(1, 2, 0, 3),
            window_strides=(rows.kernel_dilation, columns.kernel_dilation),
            padding=[
                (a.low, a.result_span + a.kernel_span - 1 - a.image_span - a.low)
                for a in (rows, columns)
            ],
            rhs_dilation=(rows.stride, columns.stride),
            dimension_numbers=_NHWC,
            precision=precision,
        )
        return total + kernel, None

    shape = (images.shape[3], rows.kernel, columns.kernel, result.shape[3])
    zero = _vary_like(jnp.zeros(shape, images.dtype), images)
    pairs = _pairs(images), _pairs(result)
    return lax.scan(add_pair, zero, pairs)[0].transpose(1, 2, 0, 3)


def _pairs(array: Array) -> Array:
    return array.reshape(-1, 2, *array.shape[1:])


def _dilated(images: Array, rows: _Axis, columns: _Axis, *, high: int = 0) -> Array:
    pads = [(0, 0, 0), (0, 0, rows.image_dilation - 1), (0, high, columns.image_dilation - 1)]
    return lax.pad(images, jnp.zeros([], images.dtype), [*pads, (0, 0, 0)])


def _zeros_behind(array: Array, axis: int) -> Array:
    return jnp.pad(array, [(0, int(i == axis)) for i in range(array.ndim)])


def _vary_like(array: Array, other: Array) -> Array:
    """Inside of shard_map, the array as one that varies over the mesh axes that the other does."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return array
    return array * jnp.prod(lax.stop_gradient(other[:0]))  # the product of no numbers, 1


_MAPS = {"result": _result, "images": _images, "kernel": _kernel}
_OPERANDS = {"result": ("images", "kernel"), "images": ("result", "kernel")}
_OPERANDS["kernel"] = ("images", "result")


def _evaluate(
    first: Array, second: Array, *, wanted: str, axes: tuple[_Axis, _Axis], precision: Any
) -> Array:
    # Half precision adds up in float32, as in XLA's own.
    wide = jnp.promote_types(first.dtype, jnp.float32)
    value = _MAPS[wanted](first.astype(wide), second.astype(wide), *axes, precision)
    return value.astype(first.dtype)


def _transpose(which: int, cotangent: Array, *operands: Any, wanted: str, **params: Any) -> Array:
    names = _OPERANDS[wanted]
    known = {wanted: cotangent, names[1 - which]: operands[1 - which]}
    sought = names[which]
    return _convolution.bind(*(known[n] for n in _OPERANDS[sought]), wanted=sought, **params)


def _batch(
    operands: Sequence[Any], batched: Sequence[int | None], *, wanted: str, **params: Any
) -> tuple[Array, int]:
    """Under vmap: more images for a kernel that all share, else one after the other."""
    bind = partial(_convolution.bind, wanted=wanted, **params)
    pairs = enumerate(zip(operands, batched, strict=True))
    stacked = {i: jnp.moveaxis(x, axis, 0) for i, (x, axis) in pairs if axis is not None}
    if wanted != "kernel" and 1 not in stacked:
        size = stacked[0].shape[:2]
        value = bind(stacked[0].reshape(-1, *stacked[0].shape[2:]), operands[1])
        return value.reshape(*size, *value.shape[1:]), 0

    def one(own: dict[int, Array]) -> Array:
        return bind(*(own.get(i, x) for i, x in enumerate(operands)))

    return lax.map(one, stacked), 0


_convolution = Primitive("cdjax_convolution")
_convolution.def_impl(jax.jit(_evaluate, static_argnames=("wanted", "axes", "precision")))
_convolution.def_abstract_eval(
    lambda *avals, **params: jax.make_jaxpr(partial(_evaluate, **params))(*avals).out_avals[0]
)
mlir.register_lowering(_convolution, mlir.lower_fun(_evaluate, multiple_results=False))
ad.defbilinear(_convolution, partial(_transpose, 0), partial(_transpose, 1))
batching.primitive_batchers[_convolution] = _batch
