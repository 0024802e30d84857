"""Moments in time to twice the precision of a float.

A float32 at 4000 s moves in steps of 0.24 ms, and a clock adds up many thousand small durations:
10,000 steps of 0.1 s come to 999.903 s. So a moment is a pair: the float that is nearest to it, and
what is left, which together hold 48 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int


class Instants(NamedTuple):
    """Moments in seconds since the start: the sum of ``high`` and ``low``, of the same shape."""

    high: Float[Array, "*moments"]
    low: Float[Array, "*moments"]

    def where(self, chosen: Bool[Array, "*moments"], other: Instants) -> Instants:
        """These moments where ``chosen``, the others elsewhere."""
        pairs = zip(self, other, strict=True)
        return Instants(*(jnp.where(chosen, mine, its) for mine, its in pairs))


def instants(seconds: float, shape: tuple[int, ...]) -> Instants:
    """Copies of one moment, as exact as a pair of floats can be.

    Args:
        seconds: since the start; infinite for never.
        shape: of the copies.

    Example: ``times = cdjax.network.instants(0.0, (16,))``
    """
    dtype = jnp.result_type(float)
    nearest = float(np.asarray(seconds, dtype))
    rest = seconds - nearest if math.isfinite(nearest) else 0.0
    return Instants(jnp.full(shape, nearest, dtype), jnp.full(shape, rest, dtype))


def in_seconds(moments: Instants) -> Float[np.ndarray, "*moments"]:
    """The moments on the host, in float64."""
    return np.asarray(moments.high, np.float64) + np.asarray(moments.low, np.float64)


def plus(moments: Instants, seconds: ArrayLike) -> Instants:
    """The moments so many seconds later.

    The error of a floating-point sum s of a and b is a floating-point number, too, which Knuth's
    TwoSum finds: (a - (s - b')) + (b - b') with b' = s - a.
    """
    seconds = jnp.asarray(seconds, moments.high.dtype)
    total, error = _two_sum(moments.high, seconds)
    high, low = _two_sum(total, error + moments.low)
    # Of a moment that never comes there is no rest: inf - inf is no number.
    exists = jnp.isfinite(total)
    return Instants(jnp.where(exists, high, total), jnp.where(exists, low, 0))


def later(first: Instants, second: Instants) -> Instants:
    """The later one of each two moments."""
    is_later = (first.high > second.high) | (
        (first.high == second.high) & (first.low >= second.low)
    )
    return first.where(is_later, second)


def latest_by(moments: Instants, groups: Int[np.ndarray, " moments"], num_groups: int) -> Instants:
    """The last moment of each group; that of an empty group has always been.

    Args:
        moments: of shape (moments,).
        groups: the number of each moment's group.
        num_groups: how many groups there are.
    """
    largest = _segment_max(groups, num_groups)
    high = largest(moments.high)
    # Of those that tie in the first float, the one with the largest rest.
    low = largest(jnp.where(moments.high == high[groups], moments.low, -jnp.inf))
    return Instants(high, jnp.where(jnp.isfinite(low), low, 0))


def _segment_max(groups: np.ndarray, num_groups: int) -> Callable[[Array], Array]:
    """The maximum of the values of each group.

    In a regular graph every agent has as many links, which follow each other: then it is one over
    rows. XLA:CPU takes several times as long to scatter them, one after another.
    """
    size = len(groups) // num_groups
    if size and np.array_equal(groups, np.repeat(np.arange(num_groups), size)):
        return lambda values: jnp.max(values.reshape(num_groups, size), axis=1)
    is_sorted = bool(np.all(np.diff(groups) >= 0))
    return lambda values: jax.ops.segment_max(
        values, jnp.asarray(groups), num_groups, indices_are_sorted=is_sorted
    )


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)
