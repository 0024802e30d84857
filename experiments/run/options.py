"""From options to the library's objects; every bad option is found here, before a file is made."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

import cdjax
from cdjax import data, sharding, topology
from experiments.run.config import (
    ALGORITHMS,
    CONSENSUS,
    DTYPES,
    INITS,
    MODELS,
    ON_NAN,
    STEP_SIZES,
    TURNS,
    RunConfig,
)
from experiments.run.errors import UsageError, blame, check_choice, flag
from experiments.run.living import living, restricted
from experiments.run.trouble import check_disturbances, check_on_graph


def check_options(config: RunConfig) -> None:
    """Raises for what can be known to be wrong without data, naming the option."""
    check_choice("--algorithm", config.algorithm, ALGORITHMS)
    _check_schedule(config)
    check_choice("--partition", config.partition, data.PARTITIONS)
    check_choice("--model", config.model, MODELS)
    check_choice("--dtype", config.dtype, DTYPES)
    check_choice("--init", config.init, INITS)
    check_choice("--on-nan", config.on_nan, ON_NAN)
    check_choice("--agent-plan", config.agent_plan, cdjax.agents.PLANS)
    check_choice("--dataset", config.wanted_dataset, data.DATASETS)
    for option in (
        "agents",
        "batch_size",
        "checkpoint_every",
        "epochs",
        "eval_every",
        "keep_checkpoints",
        "log_every",
        "period",
        "shards_per_agent",
        "train_samples",
        "test_samples",
    ):
        value = getattr(config, option)
        if value is not None and value < 1:
            raise UsageError(f"{flag(option)}: {value} is too few; give at least 1")
    if not 0 < config.dirichlet_alpha < math.inf:
        raise UsageError(
            f"--dirichlet-alpha: {config.dirichlet_alpha} is no concentration; give more than 0"
        )
    if config.devices not in ("auto", "all") and not config.devices.isdecimal():
        raise UsageError(f"--devices: {config.devices!r} is neither a number, all nor auto")
    if config.seed < 0:
        raise UsageError(f"--seed: {config.seed} is negative; give 0 or more")
    with blame("--learning-rate"):
        cdjax.cdsgd(config.learning_rate, lambda tree, step=0: tree)
    with blame("--momentum"):
        cdjax.cdmsgd(0.0, lambda tree, step=0: tree, momentum=config.momentum)
    with blame("--decay-power"):
        cdjax.diminishing_schedule(0.0, power=config.decay_power)
    with blame("--decay-offset"):
        cdjax.diminishing_schedule(0.0, offset=config.decay_offset)
    for option in ("client_fraction", "talk_probability"):
        value = getattr(config, option)
        if not 0 <= value <= 1:
            raise UsageError(f"{flag(option)}: {value} is no share; give 0 to 1")
    check_disturbances(config)
    _check_writable("--resume" if config.resume else "--out", config.resume or config.out)


def _check_schedule(config: RunConfig) -> None:
    for name in config.schedule:
        check_choice("--schedule", name, STEP_SIZES + TURNS)
    for choices in (STEP_SIZES, TURNS):
        if len(given := [name for name in config.schedule if name in choices]) > 1:
            raise UsageError(f"--schedule: {' and '.join(given)} exclude each other; give one")
    if config.sequential and config.algorithm not in CONSENSUS:
        raise UsageError(
            f"--schedule: sequential is for {', '.join(CONSENSUS)}, not for {config.algorithm}"
        )


def _check_writable(option: str, out: Path) -> None:
    folder = next(path for path in [out.absolute(), *out.absolute().parents] if path.exists())
    if not folder.is_dir():
        raise UsageError(f"{option}: {folder} is a file; give a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {folder} is not writable; give a folder that is")


def build_topology(config: RunConfig) -> topology.Topology:
    """The topology of ``--topology``, ``--agents`` and ``--weights``, less those left out."""
    graph = restricted(_whole_topology(config), config.without_agents)
    check_on_graph(config, graph)
    return graph


def _whole_topology(config: RunConfig) -> topology.Topology:
    with blame("--weights"):
        topology.create("complete", 1, config.weights)
    with blame("--topology"):
        if config.topology in topology.FAMILIES:
            num_agents = 5 if config.agents is None else config.agents
            return topology.create(config.topology, num_agents, config.weights)
        if not Path(config.topology).is_file():
            raise UsageError(
                f"--topology: {config.topology!r} is neither a family "
                f"({', '.join(topology.FAMILIES)}) nor an edge-list file"
            )
        return topology.from_edge_list(config.topology, config.weights, num_agents=config.agents)


def build_mesh(config: RunConfig, num_agents: int) -> Mesh:
    """The devices of ``--devices``."""
    with blame("--devices"):
        if config.sequential:
            if config.devices not in ("auto", "1") or jax.process_count() > 1:
                raise UsageError("--devices: agents that train in turn share one; leave it out")
            num_devices = 1
        elif config.devices == "auto" and jax.process_count() == 1:
            most = min(jax.device_count(), num_agents)
            num_devices = next(d for d in range(most, 0, -1) if num_agents % d == 0)
        elif config.devices in ("all", "auto"):
            num_devices = jax.device_count()
        else:
            num_devices = int(config.devices)
        mesh = sharding.agent_mesh(num_devices)
        sharding.block_size(num_agents, mesh)
        return mesh


def load_dataset(config: RunConfig) -> tuple[data.Dataset, str]:
    """The data set, and the notice of a stand-in when the default one is not to be had."""
    dataset, notice = _load(config)
    for split in ("train", "test"):
        wanted = getattr(config, f"{split}_samples")
        labels = getattr(dataset, f"{split}_labels")
        if wanted is None:
            continue
        if wanted > len(labels):
            raise UsageError(
                f"--{split}-samples: {wanted} are more than the {len(labels)} of {dataset.name}; "
                "give at most that"
            )
        kept = np.random.default_rng(config.seed).permutation(len(labels))[:wanted]
        parts = {f"{split}_{part}": getattr(dataset, f"{split}_{part}")[kept]
                 for part in ("images", "labels")}  # fmt: skip
        dataset = dataclasses.replace(dataset, **parts)
    return dataset, notice


def _load(config: RunConfig) -> tuple[data.Dataset, str]:
    name = config.wanted_dataset
    try:
        with blame("--data-dir"):
            return data.load(name, config.data_dir), ""
    except UsageError as error:
        missing = isinstance(error.__cause__, data.DataNotFoundError)
        if not missing or config.dataset or config.data_dir:
            raise
        notice = (
            f"{name} is NOT available; training on the embedded DIGITS instead.\n{error.__cause__}"
        )
        return data.load("digits"), notice


def deal(
    config: RunConfig, dataset: data.Dataset, num_agents: int, batch_size: int
) -> list[np.ndarray]:
    """Every agent's samples, at least a batch of them; those left out have theirs dealt too."""
    num_agents += len(config.without_agents)
    with blame("--partition"):
        if num_agents > len(dataset.train_labels):
            raise UsageError(
                f"--agents: {num_agents} agents are more than the {len(dataset.train_labels)} "
                f"training samples of {dataset.name}; give fewer"
            )
        parts = data.partition(
            dataset.train_labels,
            num_agents,
            config.partition,
            seed=config.seed,
            alpha=config.dirichlet_alpha,
            shards_per_agent=config.shards_per_agent,
        )
    parts = [parts[agent] for agent in living(num_agents, config.without_agents)]
    smallest = min(range(len(parts)), key=lambda agent: len(parts[agent]))
    if batch_size > len(parts[smallest]):
        raise UsageError(
            f"--batch-size: {batch_size} is more than the {len(parts[smallest])} samples of agent "
            f"{smallest}; give at most that, fewer agents or another --partition"
        )
    return parts
