r"""BEER and MoTEF: gradient tracking with compressed messages.

Zhao, Li, Li, Richtárik, Chi, *BEER: Fast O(1/T) Rate for Decentralized Nonconvex Optimization with
Communication Compression*, NeurIPS 2022, arXiv:2201.13320.

Islamov, Gao, Stich, *Near Optimal Decentralized Optimization with Compression and Momentum
Tracking* (MoTEF), 2024, arXiv:2405.20114 (title and number not verified).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import (
    check_compressor,
    check_mixer,
    check_params,
    check_per_agent,
    check_scalar,
)
from cdjax._stored import stored
from cdjax._trees import along_agents, displacement, map_floats, scalar_like, value_at
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.compress import Compressor, PublicCopies, publishing


class BEERState(NamedTuple):
    """State of :func:`beer`: the step, the mean gradient M, its tracker v, and both public copies.

    ``public`` are the copies h of the parameters, ``public_tracker`` those s of the tracker.
    """

    step: Int[Array, ""]
    gradient: Params
    tracker: Params
    public: PublicCopies
    public_tracker: PublicCopies


def beer(
    learning_rate: AgentScalarOrSchedule,
    mix: Mixer,
    compressor: Compressor,
    *,
    consensus_step: float,
    momentum: float = 0.0,
    known_start: bool = False,
) -> optax.GradientTransformation:
    r"""Gradient tracking whose two messages are compressed, with MoTEF's momentum if wanted.

    .. math::
        x_{k+1} &= x_k + \gamma (\Pi - I) h_k - \eta v_k, & h_{k+1} &= h_k + Q(x_{k+1} - h_k) \\
        M_{k+1} &= \mu M_k + (1 - \mu) g(x_{k+1}) \\
        v_{k+1} &= v_k + \gamma (\Pi - I) s_k + M_{k+1} - M_k, & s_{k+1} &= s_k + Q(v_{k+1} - s_k)

    from :math:`M_0 = v_0 = g(x_0)` and :math:`h_0 = s_0 = 0`. With full gradients all agents reach
    the optimum, whatever their data. The mean of the trackers is that of M at every step; it is
    therefore needed that M begins with the gradient: from :math:`M_0 = 0` the agents would follow
    :math:`\bar{g}(x_0)` for ever.

    Args:
        learning_rate: the step size :math:`\eta`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer; only messages travel with :func:`cdjax.mixing.exchange`, see :func:`choco`.
        compressor: Q, such as :func:`cdjax.compress.top_k`.
        consensus_step: :math:`\gamma` in (0, 1].
        momentum: :math:`\mu = 1 - \lambda` in [0, 1) with MoTEF's :math:`\lambda`; 0 is BEER.
        known_start: whether all agents know each other's first parameters, as when they are equal:
            then :math:`h_0 = x_0`, and the first trackers are sent, :math:`s_0 = Q(v_0)`. So with
            :math:`Q = I`, :math:`\gamma = 1` and no momentum it is DIGing.

    Returns:
        An optax transformation; its ``update`` needs ``params``. Its state holds four more copies
        of the parameters, six with an exchange. Agents send two messages per step.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.beer(0.05, mix, cdjax.compress.top_k(0.1), consensus_step=0.1)``

    Reference: Zhao et al. (2022), Algorithm 1 (number not verified); github.com/mlolab/MoTEF,
    BEER.py and synthetic/solvers.py.
    """
    check_per_agent("learning_rate", learning_rate, low=0)
    check_mixer(mix)
    check_compressor(compressor)
    check_scalar("consensus_step", consensus_step, low=0, high=1, low_open=True)
    check_scalar("momentum", momentum, low=0, high=1, high_open=True)
    # Two compressors with the same key would draw the same for both messages.
    publish, publish_tracker = publishing(mix, compressor), publishing(mix, compressor.redrawn(1))

    def pulled(tree: Params, pull: Params) -> Params:
        return map_floats(lambda x, pull: x + scalar_like(consensus_step, x) * pull, tree, pull)

    def init(params: Params) -> BEERState:
        return BEERState(
            step=jnp.zeros([], jnp.int32),
            gradient=optax.tree.zeros_like(params),
            tracker=optax.tree.zeros_like(params),
            public=publish.init(params, known_start),
            public_tracker=publish_tracker.init(params, False),
        )

    def update(
        updates: optax.Updates, state: BEERState, params: Params | None = None
    ) -> tuple[optax.Updates, BEERState]:
        x = check_params(params, "beer", updates)
        step, is_first = state.step, state.step == 0
        mu = jnp.where(is_first, 0.0, momentum)

        def mean_gradient(updates: optax.Updates) -> Params:
            return map_floats(
                lambda m, g: scalar_like(mu, m) * m + scalar_like(1 - mu, m) * g,
                state.gradient,
                updates,
            )

        # At the first step v, s and M are zeros, so that v₀ = M₀ = g(x₀).
        tracker = pulled(state.tracker, publish_tracker.pull(state.public_tracker, step))
        tracker = map_floats(
            lambda v, new, old: v + (new - old), tracker, mean_gradient(updates), state.gradient
        )
        # The gradient waits for the tracker, which reads M before it is overwritten.
        tracker, updates = stored((tracker, updates), step)
        gradient = mean_gradient(updates)
        public_tracker = publish_tracker.update(state.public_tracker, tracker, step)
        if not known_start:
            public_tracker = jax.tree.map(
                lambda s: jnp.where(is_first, jnp.zeros_like(s), s), public_tracker
            )
        alpha = value_at(learning_rate, step)
        moved = map_floats(
            lambda x, v: x - along_agents(alpha, x) * v,
            pulled(x, publish.pull(state.public, step)),
            tracker,
        )
        moved = stored(moved, step)
        public = publish.update(state.public, moved, step)
        state = BEERState(step + 1, gradient, tracker, public, public_tracker)
        return displacement(moved, x), state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
