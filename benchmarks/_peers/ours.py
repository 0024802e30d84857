"""cdjax's programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cdjax
from benchmarks._peers.problem import Problem, Program
from benchmarks._peers.problems import FEDAVG_KEY, MODELS
from benchmarks._training import loss_of_raw_images
from cdjax import data, mixing, models, topology, training

ALGORITHMS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "cdsgd": lambda rate, mix, _: cdjax.cdsgd(rate, mix),
    "cdmsgd": lambda rate, mix, momentum: cdjax.cdmsgd(rate, mix, momentum=momentum),
    "atc": lambda rate, mix, _: cdjax.adapt_then_combine(optax.sgd(rate), mix),
    "cdsgd-pairs": lambda rate, mix, _: cdjax.cdsgd(rate, mix),
}


def steps(problem: Problem, *, gradient_norm: bool = False) -> Program:
    """Steps on a ring, in the compiled loop of the experiments."""
    facts, agents = problem.facts, len(problem.images)
    if facts["algorithm"] == "cdsgd-pairs":
        mix = mixing.pull(lambda step: _pairs_on_a_ring(agents, step))
    else:
        mix = mixing.auto(topology.ring(agents))
    tx = ALGORITHMS[facts["algorithm"]](facts["learning_rate"], mix, facts["momentum"])
    indices = np.tile(np.arange(problem.images.shape[1], dtype=np.int32), (1, agents, 1))
    return _loop(
        problem, tx, indices, shown=lambda x: x,
        make_loop=lambda loss, tx: training.train_loop(
            training.train_step(loss, tx, gradient_norm=gradient_norm)
        ),
    )  # fmt: skip


def _pairs_on_a_ring(num_agents: int, step: jax.Array) -> jax.Array:
    """Everyone's partner in Decent-DP's ring, whose first two exchanges are with the same one."""
    agent = jnp.arange(num_agents)
    to_the_right = (agent + jnp.maximum(step, 2)) % 2 == 1
    return jnp.where(to_the_right, agent + 1, agent - 1) % num_agents


def rounds(problem: Problem, *, gradient_norm: bool = False) -> Program:
    """Rounds of federated averaging, which train the drawn clients only."""
    facts, (clients, samples) = problem.facts, problem.labels.shape
    inner, num_steps = optax.sgd(facts["learning_rate"]), samples // facts["batch"]
    options = {
        "local_steps": num_steps,
        "fraction": problem.clients.shape[1] / clients,
        "key": jax.random.key(FEDAVG_KEY),
    }
    order = np.arange(num_steps * facts["batch"], dtype=np.int32).reshape(num_steps, 1, -1)
    program = _loop(
        problem,
        cdjax.fedavg(inner, **options),
        np.tile(order, (1, clients, 1)),
        shown=lambda x: x[:1],
        make_loop=lambda loss, _: training.fedavg_loop(
            loss, inner, **options, gradient_norm=gradient_norm
        ),
    )

    def step() -> None:  # the other systems tell no losses of a round
        program.step()

    return program._replace(step=step)


def _loop(
    problem: Problem,
    tx: optax.GradientTransformation,
    indices: np.ndarray,
    *,
    shown: Callable[[jax.Array], jax.Array],
    make_loop: Callable[[training.LossFn, optax.GradientTransformation], Callable[..., Any]],
) -> Program:
    """A program of as many steps as there are rows of indices."""
    model = MODELS[problem.facts["work"]]
    is_raw = problem.images.dtype == np.uint8
    loss = loss_of_raw_images(model) if is_raw else models.classification_loss(model)
    loop = make_loop(loss, tx)

    one_agent: dict[str, Any] = {}
    for name, x in problem.params.items():
        layer, leaf = name.split(".")
        one_agent.setdefault(layer, {})[leaf] = jnp.asarray(x)
    params = cdjax.replicate(one_agent, len(problem.images))
    state = training.init_state(params, tx, key=jax.random.key(1))
    samples = (jnp.asarray(problem.images), jnp.asarray(problem.labels))
    batches = data.AgentData(*samples) if is_raw else samples
    rows, num_steps = jnp.asarray(indices), len(indices)

    def step() -> np.ndarray:
        nonlocal state
        state, metrics = loop(state, batches, rows, num_steps)
        return np.asarray(metrics["loss"])

    def current() -> dict[str, np.ndarray]:
        return {
            f"{layer}.{name}": np.asarray(shown(x))
            for layer, leaves in state.params.items()
            for name, x in leaves.items()
        }

    return Program(step, current)
