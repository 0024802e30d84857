r"""Compressors that send some entries: their values, and where they are in few bits.

Stich, Cordonnier, Jaggi, *Sparsified SGD with Memory*, NeurIPS 2018, arXiv:1809.07599: top-k and
random-k.

Peng, Quesnelle, Kingma, *DeMo: Decoupled Momentum Optimization*, 2024, arXiv:2411.19870: top-k of
the discrete cosine transform of chunks.

Sarfi et al., *Communication Efficient LLM Pre-training with SparseLoCo*, 2025, arXiv:2508.15706:
top-k of chunks, with values of two bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from cdjax._checks import check_count, check_key, check_scalar
from cdjax._divisors import largest_divisor
from cdjax._trees import widened
from cdjax.compress._compressor import (
    Compressor,
    Message,
    index_width,
    pack,
    size_of,
    sparse,
    unpack,
)
from cdjax.compress._quantizers import decode_bins, encode_bins


def top_k(fraction: float) -> Compressor:
    r"""Sends the entries of largest magnitude of each leaf, at least one.

    .. math:: \| Q(x) - x \|^2 \le (1 - k / d) \| x \|^2

    The message holds k values in the leaf's dtype, and k indices of :math:`\lceil \log_2 d \rceil`
    bits each.

    Args:
        fraction: k / d in (0, 1]; k is rounded to the nearest whole number.

    Raises:
        ValueError: if the fraction is out of its range.

    Example::

        one_percent = cdjax.compress.top_k(0.01)
        tx = cdjax.choco(optax.sgd(0.1), mix, one_percent, consensus_step=0.05)

    Reference: Stich et al. (2018), Definition 2.1 (number not verified).
    """
    check_scalar("fraction", fraction, low=0, high=1, low_open=True)

    def encode(x: Array, key: Array | None) -> Message:
        del key
        flat = x.ravel()
        count = _count(flat.size, fraction)
        if count == flat.size:
            return flat, jnp.zeros(0, jnp.uint8)
        _, indices = jax.lax.top_k(jnp.abs(flat), count)
        return flat[indices], pack(indices, index_width(flat.size))

    def entries(message: Message, like: jax.ShapeDtypeStruct) -> tuple[Array, Array]:
        (values, packed), size = message, size_of(like.shape)
        if len(values) == size:
            return values, jnp.ones(size, bool)
        indices = unpack(packed, index_width(size), len(values))
        return _scattered(values, indices, size)

    return sparse(f"top-k {fraction:g}", encode, entries, _reshaped, contraction=_share(fraction))


def random_k(fraction: float, key: PRNGKeyArray) -> Compressor:
    r"""Sends entries of each leaf that are drawn at random, at least one.

    .. math:: E \| Q(x) - x \|^2 = (1 - k / d) \| x \|^2

    The message holds k values, and in 8 bytes the seed from which the receiver draws the same
    positions.

    Args:
        fraction: k / d in (0, 1]; k is rounded to the nearest whole number.
        key: of the draws.

    Raises:
        ValueError: if the fraction is out of its range, or the key is none.

    Example: ``compressor = cdjax.compress.random_k(0.1, jax.random.key(0))``

    Reference: Stich et al. (2018), Definition 2.1 (number not verified).
    """
    check_scalar("fraction", fraction, low=0, high=1, low_open=True)
    check_key(key)

    def positions(seed: Array, size: int) -> Array:
        draw = jax.random.wrap_key_data(seed, impl="threefry2x32")
        return jax.random.permutation(draw, size)[: _count(size, fraction)]

    def encode(x: Array, key: PRNGKeyArray) -> Message:
        seed = jax.random.bits(key, (2,), jnp.uint32)
        return x.ravel()[positions(seed, x.size)], seed

    def entries(message: Message, like: jax.ShapeDtypeStruct) -> tuple[Array, Array]:
        (values, seed), size = message, size_of(like.shape)
        return _scattered(values, positions(seed, size), size)

    return sparse(
        f"random-k {fraction:g}",
        encode,
        entries,
        _reshaped,
        contraction=_share(fraction),
        key=key,
    )


def dct_top_k(k: int, chunk: int = 64) -> Compressor:
    r"""Sends the k largest coefficients of each chunk's discrete cosine transform.

    A matrix is cut into chunks of ``chunk`` × ``chunk``, a vector into chunks of ``chunk``; where
    that does not divide a length, its largest divisor below does. Leaves of more than two axes are
    matrices with the last axis as columns. The transform is the orthonormal DCT-II,

    .. math:: D_{ij} = \sqrt{(2 - [i = 0]) / n} \, \cos(\pi i (2 j + 1) / 2 n),

    so that :math:`\| Q(x) - x \|^2 \le (1 - k / c) \| x \|^2` with c entries in a chunk.

    Args:
        k: coefficients of a chunk, at least 1; all of them where a chunk has no more.
        chunk: the length of a chunk's sides.

    Raises:
        ValueError: if an argument is below 1.

    Example: ``tx = cdjax.demo(1e-3, cdjax.compress.dct_top_k(32, 64))``

    Reference: Peng et al. (2024), Algorithm 1, and github.com/bloc97/DeMo, demo.py (the number is
    not verified).
    """
    return _of_chunks(f"DCT top-{k} of {chunk}", k, chunk, transform=True, value_bits=None)


def chunk_top_k(k: int, chunk: int = 64, *, value_bits: int | None = None) -> Compressor:
    r"""Sends the k largest entries of each chunk of a leaf, with values of few bits if wanted.

    Chunks are those of :func:`dct_top_k`. Of chunks of 64 × 64, k = 64 and two bits a value, one
    takes 96 bytes of indices and 16 of values, out of 16,384; each leaf has a table of the means of
    its values in each of the :math:`2^b` bins on top, see :func:`bin_means`.

    Args:
        k: entries of a chunk, at least 1; all of them where a chunk has no more.
        chunk: the length of a chunk's sides.
        value_bits: b; by default values travel in the leaf's dtype.

    Raises:
        ValueError: if an argument is below 1.

    Example::

        two_bits = cdjax.compress.chunk_top_k(64, value_bits=2)
        tx = cdjax.sparse_loco(optax.adamw(1e-4), two_bits)

    Reference: Sarfi et al. (2025), as in github.com/tplr-ai/templar, src/tplr/compress.py
    (the paper is not verified).
    """
    name = f"top-{k} of {chunk}" + (f" in {value_bits} bits" if value_bits else "")
    return _of_chunks(name, k, chunk, transform=False, value_bits=value_bits)


def _of_chunks(
    name: str, k: int, chunk: int, *, transform: bool, value_bits: int | None
) -> Compressor:
    check_count("k", k, low=1)
    check_count("chunk", chunk, low=1)
    if value_bits is not None:
        check_count("value_bits", value_bits, low=1)
    bits = value_bits or 0  # 0 for values as they are

    def encode(x: Array, key: Array | None) -> Message:
        del key
        chunks = _cut(x, chunk, transform=transform)
        size = chunks.shape[1]
        if len(chunks) == 0 or k >= size and not bits:
            return chunks, jnp.zeros((len(chunks), 0), jnp.uint8)
        _, indices = jax.lax.top_k(jnp.abs(chunks), min(k, size))
        values = jnp.take_along_axis(chunks, indices, axis=1)
        places = jax.vmap(lambda row: pack(row, index_width(size)))(indices)
        if not bits:
            return values, places
        codes, means = encode_bins(values, bits)
        codes = jax.vmap(lambda row: pack(row, bits))(codes)
        return means, jnp.concatenate([places, codes], axis=1)

    def entries(message: Message, like: jax.ShapeDtypeStruct) -> tuple[Array, Array]:
        values, packed = message
        sides, num_chunks = _sides(like.shape, chunk)
        size = math.prod(sides)
        count, width = min(k, size), index_width(size)
        if num_chunks == 0 or k >= size and not bits:
            return values, jnp.ones(values.shape, bool)
        num_bytes = -(-count * width // 8)
        places = jax.vmap(lambda row: unpack(row, width, count))(packed[:, :num_bytes])
        if bits:
            codes = jax.vmap(lambda row: unpack(row, bits, count))(packed[:, num_bytes:])
            values = decode_bins(codes, values).astype(like.dtype)
        return jax.vmap(lambda v, i: _scattered(v, i, size))(values, places)

    def rebuild(chunks: Array, like: jax.ShapeDtypeStruct) -> Array:
        return _joined(chunks, like.shape, chunk, transform=transform).astype(like.dtype)

    def contraction(shape: tuple[int, ...]) -> float:
        sides, _ = _sides(shape, chunk)
        size = math.prod(sides)
        # Bins may bring nothing nearer: where their means are zeros, nothing is sent.
        return 0.0 if bits else min(k, size) / size

    return sparse(name, encode, entries, rebuild, contraction=contraction)


def cosines(size: int) -> Float[np.ndarray, "size size"]:
    """The orthonormal discrete cosine transform (DCT-II) of a length, a row a frequency."""
    frequency, place = np.arange(size)[:, None], np.arange(size)[None]
    scale = np.where(frequency == 0, 1, 2) / size
    return np.sqrt(scale) * np.cos(np.pi * frequency * (2 * place + 1) / (2 * size))


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns; a vector is one row."""
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def _sides(shape: tuple[int, ...], chunk: int) -> tuple[tuple[int, int], int]:
    """The sides of a leaf's chunks, and their number."""
    rows, columns = _as_matrix(shape)
    sides = largest_divisor(rows, chunk), largest_divisor(columns, chunk)
    return sides, rows * columns // math.prod(sides)


def _cut(x: Array, chunk: int, *, transform: bool) -> Shaped[Array, "chunks entries"]:
    (a, b), num_chunks = _sides(x.shape, chunk)
    rows, columns = _as_matrix(x.shape)
    chunks = x.reshape(rows // a, a, columns // b, b).swapaxes(1, 2)
    if transform:
        chunks = _transformed(chunks, cosines(a), cosines(b)).astype(x.dtype)
    return chunks.reshape(num_chunks, a * b)


def _joined(chunks: Array, shape: tuple[int, ...], chunk: int, *, transform: bool) -> Array:
    (a, b), _ = _sides(shape, chunk)
    rows, columns = _as_matrix(shape)
    chunks = chunks.reshape(rows // a, columns // b, a, b)
    if transform:
        chunks = _transformed(chunks, cosines(a).T, cosines(b).T)
    return chunks.swapaxes(1, 2).reshape(shape)


def _transformed(chunks: Array, left: np.ndarray, right: np.ndarray) -> Array:
    """``left @ chunk @ right.T`` of each chunk."""
    x = widened(chunks)
    rows, columns = jnp.asarray(left, x.dtype), jnp.asarray(right, x.dtype)
    return jnp.einsum("ij,abjk,lk->abil", rows, x, columns, precision="highest")


def _scattered(values: Array, indices: Array, size: int) -> tuple[Array, Array]:
    """Values at their indices, and where they are."""
    zeros = jnp.zeros(size, values.dtype)
    return zeros.at[indices].set(values), jnp.zeros(size, bool).at[indices].set(True)


def _reshaped(flat: Array, like: jax.ShapeDtypeStruct) -> Array:
    return flat.reshape(like.shape).astype(like.dtype)


def _count(size: int, fraction: float) -> int:
    return min(size, max(1, round(fraction * size)))


def _share(fraction: float) -> Callable[[tuple[int, ...]], float]:
    def contraction(shape: tuple[int, ...]) -> float:
        size = size_of(shape)
        return _count(size, fraction) / size if size else 1.0

    return contraction
