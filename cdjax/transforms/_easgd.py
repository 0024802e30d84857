r"""Elastic averaging SGD.

Zhang, Choromanska, LeCun, *Deep learning with Elastic Averaging SGD*, NIPS 2015, arXiv:1412.6651:
eqs. 5 and 6 (synchronous), Algorithm 1 (asynchronous), section 3.2 and Algorithm 2 (EAMSGD).

What the pull :math:`a (x^j - \tilde{x})` takes from an agent it gives to the centre, so an exchange
conserves the sum of all agents and the centre. The pull acts on the update, after the inner
optimizer, and therefore never enters its velocity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from cdjax._checks import (
    check_count,
    check_inner,
    check_params,
    check_per_agent,
    stacked_size,
)
from cdjax._trees import displacement, is_leafless, scalar_like, sum_over_agents
from cdjax._types import AgentScalarOrSchedule, OptState, Params
from cdjax.agents import mean_params
from cdjax.transforms._cdmsgd import cdmsgd, eval_params
from cdjax.transforms._descent import descent
from cdjax.transforms._server import check_clocks, clocks_tick


class EASGDState(NamedTuple):
    """State of :func:`elastic_averaging`: step, centre (one agent's leaves), inner optimizer."""

    step: Int[Array, ""]
    center: Params
    inner: OptState


def easgd(
    learning_rate: AgentScalarOrSchedule,
    *,
    beta: ArrayLike = 0.9,
    period: int = 10,
    clocks: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Elastic averaging SGD: agents tied to a centre by springs.

    .. math::
        x^{j+} = x^j - \eta g(x^j) - a (x^j - \tilde{x}), \qquad
        \tilde{x}^+ = \tilde{x} + a \sum_j (x^j - \tilde{x}), \qquad a = \beta / N

    where the terms in :math:`a` act only every ``period`` steps. See :func:`elastic_averaging`,
    which does the same for any optimizer, for the arguments and for who reads whose old values.

    Args:
        learning_rate: :math:`\eta`, a number, one per agent of shape (N,), or a schedule of either.
        beta: :math:`\beta = N a`, how far the centre moves to the mean in an exchange.
        period: τ, in steps, at least 1.
        clocks: offsets of the agents' clocks, shape (N,): the asynchronous form.

    Returns:
        An optax transformation; its ``update`` needs ``params``. Evaluate :func:`server_params`.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``center = cdjax.server_params(cdjax.easgd(0.1).init(params))``

    Reference: Zhang et al. (2015), eqs. 5 and 6 and Algorithm 1; defaults of their section 5.
    """
    check_per_agent("learning_rate", learning_rate, low=0)
    return elastic_averaging(descent(learning_rate), beta=beta, period=period, clocks=clocks)


def eamsgd(
    learning_rate: AgentScalarOrSchedule,
    *,
    momentum: AgentScalarOrSchedule = 0.99,
    beta: ArrayLike = 0.9,
    period: int = 10,
    clocks: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Elastic averaging SGD with Nesterov momentum; the elastic term stays out of the velocity.

    .. math::
        v^{j+} = \delta v^j - \eta g(x^j + \delta v^j), \qquad
        x^{j+} = x^j + v^{j+} - a (x^j - \tilde{x})

    with the centre of :func:`easgd`. The stored parameters are the look-ahead points
    :math:`x + \delta v`: take gradients there and get :math:`x` from :func:`eval_params`.

    Args:
        learning_rate: :math:`\eta`, a number, one per agent of shape (N,), or a schedule of either.
        momentum: :math:`\delta` in [0, 1), a number or a schedule of the step.
        beta: as in :func:`easgd`.
        period: τ, in steps, at least 1.
        clocks: offsets of the agents' clocks, shape (N,): the asynchronous form.

    Returns:
        An optax transformation; its ``update`` needs ``params``. Evaluate :func:`server_params`.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.eamsgd(0.001)``

    Reference: Zhang et al. (2015), section 3.2 and Algorithm 2; defaults of their section 5.
    """
    # Nesterov's method at the stored look-ahead point is CDMSGD among agents that never mix.
    inner = cdmsgd(learning_rate, lambda tree, step=0: tree, momentum=momentum)
    return elastic_averaging(inner, beta=beta, period=period, clocks=clocks)


def elastic_averaging(
    inner: optax.GradientTransformation,
    *,
    beta: ArrayLike = 0.9,
    period: int = 10,
    clocks: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Ties the agents of any optimizer to a centre.

    .. math:: x^{j+} = x^j + u^j - a (x^j - \tilde{x}) \quad \text{when } \tau \mid t^j

    The default is synchronous: all agents exchange when τ divides the step, all with the old
    centre, which then moves by the sum of their pulls. With ``clocks`` it is asynchronous: agent j
    exchanges when τ divides its own clock, :math:`t^j` = step + offset; agents whose clocks agree
    come one after another, in their order, each to the centre that the previous one has left.
    Offsets of 0 and a period of 1 give the round-robin scheme; on :math:`\frac{1}{2} x^2` it is
    stable for :math:`0 \le \eta \le 2,\ 0 \le a \le (4 - 2 \eta) / (4 - \eta)`, a tight bound for
    odd N.

    A single agent is still pulled to its centre: with N = 1 this is not the inner optimizer.

    Args:
        inner: any optax optimizer with updates :math:`u`; :func:`eval_params` gives its iterates.
        beta: :math:`\beta = N a`, at least 0.
        period: τ, in steps, at least 1.
        clocks: offsets of the agents' clocks in steps, whole numbers of shape (N,).

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. The
        centre starts as the mean of the agents.

    Raises:
        ValueError: if an argument is out of its range, or there are not N ``clocks``.

    Example: ``tx = cdjax.elastic_averaging(optax.adamw(1e-3), clocks=jnp.arange(8))``

    Reference: Zhang et al. (2015), eqs. 5 and 6, Algorithm 1, and section 4 for the stability.
    """
    check_per_agent("beta", beta, low=0)
    check_count("period", period, low=1)
    check_clocks(clocks)
    check_inner(inner)
    inner = optax.with_extra_args_support(inner)
    exchange = _all_at_once if clocks is None else _one_after_another

    def init(params: Params) -> EASGDState:
        center = params if is_leafless(params) else mean_params(params)
        return EASGDState(jnp.zeros([], jnp.int32), center, inner.init(params))

    def update(
        updates: optax.Updates, state: EASGDState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, EASGDState]:
        x = eval_params(state.inner, check_params(params, "elastic_averaging", updates))
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        num_agents = stacked_size(x)
        talks = clocks_tick(state.step, period, clocks, num_agents)
        moving_rates = jnp.where(talks, beta / num_agents, 0)
        updates, center = jax.lax.cond(
            jnp.any(talks),
            lambda: exchange(updates, x, state.center, moving_rates),
            lambda: (updates, state.center),
        )
        return updates, EASGDState(state.step + 1, center, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _all_at_once(
    updates: Params, x: Params, center: Params, moving_rates: Float[Array, " agents"]
) -> tuple[Params, Params]:
    pulls = jax.vmap(_pull, in_axes=(0, None, 0))(x, center, moving_rates)
    center = jax.tree.map(lambda c, pull: c + sum_over_agents(pull.astype(c.dtype)), center, pulls)
    return optax.tree.sub(updates, pulls), center


def _one_after_another(
    updates: Params, x: Params, center: Params, moving_rates: Float[Array, " agents"]
) -> tuple[Params, Params]:
    def visit(center: Params, agent: tuple[Params, Float[Array, ""]]) -> tuple[Params, Params]:
        x, moving_rate = agent
        pull = _pull(x, center, moving_rate)
        return optax.tree.add(center, pull), pull

    center, pulls = jax.lax.scan(visit, center, (x, moving_rates))
    return optax.tree.sub(updates, pulls), center


def _pull(x: Params, center: Params, moving_rate: Float[Array, ""]) -> Params:
    """One agent's a(x − x̃)."""
    apart = displacement(x, center)
    return jax.tree.map(lambda d: scalar_like(moving_rate, d) * d, apart)
