"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, *Communication-Efficient Learning of Deep Networks
from Decentralized Data*, AISTATS 2017, arXiv:1602.05629, Algorithm 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Int, PRNGKeyArray

from cdjax._checks import (
    check_count,
    check_key,
    check_optimizer,
    check_range,
    check_stacked,
    stacked_size,
)
from cdjax._trees import along_agents, have_agent_axis
from cdjax._types import OptState, Params
from cdjax.mixing import every
from cdjax.transforms._consensus import adapt_then_combine
from cdjax.transforms._weighting import agent_average, check_positive_weights


def fedavg(
    inner: optax.GradientTransformation,
    *,
    local_steps: int | Int[np.ndarray, " agents"],
    fraction: float = 1.0,
    weights: ArrayLike | None = None,
    key: PRNGKeyArray | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Federated averaging: local steps, then the mean of the round's clients for everybody.

    .. math::
        x^j \leftarrow \sum_{l \in S_r} n_l \, x^l \Big/ \sum_{l \in S_r} n_l
        \quad \text{after the last step of round } r

    The clients :math:`S_r` of a round, :math:`\max(\lfloor C N \rfloor, 1)` agents, are drawn anew
    from ``fold_in(key, r)``. The other agents step as well, because all agents of a stack do, but
    their round is discarded: they have no weight and receive the mean, from which every round
    starts. The inner optimizer's state stays with its agent, neither averaged nor reset.

    Args:
        inner: any optax optimizer, each client's own.
        local_steps: steps per round; E epochs of an agent's data are E times its batches. One
            number for each agent, shape (N,), if they hold unequal amounts: a round is as long as
            the longest, and an agent that is done rests until its end.
        fraction: C in [0, 1], the share of agents that are clients in a round.
        weights: :math:`n_j > 0`, each agent's number of samples, shape (N,); equal by default.
        key: of the draws; needed if the fraction is below 1.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments.

    Raises:
        ValueError: if an argument is out of its range, or the key is missing.

    Example: ``tx = cdjax.fedavg(optax.sgd(0.1), local_steps=50, fraction=0.1, key=key)``

    Reference: McMahan et al. (2017), Algorithm 1.
    """
    check_optimizer("inner", inner)
    own_steps = np.asarray(local_steps)
    for steps in own_steps.ravel().tolist():
        check_count("local_steps", steps, low=1)
    if own_steps.ndim:
        inner = _resting(inner, own_steps)
    check_range("fraction", fraction, low=0, high=1)
    check_positive_weights(weights)
    if key is None and fraction < 1:
        raise ValueError(f"fraction is {fraction}: give key=jax.random.key(0) to draw clients from")
    if key is not None:
        check_key(key)

    def average_clients(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        num_agents = stacked_size(tree)
        sizes = jnp.ones(num_agents) if weights is None else jnp.asarray(weights)
        if key is not None:
            # 0.29 * 100 is 28.999999999999996, but means 29.
            num_clients = max(1, math.floor(fraction * num_agents + 1e-9))
            draw = jax.random.permutation(jax.random.fold_in(key, step), num_agents)
            sizes = jnp.where(draw < num_clients, sizes, 0)
        return agent_average(tree, sizes)

    # `every` passes the round on as the step of its mixer, so `step` above is r.
    return adapt_then_combine(inner, every(int(own_steps.max()), average_clients))


class RestingState(NamedTuple):
    """State of agents that rest: the step and the inner optimizer's state."""

    step: Int[Array, ""]
    inner: OptState


def _resting(
    inner: optax.GradientTransformation, own_steps: Int[np.ndarray, " agents"]
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with which every agent takes its own number of steps at a round's beginning.

    While an agent rests, neither its parameters nor its part of the optimizer's state change.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> RestingState:
        check_stacked(params, own_steps.size, holder="local_steps")
        return RestingState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(
        updates: optax.Updates, state: RestingState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, RestingState]:
        active: Bool[Array, " agents"] = state.step % int(own_steps.max()) < own_steps

        def held(is_stacked: bool, new: Array, old: Array) -> Array:
            return jnp.where(along_agents(active, new), new, old) if is_stacked else new

        is_stacked = have_agent_axis(inner.init, updates)
        updates, stepped = inner.update(updates, state.inner, params, **extra_args)
        updates = jax.tree.map(lambda u: held(True, u, jnp.zeros_like(u)), updates)
        inner_state = jax.tree.map(held, is_stacked, stepped, state.inner)
        return updates, RestingState(state.step + 1, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
