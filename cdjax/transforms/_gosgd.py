r"""GoSGD: gossip whose messages carry weights.

Blot, Picard, Cord, Thome, *Gossip training for deep learning*, 2016, arXiv:1611.09726; the weights
are those of the sum-weight protocol of Kempe, Dobra, Gehrke (2003).

A message carries half of the sender's weight, and its parameters. Sending splits a weight in two
and receiving adds weights up, so neither changes :math:`\sum w` nor :math:`\sum w x` over agents
and messages, whoever talks to whom and however late. Messages that arrive together are one message,
with the sum of their weights and their weighted mean, which equals taking the paper's weighted mean
message by message.

A leaf of a star hears back once in :math:`(N - 1) / p` steps and halves its weight p times a step:
after 150 halvings a float32 weight is 0, and the mean of its pair 0 / 0. The state therefore holds
the logarithms of the weights, to base 2, in which a half is exact; means are sums of differences
between parameters, times quotients of weights, which lie in [0, 1]. The logarithms' rounding would
let the sum of the weights drift; they are divided by it, which changes no mean.
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
    check_inner,
    check_params,
    check_stacked,
    stacked_size,
)
from cdjax._trees import (
    along_agents,
    displacement,
    is_floating,
    is_leafless,
    map_floats,
    widened,
)
from cdjax._types import OptState, Params
from cdjax.mixing import Peers


class Messages(NamedTuple):
    """What arrives at each agent in one step: summed weights (log2), and the weighted mean."""

    log2_weight: Float[Array, " agents"]
    params: Params


class GoSGDState(NamedTuple):
    """State of :func:`gosgd`; the weights of agents and of messages in flight sum to one."""

    step: Int[Array, ""]
    log2_weight: Float[Array, " agents"]
    in_flight: tuple[Messages, ...]
    inner: OptState

    @property
    def weight(self) -> Float[Array, "... agents"]:
        """The weights of the agents; a weight below 2^-126 may read as zero."""
        return jnp.exp2(self.log2_weight)


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
    check_inner(inner)
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_peers")
    check_count("delay", delay, low=0)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> GoSGDState:
        num_agents = 0 if is_leafless(params) else stacked_size(params)
        # Messages share no buffers, so that the state can be donated.
        in_flight = tuple(
            Messages(jnp.full(num_agents, -jnp.inf, float), jax.tree.map(_wide_zeros, params))
            for _ in range(delay)
        )
        log2_weight = -jnp.log2(jnp.full(num_agents, num_agents, float))
        return GoSGDState(jnp.zeros([], jnp.int32), log2_weight, in_flight, inner.init(params))

    def update(
        updates: optax.Updates, state: GoSGDState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, GoSGDState]:
        x = check_params(params, "gosgd", updates)
        if is_leafless(x):  # of an empty group of optax.partition
            return updates, state
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        receiver = peers(state.step)
        check_stacked(x, len(receiver), holder="peers")
        stepped = optax.apply_updates(x, updates)
        kept, sent = _push(state.log2_weight, stepped, receiver)
        arrived, *in_flight = *state.in_flight, sent
        # w / (w^j + w) of what arrives with weight w; nothing has the logarithm -∞, and 0.
        gain = 1 / (1 + jnp.exp2(kept - arrived.log2_weight))
        mixed = map_floats(
            lambda x, mean: x + along_agents(gain, x) * (mean - x), stepped, arrived.params
        )
        log2_weight = jnp.logaddexp2(kept, arrived.log2_weight)
        log2_weight, in_flight = _sum_to_one(log2_weight, in_flight)
        state = GoSGDState(state.step + 1, log2_weight, in_flight, inner_state)
        return displacement(mixed, x), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _push(
    log2_weight: Float[Array, " agents"], params: Params, receiver: Int[Array, " agents"]
) -> tuple[Float[Array, " agents"], Messages]:
    """The weights that agents keep, and what they send as it reaches the receivers."""
    talks = receiver != jnp.arange(len(receiver))
    halves = jnp.where(talks, log2_weight - 1, -jnp.inf)
    # Of what an agent receives, the largest weight is the unit in which the others are counted.
    largest = jnp.full_like(log2_weight, -jnp.inf).at[receiver].max(halves)
    share = jnp.where(talks, jnp.exp2(halves - largest[receiver]), 0)
    total = jnp.zeros_like(share).at[receiver].add(share)  # at least 1, or 0 without a message
    share /= jnp.maximum(total, 1)[receiver]

    def mean(x: Array) -> Array:
        if not is_floating(x):
            return x
        # Stays in float32 at least: rounded to bfloat16, the weighted sum would not be conserved.
        x = widened(x)
        return x + jnp.zeros_like(x).at[receiver].add(along_agents(share, x) * (x - x[receiver]))

    sent = Messages(largest + jnp.log2(total), jax.tree.map(mean, params))
    return jnp.where(talks, halves, log2_weight), sent


def _sum_to_one(
    log2_weight: Float[Array, " agents"], in_flight: list[Messages]
) -> tuple[Float[Array, " agents"], tuple[Messages, ...]]:
    """Divides all weights by their sum, from which rounding takes them away."""
    weights = [log2_weight, *(message.log2_weight for message in in_flight)]
    log2_total = jnp.log2(sum(jnp.sum(jnp.exp2(w)) for w in weights))
    messages = (m._replace(log2_weight=m.log2_weight - log2_total) for m in in_flight)
    return log2_weight - log2_total, tuple(messages)


def _wide_zeros(x: Array) -> Array:
    return jnp.zeros_like(widened(x) if is_floating(x) else x)
