r"""Downpour SGD.

Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang, Ng, *Large Scale
Distributed Deep Networks*, NIPS 2012, section 4.1, and DownpourSGDClient in the appendix.

Gradients are late twice over: they are taken at parameters fetched some steps ago, and wait for the
next push. Adagrad's sum after push j is the sum :math:`s` before the step plus the squares pushed
so far in it:

.. math::
    s^j = s + \sum_{i \le j} (a^i)^2, \qquad
    \tilde{x}^+ = \tilde{x} - \gamma \sum_j a^j / \sqrt{s^j} .

An agent that does not push counts as one that pushes :math:`a^j = 0`, which changes neither.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Int

from cdjax._checks import (
    check_count,
    check_params,
    check_per_agent,
    check_scalar,
    stacked_size,
)
from cdjax._trees import along_agents, displacement, is_leafless, value_at, widened
from cdjax._types import AgentScalarOrSchedule, Params, ScalarOrSchedule
from cdjax.agents import mean_params
from cdjax.transforms._server import check_clocks, clocks_tick


class DownpourState(NamedTuple):
    """State of :func:`downpour`: the server's leaves are one agent's, the accrued ones stacked."""

    step: Int[Array, ""]
    server: Params
    sums_of_squares: Params
    accrued: Params


def downpour(
    learning_rate: AgentScalarOrSchedule,
    server_learning_rate: ScalarOrSchedule,
    *,
    push_period: int = 1,
    fetch_period: int = 1,
    clocks: ArrayLike | None = None,
    initial_sum_of_squares: float = 0.0,
) -> optax.GradientTransformation:
    r"""Downpour SGD: agents step by themselves and exchange with a server that runs Adagrad.

    In each step agent j, with its own clock :math:`t^j` = step + offset,

    1. fetches, :math:`x^j \leftarrow \tilde{x}`, if ``fetch_period`` divides :math:`t^j`;
    2. takes its gradient, accrues it and steps: :math:`a^j \leftarrow a^j + g(x^j)`,
       :math:`x^j \leftarrow x^j - \alpha g(x^j)`;
    3. pushes, if ``push_period`` divides :math:`t^j`, whereupon :math:`a^j \leftarrow 0` and the
       server steps, parameter by parameter:

    .. math:: s \leftarrow s + (a^j)^2, \qquad
        \tilde{x} \leftarrow \tilde{x} - \gamma \, a^j / \sqrt{s}

    Pushes of the same step reach the server one after another, in the agents' order, each with the
    sum that the previous ones have left. (The accrued gradients need no factor :math:`\alpha`:
    Adagrad's step does not change with the scale of what is pushed.) The fetch of step k + 1 ends
    the update of step k, so that gradients are taken at the stored parameters. Nobody fetches
    before the first step: agents that start unequal take their first gradient at their own point.

    With both periods 1 agents always hold the server's parameters, :math:`\alpha` has no effect,
    and one agent is ``optax.adagrad``. Longer periods and unequal clocks make gradients stale.

    Args:
        learning_rate: :math:`\alpha`, of an agent's own steps, a number, one per agent of shape
            (N,), or a schedule of either.
        server_learning_rate: :math:`\gamma`, a number or a schedule; also the length of a
            parameter's first step.
        push_period: steps between an agent's pushes, at least 1.
        fetch_period: steps between an agent's fetches, at least 1.
        clocks: offsets of the agents' clocks in steps, whole numbers of shape (N,); 0 by default.
        initial_sum_of_squares: :math:`s` before the first push, at least 0.

    Returns:
        An optax transformation; its ``update`` needs ``params``. The server starts as the mean of
        the agents; evaluate the server, see :func:`server_params`.

    Raises:
        ValueError: if an argument is out of its range, or there are not N ``clocks``.

    Example: ``tx = cdjax.downpour(0.01, 0.01, push_period=5, fetch_period=5)``

    Reference: Dean et al. (2012), DownpourSGDClient in the appendix; section 4.1 for Adagrad.
    """
    check_per_agent("learning_rate", learning_rate, low=0)
    check_scalar("server_learning_rate", server_learning_rate, low=0)
    check_count("push_period", push_period, low=1)
    check_count("fetch_period", fetch_period, low=1)
    check_clocks(clocks)
    check_scalar("initial_sum_of_squares", initial_sum_of_squares, low=0)

    def init(params: Params) -> DownpourState:
        server = params if is_leafless(params) else mean_params(params)
        # float32 even for bfloat16 params, whose sums would stop growing at 256 equal terms.
        sums = jax.tree.map(lambda x: jnp.full_like(widened(x), initial_sum_of_squares), server)
        step, accrued = jnp.zeros([], jnp.int32), optax.tree.zeros_like(params)
        return DownpourState(step, server, sums, accrued)

    def update(
        updates: optax.Updates, state: DownpourState, params: Params | None = None
    ) -> tuple[optax.Updates, DownpourState]:
        x = check_params(params, "downpour", updates)
        num_agents = stacked_size(x)
        pushes = clocks_tick(state.step, push_period, clocks, num_agents)
        fetches = clocks_tick(state.step + 1, fetch_period, clocks, num_agents)
        alpha, gamma = (value_at(v, state.step) for v in (learning_rate, server_learning_rate))

        accrued = optax.tree.add(state.accrued, updates)
        nothing = optax.tree.zeros_like(accrued)
        server, sums = _pushed(state, accrued, pushes, gamma)

        stepped = jax.tree.map(
            lambda x, g: x - (along_agents(alpha, g) * g).astype(x.dtype), x, updates
        )
        fetched = _where(fetches, jax.tree.map(lambda s: s[None], server), stepped)
        accrued = _where(pushes, nothing, accrued)
        return displacement(fetched, x), DownpourState(state.step + 1, server, sums, accrued)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _pushed(
    state: DownpourState, accrued: Params, pushes: Bool[Array, " agents"], gamma: ArrayLike
) -> tuple[Params, Params]:
    """The server and its sums of squares after the pushes of one step, in the agents' order."""

    # A loop needs memory for one agent. The sums of all agents at once are three copies of the
    # parameters, and for 16 agents (2 CPU cores, 8M parameters) take 20 times as long.
    def push(carry: tuple[Params, Params], agent: tuple[Array, Params]) -> tuple[Any, None]:
        sums, moves = carry
        does_push, accrued = agent
        pushed = jax.tree.map(
            lambda a, s: jnp.where(does_push, a, 0).astype(s.dtype), accrued, sums
        )
        sums = jax.tree.map(lambda s, a: s + jnp.square(a), sums, pushed)
        return (sums, jax.tree.map(lambda m, a, s: m + _adagrad(a, s), moves, pushed, sums)), None

    start = state.sums_of_squares, optax.tree.zeros_like(state.sums_of_squares)
    (sums, moves), _ = jax.lax.scan(push, start, (pushes, accrued))
    server = jax.tree.map(lambda x, m: x - (gamma * m).astype(x.dtype), state.server, moves)
    return server, sums


def _adagrad(pushed: Array, sums: Array) -> Array:
    """a^j / √s^j; a parameter that never had a gradient stays."""
    return jnp.where(sums > 0, pushed * jax.lax.rsqrt(sums), 0)


def _where(agents: Bool[Array, " agents"], these: Params, those: Params) -> Params:
    """These leaves for the agents that are marked, those for the others."""
    return jax.tree.map(lambda a, b: jnp.where(along_agents(agents, b), a, b), these, those)
