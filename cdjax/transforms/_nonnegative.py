r"""Small quadratic programs over nonnegative numbers, many at once, inside of jit.

Portugal, Júdice, Vicente, *A Comparison of Block Pivoting and Interior-Point Algorithms for Linear
Least Squares Problems with Nonnegative Variables*, Mathematics of Computation 1994;
Kim, Park, *Fast Nonnegative Matrix Factorization*, SIAM J. Scientific Computing 2011, Algorithm 2
(numbers not verified): block principal pivoting.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_TURNS = 3  # of solving with a ridge; each keeps the share ridge / λ of the error that it makes
_CHANCES = 3  # exchanges of all wrong signs at once that may fail to leave fewer of them


class _Pivot(NamedTuple):
    """Which variables are free; how few signs have been wrong, and the chances to get fewer."""

    step: Int[Array, ""]
    free: Bool[Array, "programs variables"]
    fewest: Int[Array, " programs"]
    chances: Int[Array, " programs"]


def nonnegative_minimum(
    matrix: Float[Array, "programs variables variables"],
    linear: Float[Array, "programs variables"],
    scale: Float[Array, " programs"],
) -> Float[Array, "programs variables"]:
    r"""The least of :math:`\tfrac{1}{2} u^\top P u + c^\top u` over :math:`u \ge 0`.

    Of the products :math:`P = A A^\top` and :math:`c = A b` it is the u by which
    :math:`\| b + A^\top u \|` is least. A variable is free or zero; where the free ones come out
    negative, or a zero one would lower the value, they change places, all of them, or only the last
    while that leaves no fewer. Two thirds of the dtype's digits are kept: as much is added to the
    diagonal of the scaled matrix, since the rows of A may depend on each other.

    Args:
        matrix: P of each program; rows of zeros stand for variables that are not needed.
        linear: c of each program.
        scale: the length of b, against which rounding is measured.
    """
    size, eps = matrix.shape[-1], jnp.finfo(matrix.dtype).eps
    ridge, slack = eps ** (2 / 3), 10 * eps
    lengths = jnp.sqrt(jnp.diagonal(matrix, axis1=1, axis2=2))
    lengths = jnp.where(lengths > 0, lengths, 1)
    scale = jnp.where(scale > 0, scale, 1)[:, None]
    identity = jnp.eye(size, dtype=matrix.dtype)[None]
    # Rows of length 1 and a b of length 1.
    unit = matrix / (lengths[:, :, None] * lengths[:, None, :]) + ridge * identity
    slopes = linear / (lengths * scale)

    def solution(free: Array, turns: int = 1) -> Array:
        both = free[:, :, None] & free[:, None, :]
        system, u = jnp.where(both, unit, identity), jnp.zeros_like(slopes)
        for _ in range(turns):
            right = jnp.where(free, ridge * u - slopes, 0)
            u = jnp.linalg.solve(system, right[..., None])[..., 0]
        return u

    def wrong_signs(free: Array) -> Array:
        u = solution(free)
        at_zero = jnp.einsum("pij,pj->pi", unit, u, precision="highest") + slopes
        return jnp.where(free, u, at_zero) < -slack

    def goes_on(pivot: _Pivot) -> Array:
        return (pivot.step < 10 * (1 + size)) & jnp.any(pivot.fewest > 0)

    def exchange(pivot: _Pivot) -> _Pivot:
        wrong = wrong_signs(pivot.free)
        count = jnp.sum(wrong, axis=1)
        better = count < pivot.fewest
        chances = jnp.where(better, _CHANCES, pivot.chances - 1)
        last = jnp.arange(size)[None] == size - 1 - jnp.argmax(wrong[:, ::-1], axis=1)[:, None]
        changed = wrong & ((chances >= 0)[:, None] | last)
        fewest = jnp.where(better, count, pivot.fewest)
        return _Pivot(pivot.step + 1, pivot.free ^ changed, fewest, chances)

    many = jnp.full(len(matrix), size + 1)
    start = _Pivot(jnp.zeros([], jnp.int32), jnp.zeros(linear.shape, bool), many, many)
    u = solution(jax.lax.while_loop(goes_on, exchange, start).free, _TURNS)
    return jnp.maximum(u, 0) * scale / lengths
