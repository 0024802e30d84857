r"""A convolution that is fast on a CPU under the agent axis and inside loops.

XLA:CPU reaches the speed of its matrix products in one form only: images of layout NHWC, a kernel
of layout HWIO, one group. Outside loops XLA rewrites gradients into that form. Inside loops
(``lax.scan``, ``lax.map``) it does not, and gradients take about 40 times as long (jax issues
26568, 15339, 13800). The grouped convolutions into which ``vmap`` turns one kernel per agent are as
slow. This module writes every convolution and every gradient in the fast form itself.

A convolution :math:`y = x * k` is bilinear, so :math:`\langle \bar{y},\, x * k \rangle` is linear
in each of three arrays. Its derivatives with respect to them are the convolution and its two
gradients:

.. math::
    (x, k) \mapsto y, \qquad (\bar{y}, k) \mapsto \bar{x}, \qquad (x, \bar{y}) \mapsto \bar{k}.

Each of these maps is bilinear, and the other two are its transposes. So one primitive with three
faces ("result", "images", "kernel") is closed under differentiation and has derivatives of any
order, which a ``custom_vjp`` would not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Images: TypeAlias = Float[Array, "batch height width channels"]
Kernel: TypeAlias = Float[Array, "kernel_height kernel_width channels features"]
Result: TypeAlias = Float[Array, "batch result_height result_width features"]
# The one fast layout: (batch, channels, spatial...) as axis numbers of NHWC, HWIO and NHWC.
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
    """A drop-in for :func:`jax.lax.conv_general_dilated`, for the Flax argument of that name.

    On a CPU, two-dimensional convolutions of floats take the fast path if they have one group,
    images of shape (batch, height, width, channels) and a kernel of shape (height, width, channels,
    features). All other convolutions and all other backends are left to JAX. The arguments are
    those of JAX's function, and values and derivatives equal its own up to rounding.

    Example::

        convolve = cdjax.models.conv_general_dilated
        layer = flax.linen.Conv(32, (3, 3), conv_general_dilated=convolve)
    """
    geometry = window_strides, padding, lhs_dilation, rhs_dilation
    layout = dimension_numbers, feature_group_count, batch_group_count
    options = *geometry, *layout, precision, preferred_element_type, out_sharding

    def convolve(lhs: Array, rhs: Array) -> Array:
        return lax.conv_general_dilated(lhs, rhs, *options)

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
    image, kernel = lhs.shape[1:3], rhs.shape[:2]
    dilations = lhs_dilation or (1, 1), rhs_dilation or (1, 1)
    if isinstance(padding, str):
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations[1], strict=True)]
        padding = lax.padtype_to_pads(image, spans, window_strides, padding)
    pads = zip(*padding, strict=True)
    axes = tuple(map(_Axis, image, kernel, result.shape[1:3], window_strides, *pads, *dilations))
    operands = _vary_like(lhs, rhs), _vary_like(rhs, lhs)
    return _convolution.bind(*operands, wanted="result", axes=axes, precision=precision)


class _Axis(NamedTuple):
    """A convolution along one of the two spatial axes: sizes, stride, padding and dilations.

    A span is a size once the dilation or the stride has put its gaps between the pixels.
    """

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
        """The convolution of the result's gradient with the flipped kernel: the images' gradient.

        With y[i] = Σ_t x[i·stride + t - low]·k[t] (x dilated), pixel p of x meets k[t] in the
        result i·stride = p + low - t. With the kernel flipped, t → span - 1 - t, that is again a
        convolution: of y dilated by the old stride, with low padding span - 1 - low, taken at the
        pixels that the old image dilation leaves, so it becomes the stride. The high padding
        follows from the number of pixels wanted. Both may be negative, which crops.
        """
        low = self.kernel_span - 1 - self.low
        high = self.image_span + self.kernel_span - 1 - self.result_span - low
        pads = {"low": low, "high": high}
        dilations = {"stride": self.image_dilation, "image_dilation": self.stride}
        return self._replace(image=self.result, result=self.image, **pads, **dilations)


def _result(images: Images, kernel: Kernel, rows: _Axis, columns: _Axis, precision: Any) -> Result:
    """The convolution: all images side by side as one wide image.

    XLA:CPU divides a wide image among the cores. So the batch becomes part of the width: the strip
    has the shape (1, height, batch · pitch, channels).
    """
    batch, _, _, channels = images.shape
    if channels % 2 and channels > 1:  # XLA:CPU takes three times as long for an odd number
        images, kernel = _zeros_behind(images, 3), _zeros_behind(kernel, 2)
    # The pitch is the distance between two images of the strip. The zeros between them serve as
    # the high padding of the left and the low padding of the right one. A multiple of the stride
    # makes the kernel start at the same column of every image, so that the result can be cut up
    # again by a reshape; each image needs room for all of its columns of the result.
    room = columns.image_span + max(columns.low, columns.high, 0)
    pitch = max(-(-room // columns.stride), columns.result) * columns.stride
    strip = _dilated(images, rows, columns, high=pitch - columns.image_span).swapaxes(0, 1)
    # With this padding behind it, the strip has exactly batch · pitch / stride columns.
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
    # The columns behind an image's own mix it with its neighbour.
    return result[:, :, : columns.result].swapaxes(0, 1)


def _images(result: Result, kernel: Kernel, rows: _Axis, columns: _Axis, precision: Any) -> Images:
    """The images' gradient: a convolution of the result's with the flipped kernel."""
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _result(result, flipped, rows.transposed(), columns.transposed(), precision)


def _kernel(images: Images, result: Result, rows: _Axis, columns: _Axis, precision: Any) -> Kernel:
    """The kernel's gradient: a convolution of the images with the result's gradient as the kernel.

    k̄[t] = Σ_i x[i·stride + t·dilation - low]·ȳ[i], summed over the images: channels take the place
    of the batch and the batch that of the channels, which are summed over; stride and kernel
    dilation change places.

    The scan takes two images at a time, since their transposed copies then stay in the cache. An
    odd number of images as channels, 1 included, would take XLA:CPU longer.
    """
    images = _dilated(images, rows, columns)
    if len(images) % 2:
        images, result = _zeros_behind(images, 0), _zeros_behind(result, 0)

    def add_pair(total: Array, pair: list[Array]) -> tuple[Array, None]:
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
    pairs = [array.reshape(-1, 2, *array.shape[1:]) for array in (images, result)]
    return lax.scan(add_pair, zero, pairs)[0].transpose(1, 2, 0, 3)


def _dilated(images: Array, rows: _Axis, columns: _Axis, *, high: int = 0) -> Array:
    pads = [(0, 0, 0), (0, 0, rows.image_dilation - 1), (0, high, columns.image_dilation - 1)]
    return lax.pad(images, jnp.zeros([], images.dtype), [*pads, (0, 0, 0)])


def _zeros_behind(array: Array, axis: int) -> Array:
    return jnp.pad(array, [(0, int(i == axis)) for i in range(array.ndim)])


def _vary_like(array: Array, other: Array) -> Array:
    """Inside ``shard_map``, marks the array as varying over the mesh axes that the other varies on.

    The operands of the primitive must vary alike. The transpose of this multiplication is the psum
    that the gradient of a replicated kernel needs.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return array
    return array * jnp.prod(lax.stop_gradient(other[:0]))  # an empty product: 1


# The three faces of the primitive, each named after its value; the other two are its operands.
_MAPS = {"images": _images, "result": _result, "kernel": _kernel}
_OPERANDS = {face: [other for other in _MAPS if other != face] for face in _MAPS}


def _evaluate(
    first: Array, second: Array, *, wanted: str, axes: tuple[_Axis, _Axis], precision: Any
) -> Array:
    # Half precision is summed in float32, as XLA's own convolutions do.
    wide = jnp.promote_types(first.dtype, jnp.float32)
    value = _MAPS[wanted](first.astype(wide), second.astype(wide), *axes, precision)
    return value.astype(first.dtype)


def _transpose(which: int, cotangent: Array, *operands: Any, wanted: str, **params: Any) -> Array:
    """The derivative of ⟨cotangent, value⟩ with respect to one operand: another of the faces."""
    names = _OPERANDS[wanted]
    known = {wanted: cotangent, names[1 - which]: operands[1 - which]}
    sought = names[which]
    return _convolution.bind(*(known[n] for n in _OPERANDS[sought]), wanted=sought, **params)


def _batch(
    operands: Sequence[Any], batched: Sequence[int | None], *, wanted: str, **params: Any
) -> tuple[Array, int]:
    """Under vmap: a larger batch where all share the kernel, else one agent after another.

    A kernel per agent as one convolution would be a grouped one, which is the slow form.
    """
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


# Defined at import, since a primitive is its rules; no computation takes place here.
_convolution = Primitive("cdjax_convolution")
_convolution.def_impl(jax.jit(_evaluate, static_argnames=("wanted", "axes", "precision")))
_convolution.def_abstract_eval(
    lambda *avals, **params: jax.make_jaxpr(partial(_evaluate, **params))(*avals).out_avals[0]
)
mlir.register_lowering(_convolution, mlir.lower_fun(_evaluate, multiple_results=False))
ad.defbilinear(_convolution, partial(_transpose, 0), partial(_transpose, 1))
batching.primitive_batchers[_convolution] = _batch
