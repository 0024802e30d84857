"""From options to the things a run needs; every bad option is found here, before a file is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cdjax
from cdjax import data, mixing, models, topology, training
from experiments._errors import UsageError, blame
from experiments.config import ALGORITHMS, DTYPES, INITS, MODELS, SCHEDULES, RunConfig


class Job(NamedTuple):
    """All that the training loop reads."""

    config: RunConfig
    dataset: data.Dataset
    topology: topology.Topology
    sizes: np.ndarray
    batch_size: int
    epochs: int
    steps_per_epoch: int
    state: training.TrainState
    agent_data: data.AgentData
    loop: Callable[..., tuple[training.TrainState, training.Metrics]]
    evaluate: Callable[..., training.Metrics]
    notice: str


def prepare(config: RunConfig) -> Job:
    """Checks the options and builds data, topology, model, optimizer and the jitted programs.

    Args:
        config: the options.

    Returns:
        The job, with nothing written to disk.

    Raises:
        UsageError: for an option that cannot work, naming it and the remedy.
    """
    _check_options(config)
    graph = _topology(config)
    dataset, notice = _dataset(config)
    on_digits = dataset.name == "digits"
    batch_size = config.batch_size or (16 if on_digits else 128)
    epochs = config.epochs or (20 if on_digits else 50)

    parts = _partition(config, dataset, graph.num_agents, batch_size)
    sizes = np.array([len(part) for part in parts])
    steps_per_epoch = max(1, int(sizes.sum()) // (graph.num_agents * batch_size))
    agent_data = data.stack_agents(dataset.train_images, dataset.train_labels, parts)

    model = _model(config, dataset.num_classes)
    tx = _optimizer(config, mixing.auto(graph), epochs * steps_per_epoch)
    if config.size_weighted:
        tx = optax.chain(cdjax.scale_by_agent(jnp.asarray(sizes / sizes.mean())), tx)
    state = _initial_state(config, model, tx, graph.num_agents, dataset)

    loss, metrics = models.classification_loss(model), models.classification_metrics(model)
    mean, std = data.channel_statistics(dataset.train_images)

    def scaled(batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        images, labels = batch
        return data.normalise(images, mean, std), labels

    step = training.train_step(
        lambda p, s, batch, key: loss(p, s, scaled(batch), key), tx, plan=config.agent_plan
    )
    evaluate = training.evaluation(
        lambda p, s, batch: metrics(p, s, scaled(batch)), plan=config.agent_plan
    )
    return Job(
        config=config,
        dataset=dataset,
        topology=graph,
        sizes=sizes,
        batch_size=batch_size,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        state=state,
        agent_data=jax.tree.map(jnp.asarray, agent_data),
        loop=training.train_loop(step),
        evaluate=evaluate,
        notice=notice,
    )


def _check_options(config: RunConfig) -> None:
    _check_choice("--algorithm", config.algorithm, ALGORITHMS)
    _check_choice("--schedule", config.schedule, SCHEDULES)
    _check_choice("--partition", config.partition, data.PARTITIONS)
    _check_choice("--model", config.model, MODELS)
    _check_choice("--dtype", config.dtype, DTYPES)
    _check_choice("--init", config.init, INITS)
    _check_choice("--agent-plan", config.agent_plan, cdjax.agents.PLANS)
    _check_choice("--dataset", config.wanted_dataset, data.DATASETS)
    for option in ("agents", "batch_size", "epochs", "eval_every", "log_every"):
        value = getattr(config, option)
        if value is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')}: {value} is too few; give at least 1")
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
    _check_writable(config.out)


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{option}: unknown choice {value!r}; expected {', '.join(choices)}")


def _check_writable(out: Path) -> None:
    folder = next(path for path in [out.absolute(), *out.absolute().parents] if path.exists())
    if not folder.is_dir():
        raise UsageError(f"--out: {folder} is a file; give a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--out: {folder} is not writable; give a folder that is")


def _topology(config: RunConfig) -> topology.Topology:
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


def _dataset(config: RunConfig) -> tuple[data.Dataset, str]:
    """The data set, and the notice of a stand-in when the default one is not to be had."""
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


def _partition(
    config: RunConfig, dataset: data.Dataset, num_agents: int, batch_size: int
) -> list[np.ndarray]:
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
    smallest = min(range(num_agents), key=lambda agent: len(parts[agent]))
    if batch_size > len(parts[smallest]):
        raise UsageError(
            f"--batch-size: {batch_size} is more than the {len(parts[smallest])} samples of agent "
            f"{smallest}; give at most that, fewer agents or another --partition"
        )
    return parts


def _model(config: RunConfig, num_classes: int) -> models.Model:
    network = {"cnn": models.CNN, "mlp": models.MLP, "softmax": models.SoftmaxRegression}
    return network[config.model](num_classes=num_classes, dtype=jnp.dtype(config.dtype))


def _optimizer(config: RunConfig, mix: cdjax.Mixer, num_steps: int) -> optax.GradientTransformation:
    match config.schedule:
        case "fixed":
            learning_rate = config.learning_rate
        case "diminishing":
            learning_rate = cdjax.diminishing_schedule(
                config.learning_rate, power=config.decay_power, offset=config.decay_offset
            )
        case _:
            learning_rate = optax.cosine_decay_schedule(config.learning_rate, num_steps)
    match config.algorithm:
        case "cdsgd":
            return cdjax.cdsgd(learning_rate, mix)
        case "atc":
            return cdjax.adapt_then_combine(optax.sgd(learning_rate), mix)
        case _:
            nesterov = config.algorithm == "cdmsgd"
            return cdjax.cdmsgd(learning_rate, mix, momentum=config.momentum, nesterov=nesterov)


def _initial_state(
    config: RunConfig,
    model: models.Model,
    tx: optax.GradientTransformation,
    num_agents: int,
    dataset: data.Dataset,
) -> training.TrainState:
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    example = jnp.zeros((1, *dataset.train_images.shape[1:]))

    def init(key: jax.Array) -> tuple[cdjax.Params, cdjax.Params]:
        return models.init_model(model, key, example)

    if config.init == "same":
        params, model_state = cdjax.replicate(init(init_key), num_agents)
    else:
        params, model_state = jax.vmap(init)(jax.random.split(init_key, num_agents))
    return training.init_state(params, tx, run_key, model_state=model_state)
