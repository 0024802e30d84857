r"""i-CDSGD and g-CDSGD: more consensus, or less, per gradient step.

Jiang, Balu, Hegde, Sarkar, *On Consensus-Optimality Trade-offs in Collaborative Deep Learning*,
2018, arXiv:1805.12120 (the equations not verified). Both are CDSGD with another mixer.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from cdjax._checks import check_mixer, check_per_agent, check_scalar
from cdjax._trees import value_at
from cdjax._types import AgentScalarOrSchedule, Mixer
from cdjax.mixing import lazy, repeated
from cdjax.transforms._cdsgd import cdsgd


def icdsgd(
    learning_rate: AgentScalarOrSchedule, mix: Mixer, *, rounds: int = 2
) -> optax.GradientTransformation:
    r"""Incremental CDSGD: several exchanges before every gradient step.

    .. math:: x^+ = \Pi^\tau x - \alpha \, g(x)

    :func:`cdsgd` with :func:`cdjax.mixing.repeated`; with :func:`cdjax.mixing.chebyshev` as many
    rounds leave less disagreement.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        rounds: τ, at least 1.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends ``rounds`` messages to
        every neighbour per step.

    Raises:
        ValueError: if the learning rate is negative or not finite, or there are less than one
            round.

    Example: ``tx = cdjax.icdsgd(0.01, mix, rounds=3)``

    Reference: Jiang et al. (2018), i-CDSGD (not verified).
    """
    return cdsgd(learning_rate, repeated(mix, rounds))


def gcdsgd(
    learning_rate: AgentScalarOrSchedule, mix: Mixer, *, own_weight: float = 0.5
) -> optax.GradientTransformation:
    r"""Generalized CDSGD: between agreeing and each for itself.

    .. math::
        x^+ = (1 - \omega) \, \Pi x + \omega \, (x - \alpha \, g(x))
            = (\omega I + (1 - \omega) \Pi) \, x - \omega \alpha \, g(x)

    The second form says what it is: :func:`cdsgd` with :func:`cdjax.mixing.lazy` and a step size of
    :math:`\omega \alpha`. With :math:`\omega = 1` agents are alone, with 0 they only average.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        own_weight: :math:`\omega` in [0, 1].

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if the learning rate is negative or not finite, or the weight outside of [0, 1].

    Example: ``tx = cdjax.gcdsgd(0.01, mix, own_weight=0.2)``

    Reference: Jiang et al. (2018), g-CDSGD (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_scalar("own_weight", own_weight, low=0, high=1)

    def own_rate(step: ArrayLike) -> Any:
        return own_weight * value_at(learning_rate, jnp.asarray(step))

    rate = own_rate if callable(learning_rate) else own_weight * learning_rate
    return cdsgd(rate, lazy(mix, own_weight))
