"""From an algorithm's name to its optax transformation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import cdjax
from cdjax import mixing
from experiments.run import trouble as _faults
from experiments.run.config import CONSENSUS, RunConfig

# Of exchanges, in steps: Zhang et al. (2015), section 5; all others talk in every step.
DEFAULT_PERIODS = {"easgd": 10, "eamsgd": 10}

# What these train is the server's parameters, not the agents' mean.
WITH_SERVER = ("easgd", "eamsgd", "downpour")

# Who averages for these is a server too, though it keeps nothing.
THROUGH_SERVER = ("centralized", "fedavg", *WITH_SERVER)


class Run(NamedTuple):
    """What an algorithm may depend on, beside the options."""

    topology: cdjax.Topology
    mesh: Mesh
    sizes: np.ndarray
    steps_per_epoch: int
    num_steps: int
    key: jax.Array


def learning_rate(config: RunConfig, num_steps: int) -> cdjax.ScalarOrSchedule:
    """The step size of ``--learning-rate`` and ``--schedule``."""
    match config.step_sizes:
        case "fixed":
            return config.learning_rate
        case "diminishing":
            return cdjax.diminishing_schedule(
                config.learning_rate, power=config.decay_power, offset=config.decay_offset
            )
        case _:
            return optax.cosine_decay_schedule(config.learning_rate, num_steps)


def transformation(config: RunConfig, run: Run) -> optax.GradientTransformation:
    """The algorithm of ``--algorithm``."""
    alpha = learning_rate(config, run.num_steps)
    mix = _mixer(config, run)
    clocks = np.arange(run.topology.num_agents) if config.asynchronous else None
    period = config.period or DEFAULT_PERIODS.get(config.algorithm, 1)
    weights = run.sizes if config.size_weighted else None
    match config.algorithm:
        case name if name in CONSENSUS:
            make = partial(_consensus, config, alpha)
            delays = np.full(run.topology.num_agents, config.lag)
            tx = cdjax.delayed(make, mix, delays) if config.lag else make(mix)
        case "centralized":
            return optax.chain(cdjax.average_updates(weights), optax.sgd(alpha))
        case "fedavg":
            return cdjax.fedavg(
                optax.sgd(alpha),
                local_steps=config.period or run.steps_per_epoch,
                fraction=config.client_fraction,
                weights=run.sizes,
                key=run.key,
            )
        case "easgd":
            tx = cdjax.easgd(alpha, period=period, clocks=clocks)
        case "eamsgd":
            tx = cdjax.eamsgd(alpha, momentum=config.momentum, period=period, clocks=clocks)
        case "downpour":
            tx = cdjax.downpour(
                alpha, alpha, push_period=period, fetch_period=period, clocks=clocks
            )
        case "gosgd":
            probability = config.talk_probability
            peers = mixing.random_peers(run.topology, run.key, probability=probability)
            tx = cdjax.gosgd(optax.sgd(alpha), peers)
        case "gossip-pair":
            pairs = mixing.random_pairs(run.topology, run.key)
            tx = cdjax.gossip(optax.sgd(alpha), mixing.pull(pairs), period=period)
        case _:
            talk = mixing.pull if config.algorithm == "gossip-pull" else mixing.push
            peers = mixing.random_peers(run.topology, run.key)
            tx = cdjax.gossip(optax.sgd(alpha), talk(peers), period=period)
    if config.size_weighted:
        tx = optax.chain(cdjax.scale_by_agent(jnp.asarray(run.sizes / run.sizes.mean())), tx)
    return tx


def _consensus(
    config: RunConfig, alpha: cdjax.ScalarOrSchedule, mix: cdjax.Mixer
) -> optax.GradientTransformation:
    match config.algorithm:
        case "cdsgd":
            return cdjax.cdsgd(alpha, mix)
        case "atc":
            return cdjax.adapt_then_combine(optax.sgd(alpha), mix)
        case _:
            nesterov = config.algorithm == "cdmsgd"
            return cdjax.cdmsgd(alpha, mix, momentum=config.momentum, nesterov=nesterov)


def _mixer(config: RunConfig, run: Run) -> cdjax.Mixer:
    def plain() -> cdjax.Mixer:
        alone = run.mesh.size == 1
        return mixing.auto(run.topology) if alone else mixing.exchange(run.topology, run.mesh)

    return _faults.disturbed(config, run.topology, run.key, plain)


def messages_a_step(config: RunConfig, run: Run) -> float:
    """Model-sized messages that all agents, and a server if there is one, send in a step.

    On average over the run. To average gradients or clients everybody sends to a server and hears
    from it; gossip sends to the drawn peers, a pair both ways.
    """
    num_agents = run.topology.num_agents
    if num_agents == 1:
        return 0.0
    period = config.period or DEFAULT_PERIODS.get(config.algorithm, 1)
    match config.algorithm:
        case "centralized":
            return 2.0 * num_agents
        case "fedavg":
            num_clients = max(1, round(config.client_fraction * num_agents))
            return (num_clients + num_agents) / (config.period or run.steps_per_epoch)
        case "easgd" | "eamsgd" | "downpour":
            return 2.0 * num_agents / period
        case "gossip-pair":
            pairs = mixing.random_pairs(run.topology, run.key)
            rounds = jnp.arange(-(-run.num_steps // period))
            talks = jax.lax.map(pairs, rounds) != np.arange(num_agents)
            return float(jnp.mean(jnp.sum(talks, axis=1))) / period
        case "gossip-pull" | "gossip-push":
            return num_agents / period
        case "gosgd":
            return num_agents * config.talk_probability
        case _:
            weights = run.topology.mixing_matrix
            num_links = float(np.count_nonzero(weights[~np.eye(num_agents, dtype=bool)]))
            return num_links * _faults.share_sent(config)
