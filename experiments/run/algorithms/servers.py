"""Agents that talk through a server: what decentralized algorithms are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.run.algorithms.row import Algorithm, Setting, sgd
from experiments.run.lazy import LazyModule

cdjax, optax = LazyModule("cdjax"), LazyModule("optax")


def to_server_and_back(run: Setting, *, period: int = 1, **_: Any) -> float:
    """The messages of all agents and the server, in every ``period``-th step."""
    return 2.0 * run.num_agents / period


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


_SERVES: dict[str, Any] = {"messages": to_server_and_back, "server": "stateful"}
_ZHANG = "Zhang, Choromanska, LeCun (2015)"

SERVERS: dict[str, Algorithm] = {
    "centralized": Algorithm(
        _centralized, to_server_and_back, "SGD, gradients averaged", "the optimizer's own",
        server="stateless", weighting="gradients",
    ),
    "fedavg": Algorithm(
        _fedavg, _to_clients_and_back, "FedAvg",
        "McMahan, Moore, Ramage, Hampson, Agüera y Arcas (2017), Algorithm 1",
        server="stateless", weighting="always", own_passes=True, loop=_fedavg_loop,
    ),
    "easgd": Algorithm(_easgd, title="EASGD", reference=f"{_ZHANG}, Algorithm 1", **_SERVES),
    "eamsgd": Algorithm(_eamsgd, title="EAMSGD", reference=f"{_ZHANG}, Algorithm 2", **_SERVES),
    "downpour": Algorithm(
        _downpour, title="Downpour SGD", reference="Dean et al. (2012), section 4.1", **_SERVES
    ),
}  # fmt: skip
