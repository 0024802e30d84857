"""The perceptron in plain JAX, for systems whose interpreter has JAX and not cdjax."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks._peers.problem import Problem


def initial_params(problem: Problem) -> dict[str, jax.Array]:
    """One agent's parameters, by the problem's names."""
    return {name: jnp.asarray(x) for name, x in problem.params.items()}


def loss(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross entropy."""
    x = images.reshape(len(images), -1)
    layers = sorted({name.split(".")[0] for name in params})
    for layer in layers:
        x = x @ params[f"{layer}.kernel"] + params[f"{layer}.bias"][None]
        x = x if layer == layers[-1] else jax.nn.relu(x)
    own = jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=-1)
    return -jnp.mean(own)
