"""FedJAX: its federated averaging. It needs FedJAX, JAX and NumPy only."""

from __future__ import annotations

from itertools import count

import jax
import numpy as np

# FedJAX 0.0.17 asks for a name that JAX has dropped.
jax.tree_map = jax.tree_util.tree_map  # pyright: ignore[reportAttributeAccessIssue]

import fedjax  # noqa: E402
from fedjax.algorithms import fed_avg  # noqa: E402

from benchmarks._peers import jax_mlp  # noqa: E402
from benchmarks._peers.problem import Problem, Program  # noqa: E402


def rounds(problem: Problem) -> Program:
    """Rounds of federated averaging; samples come in their order."""

    def gradient(params: fedjax.Params, batch: fedjax.BatchExample, _: jax.Array) -> fedjax.Params:
        return jax.grad(jax_mlp.loss)(params, batch["x"], batch["y"])

    batches = fedjax.ShuffleRepeatBatchHParams(
        batch_size=problem.facts["batch"], num_epochs=1, drop_remainder=True, skip_shuffle=True
    )
    algorithm = fed_avg.federated_averaging(
        gradient,
        fedjax.optimizers.sgd(problem.facts["learning_rate"]),
        fedjax.optimizers.sgd(1.0),
        batches,
    )
    own = [
        fedjax.ClientDataset({"x": images, "y": labels})
        for images, labels in zip(problem.images, problem.labels, strict=True)
    ]
    state = algorithm.init(jax_mlp.initial_params(problem))
    keys, numbers = jax.random.split(jax.random.key(0), len(own)), count()

    def step() -> None:
        nonlocal state
        drawn = problem.clients[next(numbers) % len(problem.clients)]
        state, _ = algorithm.apply(state, [(client, own[client], keys[client]) for client in drawn])
        jax.block_until_ready(state.params)

    def current() -> dict[str, np.ndarray]:
        return {name: np.asarray(x)[None] for name, x in state.params.items()}

    return Program(step, current)
