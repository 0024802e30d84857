"""From options to the things a run needs: data, model, optimizer, and the jitted programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cdjax
from cdjax import data, models, topology, training
from experiments import _algorithms
from experiments._options import build_topology, check_options, deal, load_dataset
from experiments.config import RunConfig


class Job(NamedTuple):
    """All that the training loop reads."""

    config: RunConfig
    dataset: data.Dataset
    topology: topology.Topology
    sizes: np.ndarray
    batch_size: int
    epochs: int
    steps_per_epoch: int
    bytes_a_step: float
    state: training.TrainState
    agent_data: data.AgentData
    loop: Callable[..., tuple[training.TrainState, training.Metrics]]
    evaluate: Callable[..., training.Metrics]
    notice: str


def prepare(config: RunConfig) -> Job:
    """Checks the options and builds all that they ask for.

    Args:
        config: the options.

    Returns:
        The job, with nothing written to disk.

    Raises:
        UsageError: for an option that cannot work, naming it and the remedy.
    """
    check_options(config)
    graph = build_topology(config)
    dataset, notice = load_dataset(config)
    on_digits = dataset.name == "digits"
    batch_size = config.batch_size or (16 if on_digits else 128)
    epochs = config.epochs or (20 if on_digits else 50)

    parts = deal(config, dataset, graph.num_agents, batch_size)
    sizes = np.array([len(part) for part in parts])
    steps_per_epoch = max(1, int(sizes.sum()) // (graph.num_agents * batch_size))
    agent_data = data.stack_agents(dataset.train_images, dataset.train_labels, parts)

    model = _model(config, dataset.num_classes)
    init_key, run_key, peer_key = jax.random.split(jax.random.key(config.seed), 3)
    run = _algorithms.Run(graph, sizes, steps_per_epoch, epochs * steps_per_epoch, peer_key)
    tx = _algorithms.transformation(config, run)
    example = jnp.zeros((1, *dataset.train_images.shape[1:]))
    params, model_state = _initial_params(config, model, init_key, graph.num_agents, example)
    state = training.init_state(params, tx, run_key, model_state=model_state)

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
        bytes_a_step=_algorithms.messages_a_step(config, run) * cdjax.metrics.message_bytes(params),
        state=state,
        agent_data=jax.tree.map(jnp.asarray, agent_data),
        loop=training.train_loop(step),
        evaluate=evaluate,
        notice=notice,
    )


def _model(config: RunConfig, num_classes: int) -> models.Model:
    network = {"cnn": models.CNN, "mlp": models.MLP, "softmax": models.SoftmaxRegression}
    return network[config.model](num_classes=num_classes, dtype=jnp.dtype(config.dtype))


def _initial_params(
    config: RunConfig, model: models.Model, key: jax.Array, num_agents: int, example: jax.Array
) -> tuple[cdjax.Params, cdjax.Params]:
    """Stacked parameters and model state."""
    if config.init == "same":
        return cdjax.replicate(models.init_model(model, key, example), num_agents)
    keys = jax.random.split(key, num_agents)
    return jax.vmap(lambda key: models.init_model(model, key, example))(keys)
