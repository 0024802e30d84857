"""How long agents compute: the same in every step, or drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from cdjax._checks import (
    check_choice,
    check_key,
    check_num_agents,
    check_per_agent,
    check_probability,
    check_scalar,
)
from cdjax.network._clock import Compute

_Draw = Callable[[Array, tuple[int, ...]], Array]


def compute_times(
    mean: ArrayLike,
    num_agents: int,
    *,
    jitter: float = 0.0,
    law: Literal["lognormal", "exponential", "pareto"] = "lognormal",
    stragglers: float = 0.0,
    slowdown: float = 10.0,
    key: PRNGKeyArray | None = None,
) -> Compute:
    r"""Random seconds of computation, drawn for every agent and step by ``fold_in(key, step)``.

    .. math:: c_j(k) = \bar c_j \, \xi_j(k) \, (1 + (s - 1) B_j(k)), \quad E \xi = 1, \quad
              B_j(k) \sim \mathrm{Bernoulli}(p)

    ξ is lognormal or Pareto with standard deviation ``jitter``, or exponential. An agent that is
    always slow has a larger mean; a straggler is one that is slow in some steps.

    Args:
        mean: c̄ in seconds: one number, or one per agent, shape (N,).
        num_agents: N.
        jitter: the standard deviation of ξ, at least 0; that of ``exponential`` is 1.
        law: of ξ; ``pareto`` has a heavy tail.
        stragglers: p, the probability that an agent is slow in a step.
        slowdown: s ≥ 1, how many times as long a slow step takes.
        key: of all draws; needed unless nothing is drawn.

    Returns:
        A function from the step to seconds, shape (N,); measured ones are given to
        :func:`cdjax.network.clock` as they are.

    Raises:
        ValueError: if an argument is out of its range, or draws lack a key.

    Example: ``compute = cdjax.network.compute_times(0.4, 16, jitter=0.1, key=key)``
    """
    check_num_agents(num_agents)
    check_per_agent("mean", mean, low=0)
    if np.ndim(mean) and np.shape(mean) != (num_agents,):
        raise ValueError(f"mean has shape {np.shape(mean)}; give one number, or {(num_agents,)}")
    check_scalar("jitter", jitter, low=0)
    check_choice("law", law, _LAWS)
    check_probability("stragglers", stragglers)
    check_scalar("slowdown", slowdown, low=1)
    if jitter or stragglers or law == "exponential":
        check_key(key)
    draw = _LAWS[law](jitter)

    def compute(step: int | Int[Array, ""]) -> Float[Array, " agents"]:
        usual = jnp.broadcast_to(jnp.asarray(mean, float), (num_agents,))
        if key is None:
            return usual
        law_key, slow_key = jax.random.split(jax.random.fold_in(key, step))
        is_slow = jax.random.bernoulli(slow_key, stragglers, (num_agents,))
        return usual * draw(law_key, (num_agents,)) * jnp.where(is_slow, slowdown, 1.0)

    return compute


def _lognormal(jitter: float) -> _Draw:
    # exp(N(-σ²/2, σ²)) has mean 1 and variance exp(σ²) - 1.
    variance = math.log1p(jitter**2)
    return lambda key, shape: jnp.exp(
        math.sqrt(variance) * jax.random.normal(key, shape) - variance / 2
    )


def _exponential(jitter: float) -> _Draw:
    return jax.random.exponential


def _pareto(jitter: float) -> _Draw:
    # Of shape a > 2 and smallest value (a - 1) / a it has mean 1 and variance 1 / (a (a - 2)).
    if not jitter:
        return lambda key, shape: jnp.ones(shape)
    shape_of_tail = 1 + math.sqrt(1 + 1 / jitter**2)
    least = (shape_of_tail - 1) / shape_of_tail
    return lambda key, shape: least * jax.random.pareto(key, shape_of_tail, shape)


_LAWS: dict[str, Callable[[float], _Draw]] = {
    "lognormal": _lognormal, "exponential": _exponential, "pareto": _pareto
}  # fmt: skip
