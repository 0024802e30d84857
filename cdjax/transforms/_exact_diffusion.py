r"""Exact diffusion and D²: adapt, correct, combine.

Yuan, Ying, Zhao, Sayed, *Exact Diffusion for Distributed Optimization and Learning*, IEEE Trans.
Signal Processing 2019, arXiv:1702.05122 (not verified); Tang, Lian, Yan, Zhang, Liu, *D²:
Decentralized Training over Decentralized Data*, ICML 2018, arXiv:1803.07068 (not verified).

Both are one recursion in the adapted parameters :math:`\psi_k = x_k + u_k`, with exact diffusion's
:math:`\bar\Pi = (I + \Pi) / 2` or D²'s Π itself,

.. math:: x_{k+1} = \bar\Pi (\psi_k + x_k - \psi_{k-1}), \qquad \psi_{-1} = x_0 .

What is carried is :math:`c_k = x_k - \psi_{k-1}`: what the last exchange did to an agent. It sums
to zero over the agents. As :math:`\psi_{k-1}` holds the step that was taken, an old gradient keeps
its own step size under a schedule.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import (
    check_inner,
    check_mixer,
    check_params,
    check_per_agent,
    check_scalar,
)
from cdjax._stored import stored
from cdjax._trees import displacement, map_floats
from cdjax._types import AgentScalarOrSchedule, Mixer, OptState, Params
from cdjax.mixing import lazy
from cdjax.transforms._descent import descent

# A ring of 8 has an eigenvalue of -1/3, which comes out of its matrix with a rounding error.
_ROUNDING = 1e-9


class AdaptCorrectCombineState(NamedTuple):
    """State of :func:`adapt_correct_combine`: step, correction, the inner optimizer's state."""

    step: Int[Array, ""]
    correction: Params
    inner: OptState


def adapt_correct_combine(
    inner: optax.GradientTransformation, mix: Mixer
) -> optax.GradientTransformationExtraArgs:
    r"""Adapt-then-combine with a correction, which takes the bias of unequal data away.

    .. math:: x^+ = \Pi (x + u + c), \qquad c^+ = x^+ - (x + u), \qquad c_0 = 0

    With :func:`cdjax.mixing.lazy` of a mixer and SGD it is :func:`exact_diffusion`, with the mixer
    itself :func:`d2`. Theory is about SGD.

    Args:
        inner: any optax optimizer with updates :math:`u`.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a symmetric Π whose smallest
            eigenvalue is above -1/3.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments.

    Example::

        tx = cdjax.adapt_correct_combine(optax.adamw(1e-3), cdjax.mixing.lazy(mix))

    Reference: Yuan et al. (2019), Algorithm 1 (not verified).
    """
    check_inner(inner, mix)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> AdaptCorrectCombineState:
        correction = optax.tree.zeros_like(params)
        return AdaptCorrectCombineState(jnp.zeros([], jnp.int32), correction, inner.init(params))

    def update(
        updates: optax.Updates,
        state: AdaptCorrectCombineState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AdaptCorrectCombineState]:
        x = check_params(params, "adapt_correct_combine", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        adapted = optax.apply_updates(x, updates)
        corrected = map_floats(lambda a, c: a + c, adapted, state.correction)
        corrected = stored(corrected, state.step)
        combined = stored(mix(corrected, state.step), state.step)
        # Of what is sent, and not of what is adapted: so x and the gradient are read for the last
        # time before the exchange, and their memory takes what comes of it.
        correction = map_floats(
            lambda new, sent, c: (new - sent) + c, combined, corrected, state.correction
        )
        state = AdaptCorrectCombineState(state.step + 1, correction, inner_state)
        return displacement(combined, x), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def exact_diffusion(
    learning_rate: AgentScalarOrSchedule, mix: Mixer
) -> optax.GradientTransformation:
    r"""Exact diffusion, with :math:`\bar\Pi = (I + \Pi) / 2`, on any connected graph.

    .. math::
        \psi^+ = x - \alpha g(x), \qquad x^+ = \bar\Pi (\psi^+ + x - \psi), \qquad \psi_0 = x_0

    With full gradients and a constant step all agents end at the minimum of the mean loss.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a symmetric Π.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if the learning rate is negative or not finite.

    Example: ``tx = cdjax.exact_diffusion(0.01, mix)``

    Reference: Yuan et al. (2019), Algorithm 1 (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    return adapt_correct_combine(descent(learning_rate), lazy(mix))


def d2(
    learning_rate: AgentScalarOrSchedule, mix: Mixer, *, smallest_eigenvalue: float
) -> optax.GradientTransformation:
    r"""D²: exact diffusion without the laziness, on graphs that allow it.

    .. math::
        x_{k+1} = \Pi (2 x_k - x_{k-1} - \alpha_k g_k + \alpha_{k-1} g_{k-1}), \qquad
        x_1 = \Pi (x_0 - \alpha_0 g_0)

    Along an eigenvector of Π with eigenvalue λ the disagreement has the roots :math:`\lambda \pm
    \sqrt{\lambda^2 - \lambda}`, of which one is below -1 if λ is below -1/3.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a symmetric Π.
        smallest_eigenvalue: λ_N of Π, ``topology.smallest_eigenvalue``; the smallest of all where
            Π changes.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if the learning rate is negative or not finite, or the smallest eigenvalue not
            above -1/3.

    Example::

        lazy = cdjax.topology.ring(8, weights="lazy")  # the ring of 8 itself has -1/3
        mix = cdjax.mixing.auto(lazy)
        tx = cdjax.d2(0.01, mix, smallest_eigenvalue=lazy.smallest_eigenvalue)

    Reference: Tang et al. (2018), Algorithm 1 and Assumption 1 (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_scalar("smallest_eigenvalue", smallest_eigenvalue, high=1)
    if smallest_eigenvalue <= -1 / 3 + _ROUNDING:
        raise ValueError(
            f"smallest_eigenvalue is {smallest_eigenvalue:g}; d2 diverges unless it is above -1/3: "
            'take weights="lazy" for the topology, or exact_diffusion'
        )
    return adapt_correct_combine(descent(learning_rate), mix)
