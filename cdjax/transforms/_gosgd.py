"""GoSGD: gossip whose messages carry weights.

Blot, Picard, Cord, Thome, *Gossip training for deep learning*, 2016, arXiv:1611.09726; the weights
are those of the sum-weight protocol of Kempe, Dobra, Gehrke (2003).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from cdjax._checks import (
    check_callable,
    check_count,
    check_optimizer,
    check_params,
    check_stacked,
    stacked_size,
)
from cdjax._types import Params
from cdjax.mixing import Peers


class Mail(NamedTuple):
    """What arrives at each agent in one step: summed weights, and summed weighted parameters."""

    weight: Float[Array, " agents"]
    weighted_params: Params


class GoSGDState(NamedTuple):
    """State of :func:`gosgd`; the weights of agents and of the mail in flight sum to one."""

    step: Int[Array, ""]
    weight: Float[Array, " agents"]
    in_flight: tuple[Mail, ...]
    inner: optax.OptState


def gosgd(
    inner: optax.GradientTransformation, peers: Peers, *, delay: int = 0
) -> optax.GradientTransformationExtraArgs:
    r"""Gossip SGD with weighted pushes.

    After its own step :math:`x^j \leftarrow x^j + u^j` an agent that talks halves its weight
    :math:`w^j` (at first 1/N) and pushes it along with its parameters; a receiver takes the
    weighted mean:

    .. math::
        x^j \leftarrow \frac{w^j x^j + \sum_{l \to j} w^l x^l}{w^j + \sum_{l \to j} w^l}, \qquad
        w^j \leftarrow w^j + \sum_{l \to j} w^l

    The weights, with those of messages in flight, always sum to one, and the gossip conserves
    :math:`\sum_j w^j x^j`, messages included.

    Args:
        inner: any optax optimizer with updates :math:`u`.
        peers: from the step to each agent's receiver, or itself when it does not talk;
            :func:`cdjax.mixing.random_peers` with probability p on ``topology.complete(N)`` is the
            paper's.
        delay: steps that a message is under way; with 0 the receiver's next gradient sees it, as
            when it has arrived by the start of the receiver's next step.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and hands extra arguments on to
        ``inner``. Its state holds one more copy of the parameters for every step of delay.

    Raises:
        ValueError: if the delay is negative.

    Example::

        peers = cdjax.mixing.random_peers(cdjax.topology.complete(8), key, probability=0.02)
        tx = cdjax.gosgd(optax.sgd(0.1), peers)

    Reference: Blot et al. (2016), the workers' loop with PushMessage and ProcessMessages.
    """
    check_optimizer("inner", inner)
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_peers")
    check_count("delay", delay, low=0)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> GoSGDState:
        num_agents = stacked_size(params)
        # In float32 at least: a weight times parameters has no place in bfloat16's eight bits.
        empty = lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))  # noqa: E731
        in_flight = tuple(
            Mail(jnp.zeros(num_agents), jax.tree.map(empty, params)) for _ in range(delay)
        )
        weight = jnp.ones(num_agents) / num_agents
        return GoSGDState(jnp.zeros([], jnp.int32), weight, in_flight, inner.init(params))

    def update(
        updates: optax.Updates,
        state: GoSGDState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GoSGDState]:
        x = check_params(params, "gosgd", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        receiver = peers(state.step)
        check_stacked(x, len(receiver), holder="peers")

        talks = receiver != jnp.arange(len(receiver))
        pushed = jnp.where(talks, state.weight / 2, 0)
        stepped = optax.apply_updates(x, updates)
        sent = Mail(_deliver(pushed, receiver), _deliver(_weighted(pushed, stepped), receiver))
        arrived, *in_flight = *state.in_flight, sent

        kept = state.weight - pushed
        weight = kept + arrived.weight
        total = optax.tree.add(_weighted(kept, stepped), arrived.weighted_params)
        updates = jax.tree.map(lambda m, x: m.astype(x.dtype) - x, _weighted(1 / weight, total), x)
        return updates, GoSGDState(state.step + 1, weight, tuple(in_flight), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _weighted(weight: Float[Array, " agents"], params: Params) -> Params:
    """Agent j's leaves times its weight, in float32 at least."""

    def leaf(x: Array) -> Array:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return jax.vmap(jnp.multiply)(weight.astype(x.dtype), x)

    return jax.tree.map(leaf, params)


def _deliver(tree: Params, receiver: Int[Array, " agents"]) -> Params:
    """Sums what every agent receives."""
    return jax.tree.map(lambda x: jnp.zeros_like(x).at[receiver].add(x), tree)
