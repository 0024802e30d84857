r"""Tracking: every agent estimates the mean of what all agents would step along.

Di Lorenzo, Scutari, *NEXT: In-network nonconvex optimization*, 2016, arXiv:1602.00591; Nedić,
Olshevsky, Shi, *Achieving geometric convergence for distributed optimization over time-varying
graphs*, 2017, arXiv:1607.03218 (DIGing; not verified); Xu, Zhu, Soh, Xie, *Augmented distributed
gradient methods for multi-agent optimization under uncoordinated constant stepsizes*, CDC 2015
(Aug-DGM, the form with all of it combined; not verified).

The estimate is :math:`y_k = \Pi y_{k-1} + u_k - u_{k-1}`. What of it is not the agent's own
:math:`u_k` is a *correction*, :math:`y_k = u_k + c_k`, and one copy of the parameters suffices:

.. math:: c_{k+1} = \Pi y_k - u_k, \qquad c_0 = 0 .

Where the columns of Π sum to one, so does :math:`\sum_j c^j = 0`: the mean of the estimates is that
of the updates, in every step, whatever the batches are and however Π changes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_mixer
from cdjax._stored import stored
from cdjax._trees import map_floats
from cdjax._types import Mixer, Params


class TrackingState(NamedTuple):
    """State of :func:`tracking`: the step, and what an agent adds to its own updates."""

    step: Int[Array, ""]
    correction: Params


def tracking(mix: Mixer, *, combined: bool = False) -> optax.GradientTransformation:
    r"""Replaces every agent's updates :math:`u` by an estimate of their mean over the agents.

    .. math:: y_k = \Pi y_{k-1} + u_k - u_{k-1}, \qquad y_0 = u_0

    Before an optimizer it tracks gradients, and every agent steps along the mean gradient of all
    agents instead of its own; after it, it tracks steps. The former matters where an optimizer is
    not linear in the gradient (Adam, signs): the mean of signs is not the sign of the mean.

    Args:
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a Π whose columns sum to one.
        combined: whether agents step along :math:`\Pi y`, the estimate after the next exchange.

    Returns:
        An optax transformation, which sends one message to every neighbour.

    Example::

        tx = optax.chain(cdjax.tracking(mix), optax.adamw(1e-3), cdjax.consensus(mix))

    Reference: Nedić et al. (2017), Algorithm 1 (not verified).
    """
    check_mixer(mix)

    def init(params: Params) -> TrackingState:
        return TrackingState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: TrackingState, params: Params | None = None
    ) -> tuple[optax.Updates, TrackingState]:
        del params
        estimate = map_floats(lambda c, u: u + c, state.correction, updates)
        estimate = stored(estimate, state.step)
        mixed = stored(mix(estimate, state.step), state.step)
        correction = map_floats(lambda m, u: m - u, mixed, updates)
        return mixed if combined else estimate, TrackingState(state.step + 1, correction)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
