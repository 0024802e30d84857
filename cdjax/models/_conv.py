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

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from cdjax._divisors import largest_divisor
from cdjax._stored import kept
from cdjax._trees import widened

Images: TypeAlias = Float[Array, "batch height width channels"]
Kernel: TypeAlias = Float[Array, "kernel_height kernel_width channels features"]
Result: TypeAlias = Float[Array, "batch result_height result_width features"]
# The one fast layout: (batch, channels, spatial...) as axis numbers of NHWC, HWIO and NHWC.
_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
# Bytes of the copies that one product of a kernel's gradient is made of: they stay in the cache.
_COPIED_BYTES = 3 << 19
# How many multiplications of a matrix product take as long as to copy a number: 0.4 and 0.02 ns on
# two cores with AVX2.
_COPY_COST = 20


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

    def taps(self) -> list[tuple[_Taps, _Taps]]:
        """Two ways to read the images and the result so that the pixels meet that a tap joins.

        In tap t, pixel i of the result meets the dilated image at i·stride + t·dilation - low. So
        either the images are read there for every i; or the result, dilated by the stride, is read
        at p·image_dilation + low - t·dilation for every pixel p of the images.
        """
        reach = [tap * self.kernel_dilation - self.low for tap in range(self.kernel)]
        of_images = _Taps(reach, self.stride, self.result, self.image_dilation)
        of_result = _Taps(
            [-offset for offset in reach], self.image_dilation, self.image, self.stride
        )
        one = _Taps([0], 1, self.result, 1)
        return [(of_images, one), (one._replace(num_pixels=self.image), of_result)]


class _Taps(NamedTuple):
    """Copies of a dilated axis, one per offset: pixels offset + i·step for i < num_pixels."""

    offsets: Sequence[int]
    step: int
    num_pixels: int
    dilation: int

    @property
    def reach(self) -> int:
        """How far the last pixel of a copy is from its first."""
        return (self.num_pixels - 1) * self.step


class _View(NamedTuple):
    """How one array is read for the kernel's gradient."""

    rows: _Taps
    columns: _Taps

    @property
    def num_copies(self) -> int:
        return len(self.rows.offsets) * len(self.columns.offsets)

    @property
    def num_pixels(self) -> int:
        return self.rows.num_pixels * self.columns.num_pixels


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
    """The kernel's gradient: one product of the pixels of the images with those of the result's.

    k̄[t] = Σ_i x[i·stride + t·dilation - low]·ȳ[i], summed over the images. Along each axis either
    the images are copied once per tap t, shifted by it, or ȳ is, shifted the other way. With 3×3
    taps, the images shifted along the columns and ȳ along the rows, the shapes of the product are
    (3·channels, pixels) and (pixels, 3·features), and each tap occurs in it once. That takes three
    copies of both arrays instead of nine of one, and avoids thin matrices, at which XLA is slow.

    The scan takes as many images at a time as leave their copies in the cache. It first turns them
    so that a channel's pixels lie side by side: then a copy is a few long runs of numbers, and the
    product reads both of its operands in their order, 1.1 to 1.5 times as fast on a core with AVX2
    (the least of seven turns, over the layers of the paper's CNN).
    """
    widths = images.shape[3], result.shape[3]
    views = _cheapest_views(rows, columns, widths=widths)
    copied = sum(view.num_copies * width for view, width in zip(views, widths, strict=True))
    most = max(1, _COPIED_BYTES // (views[0].num_pixels * copied * images.dtype.itemsize))
    size = _chunk_size(len(images), most)
    num_chunks = -(-len(images) // size)
    pairs = [
        _zeros_behind(x, 0, num_chunks * size - len(x)).reshape(num_chunks, size, *x.shape[1:])
        for x in (images, result)
    ]

    def add_chunk(total: Array, chunk: tuple[Array, list[Array]]) -> tuple[Array, None]:
        number, (images, result) = chunk
        # Else XLA:CPU would turn every copy by itself, number by number.
        (turned,) = kept([jnp.moveaxis(images, 3, 0)], number)
        lhs = jnp.concatenate(_copies(turned, views[0], axes=(2, 3)))
        rhs = jnp.concatenate(_copies(result, views[1], axes=(1, 2)), 3)
        product = jnp.matmul(
            lhs.reshape(len(lhs), -1), rhs.reshape(-1, rhs.shape[3]), precision=precision
        )
        return total + product, None

    # Along each axis of the kernel one of the arrays has a copy per tap, and the other has one.
    (top, left), (bottom, right) = ([len(taps.offsets) for taps in view] for view in views)
    zero = jnp.zeros((top * left * widths[0], bottom * right * widths[1]), images.dtype)
    chunks = jnp.arange(num_chunks), pairs
    # Two chunks a turn: XLA computes them at once, so that one core need not wait for the other.
    product = lax.scan(add_chunk, _vary_like(zero, images), chunks, unroll=2)[0]
    product = product.reshape(top, left, widths[0], bottom, right, widths[1])
    return product.transpose(0, 3, 1, 4, 2, 5).reshape(rows.kernel, columns.kernel, *widths)


def _chunk_size(number: int, most: int) -> int:
    """How many of a number of images to take at a time: a divisor if one is near ``most``."""
    most = min(number, most)
    divisor = largest_divisor(number, most)
    return divisor if 2 * divisor > most else -(-number // -(-number // most))


def _cheapest_views(rows: _Axis, columns: _Axis, *, widths: tuple[int, int]) -> tuple[_View, _View]:
    """Which array to copy along which axis: how the images are read, and how the result is."""

    def cost(views: tuple[_View, _View]) -> int:
        numbers = [view.num_copies for view in views]
        copied = sum(n * width for n, width in zip(numbers, widths, strict=True) if n > 1)
        multiplied = math.prod([*numbers, *widths])
        return views[0].num_pixels * (_COPY_COST * copied + multiplied)

    return min(_views(rows, columns), key=cost)


def _views(rows: _Axis, columns: _Axis) -> list[tuple[_View, _View]]:
    """The four ways to bring together the pixels of images and result that meet in a tap."""
    choices = itertools.product(rows.taps(), columns.taps())
    return [(_View(r[0], c[0]), _View(r[1], c[1])) for r, c in choices]


def _copies(array: Array, view: _View, *, axes: tuple[int, int]) -> list[Array]:
    """The pixels that a view reads, a copy for each pair of taps; ``axes`` are rows and columns."""

    def copy(*offsets: int) -> Array:
        pads, steps = [(0, 0, 0)] * array.ndim, [1] * array.ndim
        for axis, taps, offset in zip(axes, view, offsets, strict=True):
            # Negative padding crops.
            behind = offset + taps.reach - (array.shape[axis] - 1) * taps.dilation
            pads[axis] = (-offset, behind, taps.dilation - 1)
            steps[axis] = taps.step
        padded = lax.pad(array, jnp.zeros([], array.dtype), pads)
        return lax.slice(padded, [0] * array.ndim, padded.shape, steps)

    return list(itertools.starmap(copy, itertools.product(*(taps.offsets for taps in view))))


def _dilated(images: Array, rows: _Axis, columns: _Axis, *, high: int = 0) -> Array:
    pads = [(0, 0, 0), (0, 0, rows.image_dilation - 1), (0, high, columns.image_dilation - 1)]
    return lax.pad(images, jnp.zeros([], images.dtype), [*pads, (0, 0, 0)])


def _zeros_behind(array: Array, axis: int, number: int = 1) -> Array:
    return jnp.pad(array, [(0, number * (i == axis)) for i in range(array.ndim)])


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
    value = _MAPS[wanted](widened(first), widened(second), *axes, precision)
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
