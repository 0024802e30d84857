"""From options to the things a run needs: data, model, optimizer, and the jitted programs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import cdjax
from cdjax import data, models, sharding, topology, training
from experiments.run import algorithm as _algorithms
from experiments.run import bounds as _bounds
from experiments.run import trouble as _faults
from experiments.run.config import RunConfig
from experiments.run.options import build_mesh, build_topology, check_options, deal, load_dataset

Batch: TypeAlias = tuple[jax.Array, jax.Array]


class View(NamedTuple):
    """What is looked at: all iterates; of the honest agents their one model and their distance."""

    params: cdjax.Params
    model: cdjax.Params
    model_state: cdjax.Params
    consensus_distance: jax.Array


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
    test_set: tuple[jax.Array, jax.Array]
    mesh: Mesh
    loss: training.LossFn
    loop: Callable[..., tuple[training.TrainState, training.Metrics]]
    evaluate: Callable[..., training.Metrics]
    evaluate_one: Callable[..., training.Metrics]
    view: Callable[[training.TrainState], View]
    honest: np.ndarray
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
    mesh = build_mesh(config, graph.num_agents)

    def data_of(agents: range) -> data.AgentData:
        own = parts[agents.start : agents.stop]
        images, labels = dataset.train_images, dataset.train_labels
        return data.stack_agents(images, labels, own, longest=int(sizes.max()))

    model = _model(config, dataset.num_classes)
    init_key, run_key, peer_key = jax.random.split(jax.random.key(config.seed), 3)
    run = _algorithms.Run(graph, mesh, sizes, steps_per_epoch, epochs * steps_per_epoch, peer_key)
    tx = _algorithms.transformation(config, run)
    if _bounds.is_bounded(config, graph.num_agents):
        tx = optax.chain(_bounds.largest_gradient(), tx)
    example = jnp.zeros((1, *dataset.train_images.shape[1:]))

    def make_state() -> training.TrainState:
        params, model_state = _initial_params(config, model, init_key, graph.num_agents, example)
        return training.init_state(params, tx, run_key, model_state=model_state)

    # Each agent's part is made on its own device.
    places = sharding.agent_shardings(jax.eval_shape(make_state), mesh, num_agents=graph.num_agents)
    state = jax.jit(make_state, out_shardings=places)()

    loss, metrics = models.classification_loss(model), models.classification_metrics(model)
    mean, std = data.channel_statistics(dataset.train_images)

    def scaled(batch: Batch) -> Batch:
        images, labels = batch
        return data.normalise(images, mean, std), labels

    def scaled_loss(
        params: cdjax.Params, model_state: cdjax.Params, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[cdjax.Params, training.Metrics]]:
        return loss(params, model_state, scaled(batch), key)

    if config.sequential:
        # A turn is an epoch, and a turn is a dispatch.
        config = dataclasses.replace(config, log_every=steps_per_epoch)
        loop = training.sequential_loop(scaled_loss, tx)
    else:
        step = training.train_step(scaled_loss, tx, plan=config.agent_plan, mesh=mesh)
        loop = training.train_loop(step, mesh=mesh)

    def evaluation(mesh: Mesh | None) -> Callable[..., training.Metrics]:
        return training.evaluation(
            lambda p, s, batch: metrics(p, s, scaled(batch)), plan=config.agent_plan, mesh=mesh
        )

    honest = _faults.honest_agents(config, graph.num_agents)
    view = functools.partial(_view, config.algorithm in _algorithms.WITH_SERVER, honest)
    test_set = (dataset.test_images, dataset.test_labels)
    messages = _algorithms.messages_a_step(config, run)
    return Job(
        config=config,
        dataset=dataset,
        topology=graph,
        sizes=sizes,
        batch_size=batch_size,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        bytes_a_step=messages * cdjax.metrics.message_bytes(state.params),
        state=state,
        agent_data=sharding.build_agents(data_of, graph.num_agents, mesh),
        test_set=sharding.replicate_on_devices(test_set, mesh),
        mesh=mesh,
        loss=scaled_loss,
        loop=loop,
        evaluate=evaluation(mesh),
        evaluate_one=evaluation(None),
        view=jax.jit(view),
        honest=honest,
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


def _view(has_server: bool, honest: np.ndarray, state: training.TrainState) -> View:
    params = cdjax.eval_params(state.opt_state, state.params)
    seen = (params, state.model_state)
    if len(honest) < len(jax.tree.leaves(params)[0]):
        seen = jax.tree.map(lambda x: x[honest], seen)
    model, model_state = cdjax.mean_params(seen)
    if has_server:
        model = cdjax.server_params(state.opt_state)
    one_agent = cdjax.replicate((model, model_state), 1)
    return View(params, *one_agent, cdjax.metrics.consensus_distance(seen[0]))
