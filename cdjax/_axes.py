"""One number an agent against arrays with more axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, ArrayLike, Shaped


def lifted(numbers: ArrayLike, x: ArrayLike) -> Shaped[Array, "agents ..."]:
    """``numbers``, of shape (N,), with as many axes as ``x`` has, of shape (N, ...).

    In the dtype of ``x``, so that a float32 weight leaves bfloat16 leaves bfloat16; truth values
    stay what they are.
    """
    numbers = jnp.asarray(numbers)
    numbers = numbers.reshape(-1, *[1] * (jnp.ndim(x) - 1))
    return numbers if numbers.dtype == bool else numbers.astype(jnp.result_type(x))
