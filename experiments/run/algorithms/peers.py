"""Gossip: agents that talk to one random neighbour at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.run.algorithms.row import Algorithm, Setting, sgd
from experiments.run.lazy import LazyModule

cdjax, mixing = LazyModule("cdjax"), LazyModule("cdjax.mixing")
jax, jnp, optax = LazyModule("jax"), LazyModule("jax.numpy"), LazyModule("optax")


def with_partner(run: Setting) -> cdjax.Mixer:
    """Means over disjoint pairs of neighbours, drawn for each exchange."""
    return mixing.pull(mixing.random_pairs(run.topology, run.key))


def between_pairs(run: Setting, *, period: int, **_: Any) -> float:
    """Counted over the pairs that the run draws: both send."""
    rounds = jnp.arange(-(-run.num_steps // period))
    peers = jax.lax.map(mixing.random_pairs(run.topology, run.key), rounds)
    talks = peers != np.arange(run.num_agents)[None]
    return float(jnp.mean(jnp.sum(talks, axis=1))) / period


def _by_pull(run: Setting) -> cdjax.Mixer:
    return mixing.pull(mixing.random_peers(run.topology, run.key))


def _by_push(run: Setting) -> cdjax.Mixer:
    return mixing.push(mixing.random_peers(run.topology, run.key))


def _to_one_peer(run: Setting, *, period: int, **_: Any) -> float:
    return run.num_agents / period


def _gossip(mixer: Callable[[Setting], cdjax.Mixer]) -> Callable[..., optax.GradientTransformation]:
    def build(
        run: Setting, *, momentum: float = 0.0, period: int = 1
    ) -> optax.GradientTransformation:
        return cdjax.gossip(sgd(run.alpha, momentum), mixer(run), period=period)

    return build


def _gosgd(
    run: Setting, *, momentum: float = 0.0, talk_probability: float = 0.1
) -> optax.GradientTransformation:
    peers = mixing.random_peers(run.topology, run.key, probability=talk_probability)
    return cdjax.gosgd(sgd(run.alpha, momentum), peers)


def _now_and_then(run: Setting, *, talk_probability: float, **_: Any) -> float:
    return run.num_agents * talk_probability


_JIN = "Jin, Yuan, Iandola, Keutzer (2016)"

PEERS: dict[str, Algorithm] = {
    "gossip-pair": Algorithm(
        _gossip(with_partner), between_pairs, "gossip in pairs",
        f"{_JIN}, with peers in disjoint pairs",
    ),
    "gossip-pull": Algorithm(
        _gossip(_by_pull), _to_one_peer, "pull gossip", f"{_JIN}, pull-gossip"
    ),
    "gossip-push": Algorithm(
        _gossip(_by_push), _to_one_peer, "push gossip", f"{_JIN}, push-gossip"
    ),
    "gosgd": Algorithm(_gosgd, _now_and_then, "GoSGD", "Blot, Picard, Cord, Thome (2016)"),
}  # fmt: skip
