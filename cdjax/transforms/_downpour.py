"""Downpour SGD.

Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang, Ng, *Large Scale
Distributed Deep Networks*, NIPS 2012, section 4.1, and DownpourSGDClient in the appendix.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Int

from cdjax._checks import check_count, check_params, check_range, stacked_size
from cdjax._types import Params, ScalarOrSchedule
from cdjax.agents import mean_params
from cdjax.transforms._clocks import check_clocks, clocks_tick


class DownpourState(NamedTuple):
    """State of :func:`downpour`.

    The server's parameters and its Adagrad sums are one agent's leaves, the gradients that wait to
    be pushed are stacked.
    """

    step: Int[Array, ""]
    server: Params
    sums_of_squares: Params
    accrued: Params


def downpour(
    learning_rate: ScalarOrSchedule,
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
    sum that the ones before have left. (The accrued gradients need no factor :math:`\alpha`:
    Adagrad's step does not change with the scale of what is pushed.) The fetch of step k + 1 ends
    the update of step k, so that the stored parameters are those to take gradients at.

    With both periods 1 agents always hold the server's parameters, :math:`\alpha` has no effect,
    and one agent is ``optax.adagrad``. Longer periods and unequal clocks make gradients stale.

    Args:
        learning_rate: :math:`\alpha`, of an agent's own steps, a number or a schedule of the step.
        server_learning_rate: :math:`\gamma`, a number or a schedule of the step. A parameter's
            first step is as long as this.
        push_period: steps between an agent's pushes, at least 1.
        fetch_period: steps between an agent's fetches, at least 1.
        clocks: offsets of the agents' clocks in steps, whole numbers of shape (N,); 0 by default.
        initial_sum_of_squares: :math:`s` before the first push, at least 0.

    Returns:
        An optax transformation; its ``update`` needs ``params``. The server starts as the mean of
        the agents; evaluate it, :func:`server_params`.

    Raises:
        ValueError: if an argument is out of its range; from ``update``, if ``clocks`` has another
            length than the agent axis.

    Example::

        tx = cdjax.downpour(0.01, 0.01, push_period=5, fetch_period=5, clocks=jnp.arange(5))

    Reference: Dean et al. (2012), DownpourSGDClient in the appendix; section 4.1 for Adagrad.
    """
    check_range("learning_rate", learning_rate, low=0)
    check_range("server_learning_rate", server_learning_rate, low=0)
    check_count("push_period", push_period, low=1)
    check_count("fetch_period", fetch_period, low=1)
    check_clocks(clocks)
    check_range("initial_sum_of_squares", initial_sum_of_squares, low=0)

    def init(params: Params) -> DownpourState:
        server = mean_params(params)
        # float32 even for bfloat16 params, whose sums would stop growing at 256 equal terms.
        sums = jax.tree.map(lambda x: jnp.full(x.shape, initial_sum_of_squares, _wide(x)), server)
        zeros = optax.tree.zeros_like(params)
        return DownpourState(jnp.zeros([], jnp.int32), server, sums, zeros)

    def update(
        updates: optax.Updates, state: DownpourState, params: Params | None = None
    ) -> tuple[optax.Updates, DownpourState]:
        x = check_params(params, "downpour", updates)
        num_agents = stacked_size(x)
        pushes = clocks_tick(state.step, push_period, clocks, num_agents)
        fetches = clocks_tick(state.step + 1, fetch_period, clocks, num_agents)
        alpha, gamma = _at(learning_rate, state.step), _at(server_learning_rate, state.step)

        accrued = optax.tree.add(state.accrued, updates)
        zeros = optax.tree.zeros_like(accrued)
        pushed = _where(pushes, accrued, zeros)
        sums = jax.tree.map(_sums_after_each_push, state.sums_of_squares, pushed)
        server = jax.tree.map(
            lambda s, g, sums: s - (gamma * _adagrad(g, sums)).astype(s.dtype),
            state.server,
            pushed,
            sums,
        )

        stepped = jax.tree.map(lambda x, g: x - (alpha * g).astype(x.dtype), x, updates)
        fetched = jax.tree.map(lambda s, x: jnp.broadcast_to(s, x.shape), server, x)
        updates = optax.tree.sub(_where(fetches, fetched, stepped), x)
        accrued = _where(pushes, zeros, accrued)
        last_sums = jax.tree.map(lambda sums: sums[-1], sums)
        return updates, DownpourState(state.step + 1, server, last_sums, accrued)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _sums_after_each_push(sums: Array, pushed: Array) -> Array:
    """The server's sums of squares as each agent's push leaves them, (N, ...)."""
    return sums[None] + jnp.cumsum(jnp.square(pushed.astype(sums.dtype)), axis=0)


def _adagrad(pushed: Array, sums: Array) -> Array:
    """Σ_j a^j / √s^j; a parameter that never had a gradient stays."""
    steps = jnp.where(sums > 0, pushed.astype(sums.dtype) * jax.lax.rsqrt(sums), 0)
    return jnp.sum(steps, axis=0)


def _where(agents: Array, these: Params, those: Params) -> Params:
    """Agent by agent, these leaves or those."""
    return jax.vmap(lambda agent, a, b: jax.tree.map(lambda a, b: jnp.where(agent, a, b), a, b))(
        agents, these, those
    )


def _wide(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _at(value: ScalarOrSchedule, step: Int[Array, ""]) -> ArrayLike:
    return value(step) if callable(value) else value
