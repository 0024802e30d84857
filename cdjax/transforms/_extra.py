r"""EXTRA: consensus with a memory of all disagreement so far.

Shi, Ling, Wu, Yin, *EXTRA: An Exact First-Order Algorithm for Decentralized Consensus
Optimization*, SIAM J. Optimization 2015, arXiv:1404.6264 (not verified).

With :math:`\bar\Pi = (I + \Pi) / 2` and updates :math:`u = -\alpha g` the recursion

.. math:: x_{k+2} = (I + \Pi) x_{k+1} - \bar\Pi x_k + u_{k+1} - u_k, \qquad x_1 = \Pi x_0 + u_0

telescopes: summed over the steps it is CDSGD with a correction that an agent builds from what it
hears anyway,

.. math:: x_{k+1} = \Pi x_k + u_k + c_k, \qquad c_k = \frac{1}{2} \sum_{t < k} (\Pi x_t - x_t) .

So an old gradient keeps its own step size under a schedule, and none has to be stored.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_mixer, check_params, check_per_agent
from cdjax._stored import stored
from cdjax._trees import displacement, is_floating, map_floats, widened
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.transforms._descent import descent


class CorrectedConsensusState(NamedTuple):
    """State of :func:`corrected_consensus`: the step, half the sum of all displacements so far."""

    step: Int[Array, ""]
    correction: Params


def corrected_consensus(mix: Mixer) -> optax.GradientTransformation:
    r"""Adds the consensus displacement and half the sum of all earlier ones to the updates.

    .. math:: x^+ = \Pi x + u + c, \qquad c^+ = c + \frac{1}{2} (\Pi x - x), \qquad c_0 = 0

    After ``optax.sgd`` it is EXTRA, see :func:`extra`. Theory is about SGD.

    Args:
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a symmetric Π.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It goes last in a chain.

    Example: ``tx = optax.chain(optax.adamw(1e-3), cdjax.corrected_consensus(mix))``

    Reference: Shi et al. (2015), the identity behind eq. 2.13 (not verified).
    """
    check_mixer(mix)

    def init(params: Params) -> CorrectedConsensusState:
        return CorrectedConsensusState(jnp.zeros([], jnp.int32), zero_sums(params))

    def update(
        updates: optax.Updates, state: CorrectedConsensusState, params: Params | None = None
    ) -> tuple[optax.Updates, CorrectedConsensusState]:
        x = check_params(params, "corrected_consensus", updates)
        pull = stored(displacement(mix(x, state.step), x), state.step)  # Πx − x
        updates = map_floats(lambda p, u, c: p + u + c, pull, updates, state.correction)
        correction = map_floats(lambda c, p: c + p / 2, state.correction, pull)
        return updates, CorrectedConsensusState(state.step + 1, correction)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def extra(learning_rate: AgentScalarOrSchedule, mix: Mixer) -> optax.GradientTransformation:
    r"""EXTRA: CDSGD without its bias.

    .. math:: x_{k+2} = (I + \Pi) x_{k+1} - \frac{1}{2} (I + \Pi) x_k - \alpha_{k+1} g_{k+1} +
        \alpha_k g_k, \qquad x_1 = \Pi x_0 - \alpha_0 g_0

    With full gradients and a constant step :math:`\alpha < (1 + \lambda_N) / L`, where L is the
    largest curvature, all agents end at the minimum of the mean loss.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a symmetric Π.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if the learning rate is negative or not finite.

    Example: ``tx = cdjax.extra(0.01, mix)``

    Reference: Shi et al. (2015), Algorithm 1 (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    return optax.chain(descent(learning_rate), corrected_consensus(mix))


def zero_sums(params: Params) -> Params:
    """Zeros for what is summed over the steps, in float32 at least.

    A sum in bfloat16 stops growing after 256 equal terms.
    """
    return jax.tree.map(lambda x: jnp.zeros_like(widened(x) if is_floating(x) else x), params)
