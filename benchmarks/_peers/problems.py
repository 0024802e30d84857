"""The work: the paper's CNN, a perceptron, and rounds of federated averaging."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._peers.problem import Problem
from benchmarks._training import LEARNING_RATE, MOMENTUM, SHAPE, random_batches, random_params
from cdjax import models

SHAPES = {"cnn": SHAPE, "mlp": (28, 28, 1)}
MODELS = {"cnn": models.CNN(), "mlp": models.MLP((128, 64))}
FEDAVG_KEY = 0
_ROUNDS = 64  # after which the drawn clients repeat


def steps(work: str, *, agents: int, batch: int, algorithm: str) -> Problem:
    """Steps on a ring: of the CNN on images in bytes, or of the MLP on floats, 784 per sample."""
    if agents < 3:
        raise ValueError(f"agents is {agents}, but a ring of equal weights needs 3 or more")
    if work == "cnn":
        images, labels = random_batches(agents, batch)
    else:
        images, labels = _random_floats(agents, batch)
    momentum = MOMENTUM if algorithm == "cdmsgd" else 0.0
    facts = {"learning_rate": LEARNING_RATE, "momentum": momentum}
    facts |= {"work": work, "algorithm": algorithm}
    return Problem(facts, _named_params(work), np.asarray(images), np.asarray(labels))


def rounds(*, clients: int, cohort: int, samples: int, batch: int) -> Problem:
    """FedAvg of the MLP: in a round, ``cohort`` of the clients go once through their samples."""
    images, labels = _random_floats(clients, samples)
    facts = {"work": "mlp", "algorithm": "fedavg", "learning_rate": 0.05, "batch": batch}
    key = jax.random.key(FEDAVG_KEY)

    def draw(number: jax.Array) -> jax.Array:  # as cdjax.fedavg does
        return jax.random.permutation(jax.random.fold_in(key, number), clients) < cohort

    drawn = np.asarray(jax.vmap(draw)(jnp.arange(_ROUNDS)))
    indices = [np.flatnonzero(own) for own in drawn]
    return Problem(facts, _named_params("mlp"), images, labels, np.array(indices, np.int32))


def _random_floats(agents: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(agents, samples, *SHAPES["mlp"])).astype(np.float32)
    return images, rng.integers(10, size=(agents, samples), dtype=np.int32)


def _named_params(work: str) -> dict[str, np.ndarray]:
    params: dict[str, Any] = random_params(MODELS[work], shape=SHAPES[work])
    return {
        f"{layer}.{name}": np.asarray(x) for layer, xs in params.items() for name, x in xs.items()
    }
