r"""DeMo: what of each agent's momentum moves fast is sent, the rest stays.

Peng, Quesnelle, Kingma, *DeMo: Decoupled Momentum Optimization*, 2024, arXiv:2411.19870;
github.com/bloc97/DeMo, demo.py.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_compressor, check_params, check_scalar
from cdjax._trees import is_floating, map_floats, scalar_like, value_at
from cdjax._types import Params, ScalarOrSchedule
from cdjax.compress import Compressor
from cdjax.compress._feedback import left


class DeMoState(NamedTuple):
    """State of :func:`demo`: the step, and the momentum that each agent has not sent."""

    step: Int[Array, ""]
    momentum: Params


def demo(
    learning_rate: ScalarOrSchedule,
    compressor: Compressor,
    *,
    decay: float = 0.999,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    r"""Signed steps along the mean of what agents send of their momentum; all hear all.

    .. math::
        e^j &\leftarrow \beta e^j + \alpha g^j, \qquad q^j = Q(e^j), \qquad
        e^j \leftarrow e^j - q^j \\
        x &\leftarrow (1 - \alpha \lambda) x
            - \alpha \operatorname{sign}(\operatorname{mean}_j q^j)

    Agents that start alike stay alike, to the last bit. The mean of a coefficient is over those
    that sent it. What is sent and what is kept add up to the momentum,
    :math:`e_T + \sum_t \beta^{T-1-t} q_t = \alpha \sum_t \beta^{T-1-t} g_t`; where everything is
    sent this is signSGD on the mean gradient, for any :math:`\beta`.

    The sign of a mean is not the mean of signs: where agents' data differ it is the former that
    has the right zero.

    Args:
        learning_rate: :math:`\alpha`, a number or a schedule.
        compressor: Q, in the paper :func:`cdjax.compress.dct_top_k`.
        decay: :math:`\beta` in [0, 1].
        weight_decay: :math:`\lambda`, at least 0.

    Returns:
        An optax transformation; its ``update`` needs ``params``. Its state holds one more copy of
        the parameters.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.demo(1e-3, cdjax.compress.dct_top_k(32, 64))``

    Reference: Peng et al. (2024), Algorithm 1 (number not verified), and the released code.
    """
    check_scalar("learning_rate", learning_rate, low=0)
    check_compressor(compressor)
    check_scalar("decay", decay, low=0, high=1)
    check_scalar("weight_decay", weight_decay, low=0)

    def init(params: Params) -> DeMoState:
        return DeMoState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: DeMoState, params: Params | None = None
    ) -> tuple[optax.Updates, DeMoState]:
        x = check_params(params, "demo", updates)
        alpha = value_at(learning_rate, state.step)
        momentum = map_floats(
            lambda e, g: scalar_like(decay, e) * e + scalar_like(alpha, e) * g,
            state.momentum,
            updates,
        )
        sent, mean = compressor.mean_of_senders(momentum, state.step)

        def step_along(x: Array, mean: Array) -> Array:
            if not is_floating(x):
                return jnp.zeros_like(x)
            shrunk = scalar_like(weight_decay, x) * x
            return scalar_like(-alpha, x) * (shrunk + jnp.sign(mean)[None].astype(x.dtype))

        state = DeMoState(state.step + 1, left(momentum, sent))
        return jax.tree.map(step_along, x, mean), state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
