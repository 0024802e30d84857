"""The timed train step: random images, CDMSGD on a ring, everything on the device."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import cdjax
from cdjax import data, mixing, models, topology, training

LEARNING_RATE, MOMENTUM = 0.01, 0.9
SHAPE = (32, 32, 3)
MEAN = STD = np.full(3, 127.5, np.float32)


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
    loss = models.classification_loss(model)

    def scaled_loss(
        params: cdjax.Params, model_state: cdjax.Params, batch: data.AgentData, key: jax.Array
    ) -> tuple[jax.Array, tuple[cdjax.Params, training.Metrics]]:
        images = data.normalise(batch.images, mean=MEAN, std=STD)
        return loss(params, model_state, (images, batch.labels), key)

    mix = mixing.auto(topology.ring(num_agents))
    tx = cdjax.cdmsgd(LEARNING_RATE, mix, momentum=MOMENTUM)
    train_step = training.train_step(scaled_loss, tx, plan=plan)
    loop, one_step = training.train_loop(train_step), jax.jit(train_step, donate_argnums=0)
    params, _ = models.init_model(model, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    state = training.init_state(cdjax.replicate(params, num_agents), tx, key=jax.random.key(1))
    samples = jax.tree.map(jnp.asarray, random_batches(num_agents, batch_size))
    indices = np.tile(np.arange(batch_size, dtype=np.int32), (1, num_agents, 1))

    def step() -> jax.Array:
        nonlocal state
        if in_loop:
            state, metrics = loop(state, samples, indices, 1)
        else:
            state, metrics = one_step(state, samples)
        return metrics["loss"]

    return step


def random_batches(num_agents: int, batch_size: int) -> data.AgentData:
    """A batch of noise for every agent, uint8."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(num_agents, batch_size, *SHAPE), dtype=np.uint8)
    return data.AgentData(images, rng.integers(10, size=(num_agents, batch_size), dtype=np.int32))


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
