r"""Quasi-global momentum: the buffer remembers how an agent moved, not what its gradients were.

Lin, Karimireddy, Stich, Jaggi, *Quasi-Global Momentum: Accelerating Decentralized Deep Learning on
Heterogeneous Data*, ICML 2021, arXiv:2102.04761; the equations are those of the authors' code,
github.com/epfml/quasi-global-momentum, code/pcode/optim.

A move includes the exchange, and so tells something of all agents' gradients. The optimizer's own
step is made with the buffer of the last move; its updated buffer is thrown away.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from cdjax._checks import check_mixer, check_params, check_per_agent, check_scalar
from cdjax._stored import stored
from cdjax._trees import (
    along_agents,
    displacement,
    floating_leaves,
    map_floats,
    value_at,
    widened,
)
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.transforms._descent import inverse, stepped

# That of the authors' code for the length of a move.
_LEAST_LENGTH = 1e-8


class QuasiGlobalState(NamedTuple):
    """State of :func:`quasi_global_momentum`: the step, the momentum in a gradient's units."""

    step: Int[Array, ""]
    momentum: Params


class QuasiGlobalAdamState(NamedTuple):
    """State of :func:`quasi_global_adam`: step, moments of the moves' directions."""

    step: Int[Array, ""]
    first_moment: Params
    second_moment: Params


def quasi_global_momentum(
    learning_rate: AgentScalarOrSchedule,
    mix: Mixer,
    *,
    momentum: AgentScalarOrSchedule = 0.9,
    buffer_decay: AgentScalarOrSchedule | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    r"""Adapt-then-combine SGD with quasi-global momentum (QG-DSGDm).

    .. math::
        d = g(x) + \mu m, \qquad x^+ = \Pi (x - \alpha d), \qquad
        m^+ = \rho m + (1 - \rho) \frac{x - x^+}{\alpha}

    With ``nesterov`` :math:`d = g(x) + \mu (g(x) + \mu m)`. The fixed point is that of
    adapt-then-combine without momentum: at rest :math:`m = 0`.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either. A move in a step of size zero counts as none.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        momentum: :math:`\mu` in [0, 1), likewise.
        buffer_decay: :math:`\rho` in [0, 1], likewise; :math:`\mu` by default. The authors' code
            has :math:`\rho = 0.9` whatever :math:`\mu` is.
        nesterov: whether the step looks ahead.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.quasi_global_momentum(0.01, mix, momentum=0.9, nesterov=True)``

    Reference: Lin et al. (2021), Algorithm 1 (not verified); decentralized_qg_sgd.py of their code.
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_per_agent("momentum", momentum, low=0, high=1, high_open=True)
    decay = momentum if buffer_decay is None else buffer_decay
    check_per_agent("buffer_decay", decay, low=0, high=1)

    def init(params: Params) -> QuasiGlobalState:
        return QuasiGlobalState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: QuasiGlobalState, params: Params | None = None
    ) -> tuple[optax.Updates, QuasiGlobalState]:
        x = check_params(params, "quasi_global_momentum", updates)
        alpha, mu, rho = (value_at(v, state.step) for v in (learning_rate, momentum, decay))

        def direction(m: Array, g: Array) -> Array:
            ball = g + along_agents(mu, m) * m
            return g + along_agents(mu, m) * ball if nesterov else ball

        directions = map_floats(direction, state.momentum, updates)
        message = stored(stepped(x, directions, alpha), state.step)
        moves = stored(displacement(mix(message, state.step), x), state.step)
        momentum_next = map_floats(
            lambda m, move: (
                along_agents(rho, m) * m
                - (1 - along_agents(rho, m)) * along_agents(inverse(alpha), m) * move
            ),
            state.momentum,
            moves,
        )
        return moves, QuasiGlobalState(state.step + 1, momentum_next)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def quasi_global_adam(
    learning_rate: AgentScalarOrSchedule,
    mix: Mixer,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    r"""Adapt-then-combine Adam with quasi-global moments (QG-DAdam).

    .. math::
        \hat{m} &= \frac{\beta_1 m + (1 - \beta_1) g}{1 - \beta_1^{k+1}}, \qquad
        \hat{v} = \frac{\beta_2 v + (1 - \beta_2) g^2}{1 - \beta_2^{k+1}}, \qquad
        x^+ = \Pi \Big( x - \alpha \frac{\hat{m}}{\sqrt{\hat{v}} + \epsilon} \Big) \\
        d &= (x - x^+) / \lVert x - x^+ \rVert, \qquad
        m^+ = \beta_1 m + (1 - \beta_1) d, \qquad v^+ = \beta_2 v + (1 - \beta_2) d^2

    where the length is that of an agent's whole move. An entry of d is much smaller than one of g
    where parameters are many, so the moments are mostly those of the own gradient. The authors'
    code gives g the weight 1 in the first moment instead of :math:`1 - \beta_1`.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        b1: :math:`\beta_1` in [0, 1).
        b2: :math:`\beta_2` in [0, 1).
        eps: :math:`\epsilon`, above 0.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends one message to every
        neighbour per step.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.quasi_global_adam(1e-3, mix)``

    Reference: Lin et al. (2021), the Adam form (not verified); decentralized_qg_adam.py of their
    code.
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_scalar("b1", b1, low=0, high=1, high_open=True)
    check_scalar("b2", b2, low=0, high=1, high_open=True)
    check_scalar("eps", eps, low=0, low_open=True)

    def init(params: Params) -> QuasiGlobalAdamState:
        # Two trees: a buffer cannot be donated twice.
        first, second = (optax.tree.zeros_like(params) for _ in range(2))
        return QuasiGlobalAdamState(jnp.zeros([], jnp.int32), first, second)

    def update(
        updates: optax.Updates, state: QuasiGlobalAdamState, params: Params | None = None
    ) -> tuple[optax.Updates, QuasiGlobalAdamState]:
        x = check_params(params, "quasi_global_adam", updates)
        alpha, next_step = value_at(learning_rate, state.step), state.step + 1
        count = next_step.astype(float)
        bias1, bias2 = 1 - b1**count, 1 - b2**count

        def direction(m: Array, v: Array, g: Array) -> Array:
            first = (b1 * m + (1 - b1) * g) / along_agents(bias1, m)
            second = (b2 * v + (1 - b2) * jnp.square(g)) / along_agents(bias2, m)
            return first / (jnp.sqrt(second) + eps)

        directions = map_floats(direction, state.first_moment, state.second_moment, updates)
        message = stored(stepped(x, directions, alpha), state.step)
        moves = stored(displacement(mix(message, state.step), x), state.step)
        lengths = _lengths(moves) + _LEAST_LENGTH
        toward = map_floats(lambda move: -move / along_agents(lengths, move), moves)
        first = map_floats(lambda m, d: b1 * m + (1 - b1) * d, state.first_moment, toward)
        second = map_floats(
            lambda v, d: b2 * v + (1 - b2) * jnp.square(d), state.second_moment, toward
        )
        return moves, QuasiGlobalAdamState(next_step, first, second)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _lengths(tree: Params) -> Float[Array, " agents"]:
    """The norm of each agent's part of a stacked tree."""

    def squares(leaf: Array) -> Float[Array, " agents"]:
        return jnp.sum(jnp.square(jnp.abs(widened(leaf))), axis=range(1, jnp.ndim(leaf)))

    return jnp.sqrt(jax.tree.reduce(jnp.add, [squares(x) for x in floating_leaves(tree)]))
