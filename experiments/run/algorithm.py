"""The algorithms of ``--algorithm``: one row each, and everything else reads the row.

Choices, help, validation, bytes, bounds, tables and the page docs/algorithms.md follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cdjax
from cdjax import mixing


class Setting(NamedTuple):
    """What an algorithm is built from, beside its own options.

    Attributes:
        topology: the graph and its mixing matrix.
        mix: the run's mixer; :data:`None` for an algorithm that does not mix over the topology.
        learning_rate: the step size, a number or a schedule of the step.
        sizes: the number of samples of each agent, shape (N,).
        size_weighted: whether agents are weighted by it.
        steps_per_epoch: steps in an epoch.
        num_steps: steps of the whole run.
        key: of all random draws of peers and clients.
    """

    topology: cdjax.Topology
    mix: cdjax.Mixer | None
    learning_rate: cdjax.ScalarOrSchedule
    sizes: np.ndarray
    size_weighted: bool
    steps_per_epoch: int
    num_steps: int
    key: jax.Array

    @property
    def num_agents(self) -> int:
        """The number of agents N."""
        return self.topology.num_agents

    @property
    def weights(self) -> np.ndarray | None:
        """The weights of the agents, shape (N,); :data:`None` for equal ones."""
        return self.sizes if self.size_weighted else None


class Algorithm(NamedTuple):
    """One algorithm.

    Attributes:
        build: makes the optax transformation from a setting and the options.
        messages: how many model-sized messages all agents, and a server, send per step on average,
            from a setting (of several agents) and the options.
        title: how it is called in text.
        reference: where it comes from.
        options: the options that it reads, and their defaults.
        over_topology: whether agents mix with all neighbours in every step, so that links can fail,
            agents can lie, and agents can take turns.
        server: whether there is one: ``stateless`` if it only averages, ``stateful`` if what is
            trained are its own parameters.
        recursion: how its disagreement evolves, for the theory's bounds: ``plain``, ``polyak`` or
            ``nesterov``; ``""`` if the theory does not cover it.
        weighting: what ``--size-weighted`` does: weigh each agent's loss, weigh the ``gradients``
            where they are averaged, or nothing since it is ``always`` so.
    """

    build: Callable[..., optax.GradientTransformation]
    messages: Callable[..., float]
    title: str
    reference: str
    options: Mapping[str, Any] = {}
    over_topology: bool = False
    server: Literal["", "stateless", "stateful"] = ""
    recursion: Literal["", "plain", "polyak", "nesterov"] = ""
    weighting: Literal["loss", "gradients", "always"] = "loss"


def transformation(
    row: Algorithm, setting: Setting, *, options: Mapping[str, Any], lag: int = 0
) -> optax.GradientTransformation:
    """The optax transformation of an algorithm.

    Args:
        row: the algorithm.
        setting: what it is built from.
        options: the values of ``row.options``.
        lag: the steps by which all that agents hear of each other is late.
    """
    if lag:
        delays = np.full(setting.num_agents, lag)
        tx = cdjax.delayed(
            lambda mix: row.build(setting._replace(mix=mix), **options), setting.mix, delays=delays
        )
    else:
        tx = row.build(setting, **options)
    if setting.size_weighted and row.weighting == "loss":
        tx = optax.chain(
            cdjax.scale_by_agent(jnp.asarray(setting.sizes / setting.sizes.mean())), tx
        )
    return tx


def messages_per_step(row: Algorithm, setting: Setting, options: Mapping[str, Any]) -> float:
    """Model-sized messages that all agents, and a server, send per step, on average."""
    return row.messages(setting, **options) if setting.num_agents > 1 else 0.0


def _cdsgd(setting: Setting) -> optax.GradientTransformation:
    return cdjax.cdsgd(setting.learning_rate, setting.mix)


def _cdmsgd(setting: Setting, momentum: float) -> optax.GradientTransformation:
    return cdjax.cdmsgd(setting.learning_rate, setting.mix, momentum=momentum)


def _cdmsgd_polyak(setting: Setting, momentum: float) -> optax.GradientTransformation:
    return cdjax.cdmsgd(setting.learning_rate, setting.mix, momentum=momentum, nesterov=False)


def _atc(setting: Setting) -> optax.GradientTransformation:
    return cdjax.adapt_then_combine(optax.sgd(setting.learning_rate), setting.mix)


def _to_all_neighbors(setting: Setting, **options: Any) -> float:
    del options
    weights = setting.topology.mixing_matrix
    return float(np.count_nonzero(weights[~np.eye(len(weights), dtype=bool)]))


def _centralized(setting: Setting) -> optax.GradientTransformation:
    average = cdjax.average_updates(setting.weights)
    return optax.chain(average, optax.sgd(setting.learning_rate))


def _to_server_and_back(setting: Setting, period: int = 1, **options: Any) -> float:
    del options
    return 2.0 * setting.num_agents / period


def _fedavg(
    setting: Setting, period: int | None, client_fraction: float
) -> optax.GradientTransformation:
    return cdjax.fedavg(
        optax.sgd(setting.learning_rate),
        local_steps=period or setting.steps_per_epoch,
        fraction=client_fraction,
        weights=setting.sizes,
        key=setting.key,
    )


def _from_clients_to_all(setting: Setting, period: int | None, client_fraction: float) -> float:
    num_clients = max(1, round(client_fraction * setting.num_agents))
    return (num_clients + setting.num_agents) / (period or setting.steps_per_epoch)


def _clocks(setting: Setting, asynchronous: bool) -> np.ndarray | None:
    """One step apart for each agent."""
    return np.arange(setting.num_agents) if asynchronous else None


def _easgd(setting: Setting, period: int, asynchronous: bool) -> optax.GradientTransformation:
    clocks = _clocks(setting, asynchronous)
    return cdjax.easgd(setting.learning_rate, period=period, clocks=clocks)


def _eamsgd(
    setting: Setting, momentum: float, period: int, asynchronous: bool
) -> optax.GradientTransformation:
    clocks = _clocks(setting, asynchronous)
    return cdjax.eamsgd(setting.learning_rate, momentum=momentum, period=period, clocks=clocks)


def _downpour(setting: Setting, period: int, asynchronous: bool) -> optax.GradientTransformation:
    alpha, clocks = setting.learning_rate, _clocks(setting, asynchronous)
    return cdjax.downpour(alpha, alpha, push_period=period, fetch_period=period, clocks=clocks)


def _gossip_pair(setting: Setting, period: int) -> optax.GradientTransformation:
    pairs = mixing.random_pairs(setting.topology, setting.key)
    return cdjax.gossip(optax.sgd(setting.learning_rate), mixing.pull(pairs), period=period)


def _between_pairs(setting: Setting, period: int) -> float:
    """Counted over the pairs that the run draws: both send."""
    pairs = mixing.random_pairs(setting.topology, setting.key)
    rounds = jnp.arange(-(-setting.num_steps // period))
    talks = jax.lax.map(pairs, rounds) != np.arange(setting.num_agents)
    return float(jnp.mean(jnp.sum(talks, axis=1))) / period


def _gossip_pull(setting: Setting, period: int) -> optax.GradientTransformation:
    peers = mixing.random_peers(setting.topology, setting.key)
    return cdjax.gossip(optax.sgd(setting.learning_rate), mixing.pull(peers), period=period)


def _gossip_push(setting: Setting, period: int) -> optax.GradientTransformation:
    peers = mixing.random_peers(setting.topology, setting.key)
    return cdjax.gossip(optax.sgd(setting.learning_rate), mixing.push(peers), period=period)


def _to_one_peer(setting: Setting, period: int) -> float:
    return setting.num_agents / period


def _gosgd(setting: Setting, talk_probability: float) -> optax.GradientTransformation:
    peers = mixing.random_peers(setting.topology, setting.key, probability=talk_probability)
    return cdjax.gosgd(optax.sgd(setting.learning_rate), peers)


def _now_and_then(setting: Setting, talk_probability: float) -> float:
    return setting.num_agents * talk_probability


_JIANG = "Jiang, Balu, Hegde, Sarkar (2017)"
_ZHANG = "Zhang, Choromanska, LeCun (2015)"
_JIN = "Jin, Yuan, Iandola, Keutzer (2016)"

ALGORITHMS: dict[str, Algorithm] = {
    "cdmsgd": Algorithm(
        _cdmsgd,
        _to_all_neighbors,
        "CDMSGD, Nesterov momentum",
        f"{_JIANG}, Algorithm 3",
        {"momentum": 0.9},
        over_topology=True,
        recursion="nesterov",
    ),
    "cdmsgd-polyak": Algorithm(
        _cdmsgd_polyak,
        _to_all_neighbors,
        "CDMSGD, Polyak momentum",
        f"{_JIANG}, Algorithm 2",
        {"momentum": 0.9},
        over_topology=True,
        recursion="polyak",
    ),
    "cdsgd": Algorithm(
        _cdsgd,
        _to_all_neighbors,
        "CDSGD",
        f"{_JIANG}, eq. 5",
        over_topology=True,
        recursion="plain",
    ),
    "atc": Algorithm(
        _atc,
        _to_all_neighbors,
        "adapt then combine",
        "Chen, Sayed (2012)",
        over_topology=True,
    ),
    "centralized": Algorithm(
        _centralized,
        _to_server_and_back,
        "SGD, gradients averaged",
        "the optimizer's own",
        server="stateless",
        weighting="gradients",
    ),
    "fedavg": Algorithm(
        _fedavg,
        _from_clients_to_all,
        "FedAvg",
        "McMahan, Moore, Ramage, Hampson, Agüera y Arcas (2017), Algorithm 1",
        {"period": None, "client_fraction": 1.0},
        server="stateless",
        weighting="always",
    ),
    "easgd": Algorithm(
        _easgd,
        _to_server_and_back,
        "EASGD",
        f"{_ZHANG}, Algorithm 1",
        {"period": 10, "asynchronous": False},
        server="stateful",
    ),
    "eamsgd": Algorithm(
        _eamsgd,
        _to_server_and_back,
        "EAMSGD",
        f"{_ZHANG}, Algorithm 2",
        {"momentum": 0.9, "period": 10, "asynchronous": False},
        server="stateful",
    ),
    "downpour": Algorithm(
        _downpour,
        _to_server_and_back,
        "Downpour SGD",
        "Dean et al. (2012), Section 4.1",
        {"period": 1, "asynchronous": False},
        server="stateful",
    ),
    "gossip-pair": Algorithm(
        _gossip_pair,
        _between_pairs,
        "gossip in pairs",
        f"{_JIN}, with peers in disjoint pairs",
        {"period": 1},
    ),
    "gossip-pull": Algorithm(
        _gossip_pull,
        _to_one_peer,
        "pull gossip",
        f"{_JIN}, pull-gossip",
        {"period": 1},
    ),
    "gossip-push": Algorithm(
        _gossip_push,
        _to_one_peer,
        "push gossip",
        f"{_JIN}, push-gossip",
        {"period": 1},
    ),
    "gosgd": Algorithm(
        _gosgd,
        _now_and_then,
        "GoSGD",
        "Blot, Picard, Cord, Thome (2016)",
        {"talk_probability": 0.1},
    ),
}
