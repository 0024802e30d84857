"""DrJAX: federated averaging by its map and mean. It needs DrJAX, JAX and NumPy only."""

from __future__ import annotations

from itertools import count

import drjax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._peers import jax_mlp
from benchmarks._peers.problem import Problem, Program

Params = dict[str, jax.Array]
Samples = tuple[jax.Array, jax.Array]


def rounds(problem: Problem) -> Program:
    """Rounds of federated averaging; the drawn clients' samples are taken on the device."""
    batch, rate = problem.facts["batch"], problem.facts["learning_rate"]
    clients, samples = problem.labels.shape
    num_steps = samples // batch
    images = problem.images[:, : num_steps * batch].reshape(clients, num_steps, batch, -1)
    labels = problem.labels[:, : num_steps * batch].reshape(clients, num_steps, batch)
    own = (jnp.asarray(images), jnp.asarray(labels))

    def local_training(params: Params, batches: Samples) -> Params:
        def one_step(params: Params, one: Samples) -> tuple[Params, None]:
            grads = jax.grad(jax_mlp.loss)(params, *one)
            return jax.tree.map(lambda x, g: x - rate * g, params, grads), None

        return jax.lax.scan(one_step, params, batches)[0]

    @drjax.program(clients=problem.clients.shape[1])
    def one_round(params: Params, batches: Samples) -> Params:
        trained = drjax.map_fn(local_training, (drjax.broadcast(params), batches))
        return drjax.reduce_mean(trained)

    @jax.jit
    def train(params: Params, drawn: jax.Array, own: Samples) -> Params:
        return one_round(params, jax.tree.map(lambda x: x[drawn], own))

    params, numbers = jax_mlp.initial_params(problem), count()

    def step() -> None:
        nonlocal params
        params = train(params, problem.clients[next(numbers) % len(problem.clients)], own)
        jax.block_until_ready(params)

    def current() -> dict[str, np.ndarray]:
        return {name: np.asarray(x)[None] for name, x in params.items()}

    return Program(step, current)
