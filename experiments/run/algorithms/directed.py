"""Push-sum along the directed edges of the graph, and RelaySGD along a tree in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.run.algorithms.row import (
    Algorithm,
    Setting,
    combines,
    combines_twice,
    sgd,
    twice,
)
from experiments.run.lazy import LazyModule

cdjax, mixing, network = (LazyModule(f"cdjax{name}") for name in ("", ".mixing", ".network"))
jnp = LazyModule("jax.numpy")
optax, topology = LazyModule("optax"), LazyModule("cdjax.topology")


def _push_sum(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.push_sum(sgd(run.alpha, momentum), _pushes(run))


def _push_diging(run: Setting) -> optax.GradientTransformation:
    return cdjax.push_diging(run.alpha, _pushes(run))


def _pushes(run: Setting) -> cdjax.Mixer:
    """Every agent deals what it has in equal parts, along the edges of the run's graph."""
    return mixing.auto(topology.from_digraph(run.topology.graph.to_directed()))


def _along_edges(run: Setting, **_: Any) -> float:
    return 2.0 * run.topology.graph.number_of_edges()


def _relay(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.relay(sgd(run.alpha, momentum), topology.spanning_tree(run.topology))


def _along_tree(run: Setting, **_: Any) -> float:
    return 2.0 * (run.num_agents - 1)


def _over_tree(run: Setting, links: network.Links, **_: Any) -> network.Heard:
    """The links of the spanning tree, in every step."""
    tree = topology.spanning_tree(run.topology).graph
    ends = zip(links.senders.tolist(), links.receivers.tolist(), strict=True)
    is_linked = np.array([tree.has_edge(*pair) for pair in ends])
    return lambda step: jnp.asarray(is_linked)


_PUSHES: dict[str, Any] = {"talks": "one way, with all neighbours"}

DIRECTED: dict[str, Algorithm] = {
    "push-sum": Algorithm(
        _push_sum, _along_edges, "stochastic gradient push",
        "Assran, Loizou, Ballas, Rabbat (2019), Algorithm 1", order=combines, **_PUSHES,
    ),
    "push-diging": Algorithm(
        _push_diging, twice(_along_edges), "Push-DIGing",
        "Nedić, Olshevsky, Shi (2017), Algorithm 2", order=combines_twice, **_PUSHES,
    ),
    "relay": Algorithm(
        _relay, _along_tree, "RelaySGD", "Vogels et al. (2021), Algorithm 1",
        order=combines,
        talks="with the neighbours on a spanning tree", heard=_over_tree,
    ),
}  # fmt: skip
