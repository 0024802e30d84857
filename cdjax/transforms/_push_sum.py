r"""Push-sum: decentralized SGD on directed graphs, where agents cannot send to whom they hear.

Nedić, Olshevsky, *Stochastic Gradient-Push for Strongly Convex Functions on Time-Varying Directed
Graphs*, IEEE Trans. Automatic Control 2016, arXiv:1406.2075.

Assran, Loizou, Ballas, Rabbat, *Stochastic Gradient Push for Distributed Deep Learning*, ICML 2019,
arXiv:1811.10792, Algorithm 1.

Nedić, Olshevsky, Shi, *Achieving Geometric Convergence for Distributed Optimization over
Time-Varying Graphs*, SIAM Journal on Optimization 2017, arXiv:1607.03218: push-DIGing.

On a directed graph an agent knows to how many it sends, so the weights P of what it sends can sum
to one (columns), and :math:`\sum_j s^j` stays. What agents receive then does not sum to one (rows);
the weights :math:`w^+ = P w` do the same to ones, and the quotient :math:`z = s / w` is right. The
stored parameters are z, and :math:`s = w z`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from cdjax._checks import (
    check_inner,
    check_mixer,
    check_params,
    check_per_agent,
    check_stacked,
    stacked_size,
)
from cdjax._trees import along_agents, displacement, is_leafless, map_floats, value_at
from cdjax._types import AgentScalarOrSchedule, Mixer, OptState, Params


class PushSumState(NamedTuple):
    """State of :func:`push_sum`: the step, the agents' weights w, and the inner optimizer's."""

    step: Int[Array, ""]
    weight: Float[Array, " agents"]
    inner: OptState


class PushDIGingState(NamedTuple):
    """State of :func:`push_diging`: the step, the weights w, and Py − g of the last step."""

    step: Int[Array, ""]
    weight: Float[Array, " agents"]
    tracked: Params


def push_sum(
    inner: optax.GradientTransformation, mix: Mixer
) -> optax.GradientTransformationExtraArgs:
    r"""Any optimizer on a directed graph: stochastic gradient push.

    .. math:: s^+ = P (s + u(g(z))), \qquad w^+ = P w, \qquad z^+ = s^+ / w^+

    from :math:`w = 1`. The stored parameters are z, where gradients are taken. The sum of the
    weights is N and :math:`\sum_j s^j` moves by the sum of the updates. With weights that are also
    row-stochastic w stays 1, and this is :func:`adapt_then_combine`.

    With a fixed step size it is biased on agents with unlike losses, as CDSGD is; see
    :func:`push_diging`.

    Args:
        inner: any optax optimizer with updates u.
        mix: a mixer whose columns sum to one (P), as of :func:`cdjax.topology.from_digraph`. It
            may change with the step.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments.

    Raises:
        ValueError: from ``init``, if the mixer's columns do not sum to one at the first step.

    Example::

        directed = cdjax.topology.from_digraph(nx.cycle_graph(8, nx.DiGraph))
        tx = cdjax.push_sum(optax.sgd(0.1), cdjax.mixing.dense(directed))

    Reference: Assran et al. (2019), Algorithm 1.
    """
    check_inner(inner, mix)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> PushSumState:
        weight = _first_weights(mix, params)
        return PushSumState(jnp.zeros([], jnp.int32), weight, inner.init(params))

    def update(
        updates: optax.Updates,
        state: PushSumState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PushSumState]:
        z = check_params(params, "push_sum", updates)
        check_stacked(z, state.weight.size, holder="the state")
        updates, inner_state = inner.update(updates, state.inner, z, **extra_args)
        s = _sums(state.weight, z, updates)
        mixed, weight = mix((s, state.weight), state.step)
        moved = displacement(_quotients(mixed, weight), z)
        return moved, PushSumState(state.step + 1, _summing_to_n(weight), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def push_diging(learning_rate: AgentScalarOrSchedule, mix: Mixer) -> optax.GradientTransformation:
    r"""Gradient tracking on a directed graph: to the optimum, with a fixed step size.

    .. math::
        s^+ = P (s - \alpha y), \qquad w^+ = P w, \qquad z^+ = s^+ / w^+, \qquad
        y^+ = P y + g(z^+) - g(z)

    from :math:`w = 1` and :math:`y = g(z)`. The mean of y is the mean of the agents' gradients at
    every step. The stored parameters are z. Two model-sized messages are sent per link and step.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer whose columns sum to one (P), as of :func:`cdjax.topology.from_digraph`.

    Returns:
        An optax transformation; its ``update`` needs ``params``.

    Raises:
        ValueError: if the learning rate is negative or not finite; from ``init``, if the mixer's
            columns do not sum to one at the first step.

    Example::

        directed = cdjax.topology.from_digraph(nx.cycle_graph(8, nx.DiGraph))
        tx = cdjax.push_diging(0.05, cdjax.mixing.dense(directed))

    Reference: Nedić, Olshevsky & Shi (2017), Algorithm 2, Push-DIGing.
    """
    check_per_agent("learning_rate", learning_rate, low=0)
    check_mixer(mix)

    def init(params: Params) -> PushDIGingState:
        weight = _first_weights(mix, params)
        return PushDIGingState(jnp.zeros([], jnp.int32), weight, optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: PushDIGingState, params: Params | None = None
    ) -> tuple[optax.Updates, PushDIGingState]:
        z = check_params(params, "push_diging", updates)
        check_stacked(z, state.weight.size, holder="the state")
        alpha = value_at(learning_rate, state.step)
        y = map_floats(lambda tracked, g: tracked + g, state.tracked, updates)  # Py + g⁺ − g
        s = _sums(state.weight, z, map_floats(lambda y: -along_agents(alpha, y) * y, y))
        mixed, weight, mixed_y = mix((s, state.weight, y), state.step)
        moved = displacement(_quotients(mixed, weight), z)
        tracked = displacement(mixed_y, updates)
        return moved, PushDIGingState(state.step + 1, _summing_to_n(weight), tracked)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _sums(weight: Float[Array, " agents"], z: Params, updates: Params) -> Params:
    """S + u, of s = w z."""
    return map_floats(lambda z, u: along_agents(weight, z) * z + u, z, updates)


def _quotients(s: Params, weight: Float[Array, " agents"]) -> Params:
    """Z = s / w."""
    return map_floats(lambda s: s / along_agents(weight, s), s)


def _summing_to_n(weight: Float[Array, " agents"]) -> Float[Array, " agents"]:
    """The weights with the sum N, of which rounding takes some; no quotient changes by it."""
    return weight / jnp.mean(weight)


def _first_weights(mix: Mixer, params: Params) -> Float[Array, " agents"]:
    """Ones; raises unless the mixer conserves the sum over agents.

    For row-stochastic weights the quotient is 1 to all, and agents would agree on another mean.
    """
    if is_leafless(params):
        return jnp.ones(0, jnp.result_type(float))
    num_agents = stacked_size(params)
    # Numbers without a pattern, whose sum only columns that sum to one conserve.
    probe = np.random.default_rng(0).normal(size=num_agents).astype(np.float32)
    with jax.ensure_compile_time_eval():
        change = jnp.abs(jnp.sum(mix(jnp.asarray(probe), 0) - probe))
    if not isinstance(change, Tracer) and float(change) > 1e-4 * np.abs(probe).sum():
        raise ValueError(
            "mix is not column-stochastic: what an agent sends does not sum to one; take a mixer "
            "over cdjax.topology.from_digraph(graph)"
        )
    return jnp.ones(num_agents, jnp.result_type(float))
