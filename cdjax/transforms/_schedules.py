"""Step sizes that the theory of consensus needs and optax does not provide."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from cdjax._checks import check_per_agent, check_scalar


def diminishing_schedule(
    init_value: float, *, power: float = 0.6, offset: float = 100.0
) -> optax.Schedule:
    r"""A step size that falls from ``init_value`` towards zero, slowly enough to converge.

    .. math:: \alpha_k = \frac{\Theta}{k^\varepsilon + t}, \qquad \Theta = t \, \alpha_0

    Args:
        init_value: :math:`\alpha_0`, the step size at step 0.
        power: :math:`\varepsilon` in (0.5, 1]: step sizes are not summable, but their squares are.
        offset: :math:`t > 0`; the step size has halved when :math:`k^\varepsilon = t`.

    Returns:
        An optax schedule, a function of the step :math:`k`.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.cdsgd(cdjax.diminishing_schedule(0.1), mix)``

    Reference: Jiang et al. (2017), Section 4, who refer to their supplement for diminishing steps
    (not verified).
    """
    check_per_agent("init_value", init_value, low=0)
    check_scalar("power", power, low=0.5, high=1, low_open=True)
    check_scalar("offset", offset, low=0, low_open=True)

    def schedule(step: ArrayLike) -> Array:
        return init_value * offset / (jnp.asarray(step, jnp.result_type(float)) ** power + offset)

    return schedule
