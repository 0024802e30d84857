"""The timed train step: random images, CDMSGD on a ring, everything on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cdjax
from cdjax import agents, data, mixing, models, topology, training
from cdjax.training._step import gradient_fn

LEARNING_RATE, MOMENTUM = 0.01, 0.9
SHAPE = (32, 32, 3)
MEAN = STD = np.float32(127.5)


class TrainParts(NamedTuple):
    """A train step that is not compiled yet.

    ``step`` is jitted and donates the state; ``init`` makes its first state and ``batches`` its
    other arguments; ``shapes`` are those of all arguments; ``auto_plan`` is what the plan ``auto``
    chooses.
    """

    step: Any
    init: Callable[[], training.TrainState]
    batches: Callable[[], tuple[Any, ...]]
    shapes: tuple[Any, ...]
    auto_plan: Callable[[], str]


def train_parts(
    model: models.Model,
    num_agents: int,
    *,
    batch_size: int,
    plan: str = "auto",
    in_loop: bool = True,
    shape: tuple[int, ...] = SHAPE,
    mix: cdjax.Mixer | None = None,
    num_steps: int = 1,
) -> TrainParts:
    """The parts of a step of every agent, or of a loop of ``num_steps`` with ``in_loop``."""
    loss = loss_of_raw_images(model)
    mix = mix or mixing.auto(topology.ring(num_agents))
    tx = cdjax.cdmsgd(LEARNING_RATE, mix, momentum=MOMENTUM)
    train_step = training.train_step(loss, tx, plan=plan)

    one_agent = random_params(model, shape=shape)

    @jax.jit
    def first_state(params: cdjax.Params) -> training.TrainState:
        return training.init_state(cdjax.replicate(params, num_agents), tx, key=jax.random.key(1))

    def batches() -> tuple[Any, ...]:
        samples = random_batches(num_agents, batch_size, shape=shape)
        samples = jax.tree.map(jnp.asarray, samples)
        indices = np.arange(batch_size, dtype=np.int32)
        indices = jnp.asarray(np.tile(indices, (num_steps, num_agents, 1)))
        return (samples, indices, num_steps) if in_loop else (samples,)

    images = jax.ShapeDtypeStruct((num_agents, batch_size, *shape), np.uint8)
    labels = jax.ShapeDtypeStruct((num_agents, batch_size), np.int32)
    samples, state = data.AgentData(images, labels), jax.eval_shape(first_state, one_agent)
    indices = jax.ShapeDtypeStruct((num_steps, num_agents, batch_size), np.int32)
    others = (samples, indices, num_steps) if in_loop else (samples,)

    def auto_plan() -> str:
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_agents))
        return agents._choose_plan(gradient_fn(loss), (state.params, {}, samples, keys))

    step = training.train_loop(train_step) if in_loop else jax.jit(train_step, donate_argnums=0)
    init = partial(first_state, one_agent)
    return TrainParts(step, init, batches, (state, *others), auto_plan)


def train_program(
    model: models.Model,
    num_agents: int,
    batch_size: int,
    plan: str = "auto",
    *,
    in_loop: bool = True,
) -> Callable[[], jax.Array]:
    """A program that takes one whole step of every agent, keeps the state and returns the losses.

    With ``in_loop`` the step runs inside the compiled loop of the experiments; without, the step is
    itself the compiled program.
    """
    parts = train_parts(model, num_agents, batch_size=batch_size, plan=plan, in_loop=in_loop)
    return running(parts.step, parts.init(), parts.batches())


def running(
    step: Callable[..., Any], state: training.TrainState, batches: tuple[Any, ...]
) -> Callable[[], jax.Array]:
    """A program that takes a step, compiled or jitted, keeps the state and returns the losses."""

    def program() -> jax.Array:
        nonlocal state
        state, metrics = step(state, *batches)
        return metrics["loss"]

    return program


def random_batches(
    num_agents: int, batch_size: int, *, shape: tuple[int, ...] = SHAPE
) -> data.AgentData:
    """A batch of noise for every agent, uint8."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(num_agents, batch_size, *shape), dtype=np.uint8)
    return data.AgentData(images, rng.integers(10, size=(num_agents, batch_size), dtype=np.int32))


def random_params(model: models.Model, *, shape: tuple[int, ...] = SHAPE) -> cdjax.Params:
    """Random parameters of one agent, drawn by NumPy: Flax's own initial ones compile longer."""
    images = jnp.zeros((1, *shape))
    shapes = jax.eval_shape(lambda: models.init_model(model, jax.random.key(0), images)[0])
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        match path[-1].key:
            case "kernel":
                scale = np.sqrt(np.prod(leaf.shape[:-1]))  # of a layer's inputs
                return (rng.normal(size=leaf.shape) / scale).astype(leaf.dtype)
            case "scale":
                return np.ones(leaf.shape, leaf.dtype)
        return np.zeros(leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def cnn_operations() -> float:
    """Floating-point operations of the paper's CNN on one image: forward, and both gradients.

    A multiply-add counts as two, and only convolutions and dense layers count. Each layer needs
    three products, for its result and for the gradients of its weights and of its input; the first
    layer needs no gradient of its input.
    """
    convolutions = [(32, 3, 32), (32, 32, 32), (16, 32, 64), (16, 64, 64)]
    products = [side**2 * 9 * channels * features for side, channels, features in convolutions]
    products += [8 * 8 * 64 * 512, 512 * 10]
    return 2.0 * (3 * sum(products) - products[0])


def loss_of_raw_images(model: models.Model) -> training.LossFn:
    """The loss of a model on images in bytes, which it normalises."""
    loss = models.classification_loss(model)

    def scaled_loss(
        params: cdjax.Params, model_state: cdjax.Params, batch: data.AgentData, key: jax.Array
    ) -> tuple[jax.Array, tuple[cdjax.Params, training.Metrics]]:
        channels = batch.images.shape[-1]
        mean, std = (np.full(channels, x, np.float32) for x in (MEAN, STD))
        images = data.normalise(batch.images, mean=mean, std=std)
        return loss(params, model_state, (images, batch.labels), key)

    return scaled_loss
