"""Gossip: agents that talk to one random neighbour at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.run.algorithms.row import Algorithm, Setting, combines, sgd
from experiments.run.lazy import LazyModule

cdjax, mixing, network = (LazyModule(f"cdjax{name}") for name in ("", ".mixing", ".network"))
training = LazyModule("cdjax.training")
jax, jnp, optax = LazyModule("jax"), LazyModule("jax.numpy"), LazyModule("optax")


def with_partner(run: Setting) -> cdjax.Mixer:
    """Means over disjoint pairs of neighbours, drawn for each exchange."""
    return mixing.pull(mixing.random_pairs(run.topology, run.key), mesh=run.mesh)


def heard_from_partner(run: Setting, links: network.Links, **_: Any) -> network.Heard:
    """The links between the pairs that the run draws."""
    return network.heard_from_peers(mixing.random_pairs(run.topology, run.key), links)


def between_pairs(run: Setting, *, period: int, **_: Any) -> float:
    """Counted over the pairs that the run draws: both send."""
    rounds = jnp.arange(-(-run.num_steps // period))
    peers = jax.lax.map(mixing.random_pairs(run.topology, run.key), rounds)
    talks = peers != np.arange(run.num_agents)[None]
    return float(jnp.mean(jnp.sum(talks, axis=1))) / period


def _by_pull(run: Setting) -> cdjax.Mixer:
    return mixing.pull(mixing.random_peers(run.topology, run.key), mesh=run.mesh)


def _by_push(run: Setting) -> cdjax.Mixer:
    return mixing.push(mixing.random_peers(run.topology, run.key), mesh=run.mesh)


def _heard_from_peer(run: Setting, links: network.Links, **_: Any) -> network.Heard:
    return network.heard_from_peers(mixing.random_peers(run.topology, run.key), links)


def _sent_to_peer(
    run: Setting, links: network.Links, *, talk_probability: float = 1.0, **_: Any
) -> network.Heard:
    peers = mixing.random_peers(run.topology, run.key, probability=talk_probability)
    return network.sent_to_peers(peers, links)


def _pushes(run: Setting, *, period: int = 1, **_: Any) -> network.Order:
    return network.every(period, network.push())


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


def _ad_psgd(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return training.ad_psgd(sgd(run.alpha, momentum))


def _ad_psgd_loop(
    run: Setting, loss: Callable[..., Any], *, plan: str, momentum: float
) -> Callable[..., Any]:
    del plan  # one agent at a time
    inner = sgd(run.alpha, momentum)
    return training.ad_psgd_loop(loss, inner, events=run.events, sizes=run.sizes)


def _swaps(run: Setting, **_: Any) -> network.Order:
    return dataclasses.replace(network.push(), messages=2)


def _of_both(run: Setting, **_: Any) -> float:
    return 2.0 * run.num_agents


_JIN = "Jin, Yuan, Iandola, Keutzer (2016)"

PEERS: dict[str, Algorithm] = {
    "gossip-pair": Algorithm(
        _gossip(with_partner), between_pairs, "gossip in pairs",
        f"{_JIN}, with peers in disjoint pairs", order=combines, heard=heard_from_partner,
    ),
    "gossip-pull": Algorithm(
        _gossip(_by_pull), _to_one_peer, "pull gossip", f"{_JIN}, pull-gossip", order=combines,
        heard=_heard_from_peer,
    ),
    "gossip-push": Algorithm(
        _gossip(_by_push), _to_one_peer, "push gossip", f"{_JIN}, push-gossip", order=_pushes,
        heard=_sent_to_peer,
    ),
    "gosgd": Algorithm(
        _gosgd, _now_and_then, "GoSGD", "Blot, Picard, Cord, Thome (2016)", order=_pushes,
        heard=_sent_to_peer,
    ),
    "ad-psgd": Algorithm(
        _ad_psgd, _of_both, "AD-PSGD", "Lian, Zhang, Zhang, Liu (2018), Algorithm 1", order=_swaps,
        talks="with a random neighbour, and waits for nobody", heard=_sent_to_peer,
        loop=_ad_psgd_loop, has_events=True,
    ),
}  # fmt: skip
