"""Agents that talk through a server: what decentralized algorithms are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.run.algorithms.row import Algorithm, Setting, in_fragments, sgd
from experiments.run.lazy import LazyModule

cdjax, network, optax = (LazyModule(name) for name in ("cdjax", "cdjax.network", "optax"))
jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")
rounds_of = LazyModule("cdjax.transforms._fedavg")


def to_server_and_back(run: Setting, *, period: int = 1, **_: Any) -> float:
    """The messages of all agents and the server, in every ``period``-th step."""
    return 2.0 * run.num_agents / period


def averages(
    run: Setting,
    *,
    period: int = 1,
    fragments: int = 1,
    delay: int = 0,
    asynchronous: bool = False,
    **_: Any,
) -> network.Order:
    """The server waits for all, and all wait for the server; asynchronous, each for itself."""
    if asynchronous:
        return network.asynchronous_server()
    order = network.parameter_server()
    return in_fragments(order, period=period, fragments=fragments, delay=delay)


def _averages_clients(run: Setting, *, period: int | None, **_: Any) -> network.Order:
    return averages(run, period=period or int(run.own_steps.max()))


def _pulls(run: Setting, *, period: int, asynchronous: bool = False, **_: Any) -> network.Order:
    """Agents and the server send what they had when the step began."""
    if asynchronous:
        return network.asynchronous_server()
    return network.every(period, network.consensus())


def _in_turns(
    run: Setting, links: network.Links, *, period: int, asynchronous: bool, **_: Any
) -> network.Heard | None:
    """The links of those whose own clocks the period divides, see :func:`_clocks`."""
    if not asynchronous:
        return None
    agents = np.minimum(links.receivers, links.senders)
    return lambda step: (step + jnp.asarray(agents)) % period == 0


def _of_clients(
    run: Setting, links: network.Links, *, period: int | None, client_fraction: float, **_: Any
) -> network.Heard | None:
    """Up from the clients of a round, down to those of the next."""
    if client_fraction == 1:
        return None
    rounds = rounds_of.fedavg_rounds(**_fedavg_rounds(run, period, client_fraction))
    agents = jnp.asarray(np.minimum(links.receivers, links.senders))
    is_up = jnp.asarray(links.receivers == run.num_agents)

    def heard(number: jax.Array) -> jax.Array:
        up, down = (rounds.are_clients(number + i, run.num_agents) for i in range(2))
        return jnp.where(is_up, up[agents], down[agents])

    return heard


def _clients_train(
    run: Setting, *, period: int | None, client_fraction: float, **_: Any
) -> Callable[[jax.Array], jax.Array] | None:
    rounds = rounds_of.fedavg_rounds(**_fedavg_rounds(run, period, client_fraction))
    if not rounds.some_rest:
        return None

    def trains(step: jax.Array) -> jax.Array:
        clients = rounds.are_clients(step // rounds.period, run.num_agents)
        return clients & (step % rounds.period < rounds.own_steps)

    return trains


def _centralized(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    weights = run.sizes if run.size_weighted else None
    return optax.chain(cdjax.average_updates(weights), sgd(run.alpha, momentum))


def _fedavg(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int | None = None,
    client_fraction: float = 1.0,
) -> optax.GradientTransformation:
    return cdjax.fedavg(sgd(run.alpha, momentum), **_fedavg_rounds(run, period, client_fraction))


def _fedavg_loop(
    run: Setting,
    loss: Callable[..., Any],
    *,
    plan: str,
    momentum: float,
    period: int | None,
    client_fraction: float,
) -> Callable[..., Any]:
    rounds = _fedavg_rounds(run, period, client_fraction)
    return cdjax.training.fedavg_loop(loss, sgd(run.alpha, momentum), **rounds, plan=plan)


def _fedavg_rounds(run: Setting, period: int | None, client_fraction: float) -> dict[str, Any]:
    equal = np.ptp(run.own_steps) == 0
    return {
        "local_steps": period or (int(run.own_steps[0]) if equal else run.own_steps),
        "fraction": client_fraction,
        "weights": run.sizes,
        "key": run.key,
    }


def _to_clients_and_back(
    run: Setting, *, period: int | None, client_fraction: float, **_: Any
) -> float:
    num_clients = max(1, math.floor(client_fraction * run.num_agents + 1e-9))
    return 2.0 * num_clients / (period or int(run.own_steps.max()))


def _easgd(
    run: Setting, *, period: int = 10, asynchronous: bool = False
) -> optax.GradientTransformation:
    return cdjax.easgd(run.alpha, period=period, clocks=_clocks(run, asynchronous))


def _eamsgd(
    run: Setting, *, momentum: float = 0.9, period: int = 10, asynchronous: bool = False
) -> optax.GradientTransformation:
    clocks = _clocks(run, asynchronous)
    return cdjax.eamsgd(run.alpha, momentum=momentum, period=period, clocks=clocks)


def _downpour(
    run: Setting, *, period: int = 1, asynchronous: bool = False
) -> optax.GradientTransformation:
    periods = {"push_period": period, "fetch_period": period}
    return cdjax.downpour(run.alpha, run.alpha, **periods, clocks=_clocks(run, asynchronous))


def _clocks(run: Setting, asynchronous: bool) -> np.ndarray | None:
    """One step apart for each agent."""
    return np.arange(run.num_agents) if asynchronous else None


_SERVES: dict[str, Any] = {
    "messages": to_server_and_back, "order": _pulls, "heard": _in_turns, "server": "stateful"
}  # fmt: skip
_ZHANG = "Zhang, Choromanska, LeCun (2015)"

SERVERS: dict[str, Algorithm] = {
    "centralized": Algorithm(
        _centralized, to_server_and_back, "SGD, gradients averaged", "the optimizer's own",
        order=averages, server="stateless", weighting="gradients",
    ),
    "fedavg": Algorithm(
        _fedavg, _to_clients_and_back, "FedAvg",
        "McMahan, Moore, Ramage, Hampson, Agüera y Arcas (2017), Algorithm 1",
        order=_averages_clients, server="stateless", weighting="always", own_passes=True,
        heard=_of_clients, trains=_clients_train, loop=_fedavg_loop,
    ),
    "easgd": Algorithm(_easgd, title="EASGD", reference=f"{_ZHANG}, Algorithm 1", **_SERVES),
    "eamsgd": Algorithm(_eamsgd, title="EAMSGD", reference=f"{_ZHANG}, Algorithm 2", **_SERVES),
    "downpour": Algorithm(
        _downpour, title="Downpour SGD", reference="Dean et al. (2012), section 4.1",
        **_SERVES | {"order": averages},
    ),
}  # fmt: skip
