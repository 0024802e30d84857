r"""GoSGD: gossip whose messages carry weights.

Blot, Picard, Cord, Thome, *Gossip training for deep learning*, 2016, arXiv:1611.09726; the weights
are those of the sum-weight protocol of Kempe, Dobra, Gehrke (2003).

A message is the pair :math:`(w / 2, \, w x / 2)` of weight and weighted parameters. Sending splits
a pair in two and receiving adds pairs up, so neither changes the sums of both components over
agents and messages, whoever talks to whom and however late. An agent's parameters are the quotient
of its pair. Messages that arrive together are added before the quotient is taken, which equals
taking the paper's weighted mean message by message.
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
from cdjax._trees import along_agents, map_floats, widened
from cdjax._types import OptState, Params
from cdjax.mixing import Peers


class Messages(NamedTuple):
    """What arrives at each agent in one step: summed weights, and summed weighted parameters."""

    weight: Float[Array, " agents"]
    weighted_params: Params


class GoSGDState(NamedTuple):
    """State of :func:`gosgd`; the weights of agents and of messages in flight sum to one."""

    step: Int[Array, ""]
    weight: Float[Array, " agents"]
    in_flight: tuple[Messages, ...]
    inner: OptState


def gosgd(
    inner: optax.GradientTransformation, peers: Peers, *, delay: int = 0
) -> optax.GradientTransformationExtraArgs:
    r"""Gossip SGD with weighted pushes.

    After its own step :math:`x^j \leftarrow x^j + u^j` an agent that talks halves its weight
    :math:`w^j` (initially 1/N) and pushes the half along with its parameters; a receiver takes the
    weighted mean:

    .. math::
        x^j \leftarrow \frac{w^j x^j + \sum_{l \to j} w^l x^l}{w^j + \sum_{l \to j} w^l}, \qquad
        w^j \leftarrow w^j + \sum_{l \to j} w^l

    The weights, with those of messages in flight, always sum to one, and the gossip conserves
    :math:`\sum_j w^j x^j`, messages included.

    Args:
        inner: any optax optimizer with updates :math:`u`.
        peers: from the step to each agent's receiver, or the agent itself if it does not talk; the
            paper's are :func:`cdjax.mixing.random_peers` on ``topology.complete(N)``.
        delay: for how many steps a message travels; with 0 it arrives before the next gradient.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. Its
        state holds one more copy of the parameters per step of delay.

    Raises:
        ValueError: if the delay is negative.

    Example: ``tx = cdjax.gosgd(optax.sgd(0.1), cdjax.mixing.random_peers(topology, key))``

    Reference: Blot et al. (2016), the workers' loop with PushMessage and ProcessMessages.
    """
    check_optimizer("inner", inner)
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_peers")
    check_count("delay", delay, low=0)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> GoSGDState:
        num_agents = stacked_size(params)
        # Messages share no buffers, so that the state can be donated.
        in_flight = tuple(
            Messages(jnp.zeros(num_agents), optax.tree.zeros_like(jax.tree.map(widened, params)))
            for _ in range(delay)
        )
        weight = jnp.ones(num_agents) / num_agents
        return GoSGDState(jnp.zeros([], jnp.int32), weight, in_flight, inner.init(params))

    def update(
        updates: optax.Updates, state: GoSGDState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, GoSGDState]:
        x = check_params(params, "gosgd", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        receiver = peers(state.step)
        check_stacked(x, len(receiver), holder="peers")

        stepped = optax.apply_updates(x, updates)
        kept, sent = _push(state.weight, stepped, receiver)
        arrived, *in_flight = *state.in_flight, sent
        weight = kept + arrived.weight
        total = optax.tree.add(_weighted(kept, stepped), arrived.weighted_params)
        mean = map_floats(lambda _, mean: mean, x, _weighted(1 / weight, total))  # counters stay
        updates = optax.tree.sub(mean, x)
        return updates, GoSGDState(state.step + 1, weight, tuple(in_flight), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _push(
    weight: Float[Array, " agents"], params: Params, receiver: Int[Array, " agents"]
) -> tuple[Float[Array, " agents"], Messages]:
    """The weights that senders keep, and what they send as it reaches the receivers."""
    talks = receiver != jnp.arange(len(receiver))
    pushed = jnp.where(talks, weight / 2, 0)
    outgoing = Messages(pushed, _weighted(pushed, params))
    sent = jax.tree.map(lambda m: jnp.zeros_like(m).at[receiver].add(m), outgoing)
    return weight - pushed, sent


def _weighted(weight: Float[Array, " agents"], params: Params) -> Params:
    """Agent j's leaves times its weight, and left in float32 at least.

    Rounded to bfloat16 in between, the weighted sum would not be conserved.
    """
    return jax.tree.map(lambda x: along_agents(weight, x) * x, jax.tree.map(widened, params))
