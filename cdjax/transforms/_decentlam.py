r"""DecentLaM: momentum among agents whose data differ.

Yuan, Chen, Huang, Zhang, Pan, Xu, Yin, *DecentLaM: Decentralized Momentum SGD for Large-batch Deep
Training*, ICCV 2021, arXiv:2104.11981; the equations also as in
github.com/yukiTakezawa/MomentumTracking, optimizer/decentlam_optimizer.py.

The heavy ball's buffer holds what adapt-then-combine would do as a whole, the exchange included.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_mixer, check_params, check_per_agent
from cdjax._stored import stored
from cdjax._trees import along_agents, displacement, map_floats, value_at
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.transforms._descent import inverse, stepped


class DecentLaMState(NamedTuple):
    """State of :func:`decentlam`: the step and the momentum m, in the units of a gradient."""

    step: Int[Array, ""]
    momentum: Params


def decentlam(
    learning_rate: AgentScalarOrSchedule,
    mix: Mixer,
    *,
    momentum: AgentScalarOrSchedule = 0.9,
) -> optax.GradientTransformation:
    r"""DecentLaM: heavy-ball momentum on adapt-then-combine.

    .. math::
        \tilde{g} = \frac{x - \Pi (x - \alpha g(x))}{\alpha}, \qquad m^+ = \mu m + \tilde{g}, \qquad
        x^+ = x - \alpha m^+

    Its fixed point is that of adapt-then-combine without momentum. Momentum outside of consensus,
    as :func:`adapt_then_combine` with ``optax.sgd(momentum=...)`` has it, makes the bias larger by
    :math:`1 / (1 - \mu)`. At a constant step it is Polyak's :func:`cdmsgd` with the exchange after
    the gradient step instead of before.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either. A step of size zero leaves no trace in the momentum.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        momentum: :math:`\mu` in [0, 1), likewise.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if the learning rate is negative or the momentum outside of [0, 1).

    Example: ``tx = cdjax.decentlam(0.01, mix, momentum=0.9)``

    Reference: Yuan et al. (2021), Algorithm 2 (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_per_agent("momentum", momentum, low=0, high=1, high_open=True)

    def init(params: Params) -> DecentLaMState:
        return DecentLaMState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: DecentLaMState, params: Params | None = None
    ) -> tuple[optax.Updates, DecentLaMState]:
        x = check_params(params, "decentlam", updates)
        alpha, mu = value_at(learning_rate, state.step), value_at(momentum, state.step)
        message = stored(stepped(x, updates, alpha), state.step)  # x − αg
        pull = stored(displacement(mix(message, state.step), x), state.step)  # −αg̃
        ball = map_floats(
            lambda m, p: along_agents(mu, m) * m - along_agents(inverse(alpha), m) * p,
            state.momentum,
            pull,
        )
        # Not −αm⁺: a step of size zero still mixes.
        moves = map_floats(
            lambda p, m: p - along_agents(alpha, p) * along_agents(mu, p) * m, pull, state.momentum
        )
        return moves, DecentLaMState(state.step + 1, ball)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
