r"""Matrices of low rank in place of matrices.

Vogels, Karimireddy, Jaggi, *PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization*, NeurIPS 2019, arXiv:1905.13727.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cdjax._checks import check_count, check_key
from cdjax._trees import widened
from cdjax.compress._compressor import Compressor, Message


def low_rank(rank: int, key: PRNGKeyArray) -> Compressor:
    r"""Sends the projection of each matrix on r directions of its columns.

    .. math:: Q(X) = \hat{P} \hat{P}^\top X, \qquad \hat{P} = \operatorname{orthonormalize}(X G)

    with G of n × r normal draws. It contracts in expectation, with
    :math:`\delta = r / \min(m, n)` for an m × n matrix: equally large singular values are the worst
    case. A matrix of rank r is sent exactly. The message holds :math:`r (m + n)` numbers; leaves
    that have no more (vectors among them) are sent as they are. Leaves of more than two axes are
    matrices with the last axis as columns.

    Args:
        rank: r, at least 1.
        key: of the draws.

    Raises:
        ValueError: if the rank is below 1, or the key is none.

    Example: ``compressor = cdjax.compress.low_rank(4, jax.random.key(0))``

    Reference: Vogels et al. (2019), Algorithm 1, with fresh draws in place of the last step's
    directions.
    """
    check_count("rank", rank, low=1)
    check_key(key)

    def encode(x: Array, key: PRNGKeyArray) -> Message:
        if not is_reduced(x.shape, rank):
            return x
        matrix = as_matrix(widened(x))
        draws = jax.random.normal(key, (matrix.shape[1], rank), matrix.dtype)
        left = orthonormalize(_product(matrix, draws))
        return left.astype(x.dtype), _product(matrix.T, left).astype(x.dtype)

    def decode(message: Message, like: jax.ShapeDtypeStruct) -> Array:
        if not is_reduced(like.shape, rank):
            return message
        left, right = (widened(part) for part in message)
        return _product(left, right.T).reshape(like.shape).astype(like.dtype)

    def contraction(shape: tuple[int, ...]) -> float:
        return rank / min(matrix_shape(shape)) if is_reduced(shape, rank) else 1.0

    return Compressor(f"rank {rank}", encode, decode, contraction, key)


def is_reduced(shape: tuple[int, ...], rank: int) -> bool:
    """Whether r (m + n) numbers are fewer than those of a leaf."""
    rows, columns = matrix_shape(shape)
    return rank * (rows + columns) < rows * columns


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a leaf of one agent; a vector is one row."""
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def as_matrix(x: Array) -> Float[Array, "rows columns"]:
    """A leaf of one agent as a matrix."""
    return x.reshape(matrix_shape(x.shape))


def orthonormalize(columns: Float[Array, "rows rank"]) -> Float[Array, "rows rank"]:
    """An orthonormal basis that holds the span of the columns."""
    return jnp.linalg.qr(columns)[0]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")
