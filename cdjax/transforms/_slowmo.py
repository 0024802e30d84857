r"""SlowMo: slow momentum on what agents have learned in a round, per unit of step size.

Wang, Tantia, Ballas, Rabbat, *SlowMo: Improving Communication-Efficient Distributed SGD with Slow
Momentum*, ICLR 2020, arXiv:1910.00643, Algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_count, check_per_agent, check_scalar
from cdjax._trees import along_agents, map_floats, value_at
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.transforms._outer import outer


class SlowMomentumState(NamedTuple):
    """State of the slow momentum: the number of the round, and the buffer per unit of step size."""

    number: Int[Array, ""]
    buffer: Params


def slowmo(
    inner: optax.GradientTransformation,
    mix: Mixer,
    *,
    learning_rate: AgentScalarOrSchedule,
    period: int = 48,
    momentum: float = 0.5,
    slow_learning_rate: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps, a mix after every H of them, and momentum over the rounds.

    .. math::
        u^+ = \beta u + (\varphi - \Pi x) / \alpha, \qquad
        \varphi^+ = \varphi - s \, \alpha \, u^+, \qquad x \leftarrow \varphi^+

    The buffer is per unit of the inner step size :math:`\alpha`. With a fixed one this is
    :func:`outer` with heavy ball, ``optax.sgd(s, momentum=β)``; where :math:`\alpha` falls, the
    momentum of that would still move by the old step size, and SlowMo's moves by the round's own.

    Args:
        inner: any optax optimizer, whose step size is ``learning_rate``.
        mix: a mixer, given the number of the round; the paper's is the mean over all agents.
        learning_rate: the inner step size :math:`\alpha`, a number, one per agent of shape (N,), or
            a schedule of either; of a round it is the mean over its steps. (Its last step's, which
            the released code takes, is the same where :math:`\alpha` changes between rounds, and
            would be a division by zero where a schedule ends at zero.)
        period: H, in steps, at least 1.
        momentum: :math:`\beta` in [0, 1).
        slow_learning_rate: s, above 0.

    Returns:
        An optax transformation; its ``update`` needs ``params``. Evaluate :func:`slow_params`.

    Raises:
        ValueError: if an argument is out of its range.

    Example::

        alpha = optax.cosine_decay_schedule(0.1, 1000)
        tx = cdjax.slowmo(optax.sgd(alpha), mix, learning_rate=alpha, period=12)

    Reference: Wang et al. (2020), Algorithm 1; defaults of github.com/facebookresearch/fairscale.
    """
    check_per_agent("learning_rate", learning_rate, low=0, low_open=True)
    check_scalar("momentum", momentum, low=0, high=1, high_open=True)
    check_scalar("slow_learning_rate", slow_learning_rate, low=0, low_open=True)
    check_count("period", period, low=1)

    def round_rate(number: Int[Array, ""]) -> Array:
        if not callable(learning_rate):
            return jnp.asarray(learning_rate)
        rates = jax.vmap(lambda step: jnp.asarray(value_at(learning_rate, step), float))
        return jnp.mean(rates(number * period + jnp.arange(period, dtype=number.dtype)), axis=0)

    def init(params: Params) -> SlowMomentumState:
        return SlowMomentumState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: SlowMomentumState, params: Params | None = None
    ) -> tuple[optax.Updates, SlowMomentumState]:
        del params
        alpha = round_rate(state.number)
        # A round without steps has learned nothing: 0 / 0 is 0.
        unit = jnp.where(alpha > 0, 1 / jnp.where(alpha > 0, alpha, 1), 0)
        buffer = map_floats(
            lambda u, g: momentum * u + along_agents(unit, u) * g, state.buffer, updates
        )
        moved = map_floats(lambda u: -slow_learning_rate * along_agents(alpha, u) * u, buffer)
        return moved, SlowMomentumState(state.number + 1, buffer)

    slow_momentum = optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
    return outer(inner, slow_momentum, mix, period=period)
