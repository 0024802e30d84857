r"""Compressors that send every entry, in few bits.

Bernstein, Wang, Azizzadenesheli, Anandkumar, *signSGD: Compressed Optimisation for Non-Convex
Problems*, ICML 2018, arXiv:1802.04434; scaled as in Karimireddy, Rebjock, Stich, Jaggi, *Error
Feedback Fixes SignSGD and other Gradient Compression Schemes*, ICML 2019, arXiv:1901.09847.

Alistarh, Grubic, Li, Tomioka, Vojnovic, *QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding*, NeurIPS 2017, arXiv:1610.02132: stochastic rounding.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

from cdjax._checks import check_count, check_key
from cdjax._trees import widened
from cdjax.compress._compressor import Compressor, Message, as_scale, pack, size_of, unpack


def sign() -> Compressor:
    r"""Sends the signs of a leaf, a bit each, and its mean magnitude.

    .. math:: Q(x) = \frac{\| x \|_1}{d} \operatorname{sign}(x), \qquad
              \| Q(x) - x \|^2 = \Big( 1 - \frac{\| x \|_1^2}{d \| x \|^2} \Big) \| x \|^2

    So :math:`\delta` is at least 1 / d. The sign of zero is positive.

    Example: ``tx = cdjax.choco(optax.sgd(0.1), mix, cdjax.compress.sign(), consensus_step=0.4)``

    Reference: Karimireddy et al. (2019), Lemma 8 (number not verified).
    """

    def encode(x: Array, key: Array | None) -> Message:
        del key
        flat = widened(x).ravel()
        scale = jnp.sum(jnp.abs(flat)) / max(1, flat.size)
        return jnp.packbits(flat >= 0, bitorder="little"), scale

    def decode(message: Message, like: jax.ShapeDtypeStruct) -> Array:
        bits, scale = message
        positive = jnp.unpackbits(bits, count=size_of(like.shape), bitorder="little") > 0
        return jnp.where(positive, scale, -scale).reshape(like.shape).astype(like.dtype)

    return Compressor("sign", encode, decode, lambda shape: 1 / max(1, size_of(shape)))


def quantize(bits: int, *, key: PRNGKeyArray | None = None) -> Compressor:
    r"""Sends every entry as one of :math:`2^b - 1` multiples of a leaf's step s, and s.

    .. math:: s = \max_i |x_i| / L, \qquad L = 2^{b-1} - 1, \qquad Q(x) = s \, [x / s]

    With :math:`[\cdot]` to the nearest whole number no entry is off by more than s / 2, and none by
    more than itself, so that with :math:`a = (d - 1) / 4 L^2` (tight)

    .. math:: \| Q(x) - x \|^2 \le \frac{a}{1 + a} \| x \|^2.

    With a key :math:`[\cdot]` rounds up with the probability :math:`x / s - \lfloor x / s \rfloor`:
    then :math:`E \, Q(x) = x`, and :math:`1 - \delta = (\sqrt{1 + 4 a} - 1) / 2`, which contracts
    only if :math:`d - 1 < 8 L^2`. Both bounds are derived here.

    Args:
        bits: b of an entry, in [2, 16].
        key: of the draws of stochastic rounding; rounds to the nearest without.

    Raises:
        ValueError: if an argument is out of its range.

    Example::

        four_bits = cdjax.compress.quantize(4)
        tx = cdjax.choco(optax.sgd(0.1), mix, four_bits, consensus_step=0.8)

    Reference: Alistarh et al. (2017), Section 3.1, with the largest magnitude in place of the norm
    (number not verified).
    """
    check_count("bits", bits, low=2)
    if bits > 16:
        raise ValueError(f"bits is {bits}; it must lie in [2, 16]")
    if key is not None:
        check_key(key)
    most = 2 ** (bits - 1) - 1

    def encode(x: Array, key: Array | None) -> Message:
        flat = widened(x).ravel()
        step = jnp.max(jnp.abs(flat), initial=0) / most
        steps = flat / as_scale(step)
        if key is None:
            rounded = jnp.round(steps)
        else:
            rounded = stochastic_round(steps, jax.random.uniform(key, flat.shape, flat.dtype))
        codes = jnp.clip(rounded, -most, most).astype(jnp.int32) + most
        return (codes.astype(jnp.uint8) if bits == 8 else pack(codes, bits)), step

    def decode(message: Message, like: jax.ShapeDtypeStruct) -> Array:
        packed, step = message
        codes = packed if bits == 8 else unpack(packed, bits, size_of(like.shape))
        values = (codes.astype(jnp.int32) - most).astype(step.dtype) * step
        return values.reshape(like.shape).astype(like.dtype)

    def contraction(shape: tuple[int, ...]) -> float:
        a = max(0, size_of(shape) - 1) / (4 * most**2)
        return 1 / (1 + a) if key is None else 1 - (math.sqrt(1 + 4 * a) - 1) / 2

    name = f"{bits} bits" + ("" if key is None else ", stochastic")
    return Compressor(name, encode, decode, contraction, key)


def bin_means(bits: int) -> Compressor:
    r"""Sends the bin of each entry, and the mean of the entries in each bin.

    There are :math:`2^b` bins of width :math:`6 \sigma / 2^b`, of which the one of number
    :math:`2^{b-1}` is centred at the leaf's mean, and the outer ones are open. Q keeps the sum of
    each leaf, and is idempotent in no other way; no bound on its error is known.

    Args:
        bits: b of an entry, in [1, 16].

    Raises:
        ValueError: if ``bits`` is out of its range.

    Example: ``compressor = cdjax.compress.bin_means(8)``

    Reference: github.com/learning-at-home/hivemind, hivemind/compression/quantization.py,
    UniformSymmetric8Bit quantization (not verified).
    """
    check_count("bits", bits, low=1)
    if bits > 16:
        raise ValueError(f"bits is {bits}; it must lie in [1, 16]")

    def encode(x: Array, key: Array | None) -> Message:
        del key
        codes, means = encode_bins(x.ravel(), bits)
        return pack(codes, bits), means

    def decode(message: Message, like: jax.ShapeDtypeStruct) -> Array:
        packed, means = message
        codes = unpack(packed, bits, size_of(like.shape))
        return decode_bins(codes, means).reshape(like.shape).astype(like.dtype)

    return Compressor(f"means of {2**bits} bins", encode, decode, lambda shape: 0.0)


def stochastic_round(x: Float[Array, ...], uniform: Float[Array, ...]) -> Float[Array, ...]:
    """Rounds each entry up with the probability of its fractional part, for draws from [0, 1)."""
    return jnp.floor(x + uniform)


def encode_bins(x: Float[Array, ...], bits: int) -> tuple[Int[Array, ...], Float[Array, " bins"]]:
    """The bin of each entry, and the means of the bins; 0 for an empty one."""
    x, num_bins = widened(x), 2**bits
    if x.size == 0:
        return jnp.zeros(x.shape, jnp.int32), jnp.zeros(num_bins, x.dtype)
    center = jnp.mean(x)
    width = as_scale(jnp.sqrt(jnp.mean((x - center) ** 2)) * (6 / num_bins))
    codes = jnp.round((x - center) / width) + num_bins // 2
    codes = jnp.clip(codes, 0, num_bins - 1).astype(jnp.int32)
    zeros = jnp.zeros(num_bins, x.dtype)
    sums, counts = zeros.at[codes].add(x), zeros.at[codes].add(1)
    return codes, sums / jnp.maximum(counts, 1)


def decode_bins(codes: Integer[Array, ...], means: Float[Array, " bins"]) -> Float[Array, ...]:
    """The mean of each entry's bin."""
    return means[codes]
