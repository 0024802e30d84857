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
    check_inner,
    check_key,
    check_scalar,
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
    from ``fold_in(key, r)``. The other agents rest: neither their parameters nor their part of the
    inner optimizer's state change, until they receive the mean, from which every round starts.
    The inner optimizer's state stays with its agent, neither averaged nor reset.

    Gradients of agents that rest are ignored. :func:`cdjax.training.fedavg_loop` does not compute
    them in the first place.

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
    check_inner(inner)
    rounds = fedavg_rounds(local_steps, fraction=fraction, weights=weights, key=key)
    if rounds.some_rest:
        inner = _resting(inner, rounds)

    def average_clients(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        num_agents = stacked_size(tree)
        sizes = jnp.ones(num_agents) if rounds.weights is None else rounds.weights
        return agent_average(tree, jnp.where(rounds.are_clients(step, num_agents), sizes, 0))

    # `every` passes the round on as the step of its mixer, so `step` above is r.
    return adapt_then_combine(inner, every(rounds.period, average_clients))


class FedAvgRounds(NamedTuple):
    """Who trains in which round, for how long, and with which weight.

    ``own_steps`` are those of each agent, or of all; ``fraction`` is 1 where nobody is drawn.
    """

    own_steps: Int[np.ndarray, ...]
    fraction: float
    weights: Array | None
    key: PRNGKeyArray | None

    @property
    def period(self) -> int:
        """The steps of a round."""
        return int(self.own_steps.max())

    @property
    def some_rest(self) -> bool:
        """Whether there are steps in which not all agents train."""
        return self.fraction < 1 or self.own_steps.ndim > 0

    def num_clients(self, num_agents: int) -> int:
        """The number of agents that train in a round."""
        # 0.29 * 100 is 28.999999999999996, but means 29.
        return max(1, math.floor(self.fraction * num_agents + 1e-9))

    def are_clients(self, number: int | Int[Array, ""], num_agents: int) -> Bool[Array, " agents"]:
        """Whether each agent trains in a round."""
        if self.fraction == 1 or self.key is None:
            return jnp.ones(num_agents, bool)
        order = jax.random.permutation(jax.random.fold_in(self.key, number), num_agents)
        return order < self.num_clients(num_agents)

    def clients(self, number: int | Int[Array, ""], num_agents: int) -> Int[Array, " clients"]:
        """The numbers of the agents that train in a round, in ascending order."""
        marks, size = self.are_clients(number, num_agents), self.num_clients(num_agents)
        return jnp.flatnonzero(marks, size=size)


def fedavg_rounds(
    local_steps: int | Int[np.ndarray, " agents"],
    *,
    fraction: float,
    weights: ArrayLike | None,
    key: PRNGKeyArray | None,
) -> FedAvgRounds:
    """The rounds of :func:`fedavg`, from its checked arguments."""
    own_steps = np.asarray(local_steps)
    for steps in own_steps.ravel().tolist():
        check_count("local_steps", steps, low=1)
    check_scalar("fraction", fraction, low=0, high=1)
    check_positive_weights(weights)
    if key is None and fraction < 1:
        raise ValueError(f"fraction is {fraction}: give key=jax.random.key(0) to draw clients from")
    if key is not None:
        check_key(key)
    sizes = None if weights is None else jnp.asarray(weights, float)
    return FedAvgRounds(own_steps, fraction, sizes, key)


class RestingState(NamedTuple):
    """State of agents that rest: the step and the inner optimizer's state."""

    step: Int[Array, ""]
    inner: OptState


def _resting(
    inner: optax.GradientTransformation, rounds: FedAvgRounds
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with which only a round's clients step, each its own number of times.

    While an agent rests, neither its parameters nor its part of the optimizer's state change.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> RestingState:
        if rounds.own_steps.ndim:
            check_stacked(params, rounds.own_steps.size, holder="local_steps")
        return RestingState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(
        updates: optax.Updates, state: RestingState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, RestingState]:
        num_agents, position = stacked_size(updates), state.step % rounds.period
        active = rounds.are_clients(state.step // rounds.period, num_agents)
        active &= position < jnp.asarray(rounds.own_steps, position.dtype)
        is_stacked = have_agent_axis(inner.init, updates)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        updates, inner_state = of_active(active, updates, (inner_state, state.inner), is_stacked)
        return updates, RestingState(state.step + 1, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def of_active(
    active: Bool[Array, " agents"],
    updates: optax.Updates,
    states: tuple[OptState, OptState],
    is_stacked: Any,
) -> tuple[optax.Updates, OptState]:
    """An optimizer's step of the agents that are active; the others neither move nor change.

    ``states`` are those after and before the step, ``is_stacked`` says which of their leaves have
    the agent axis.
    """

    def held(is_stacked: bool, new: Array, old: Array) -> Array:
        return jnp.where(along_agents(active, new), new, old) if is_stacked else new

    updates = jax.tree.map(lambda u: held(True, u, jnp.zeros_like(u)), updates)
    return updates, jax.tree.map(held, is_stacked, *states)
