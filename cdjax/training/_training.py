"""Training N agents: a step, a loop of steps in one dispatch, and evaluation. Pure functions.

A *loss function* is written for one agent::

    loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))

with ``model_state`` the non-trainable collections ({} for none), ``key`` a random key of this agent
and step alone, and ``metrics`` a dict of scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from cdjax._checks import stacked_size
from cdjax._types import Params
from cdjax.agents import agent_map
from cdjax.data import take_batch
from cdjax.sharding import sharded

Metrics: TypeAlias = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that a step carries: with the data order's seed, it determines the rest of a run.

    ``key`` never changes; step and agent are folded into it.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    model_state: Params
    key: PRNGKeyArray


@runtime_checkable
class LossFn(Protocol):
    """The loss of one agent on one batch; see the module's docstring."""

    def __call__(
        self, params: Params, model_state: Params, batch: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[Params, Metrics]]:
        """Returns ``loss, (model_state, metrics)``."""
        ...


StepFn: TypeAlias = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def init_state(
    params: Params,
    tx: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    model_state: Params | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        params: stacked parameters, leaves of shape ``(N, ...)``.
        tx: any optax optimizer on stacked parameters.
        key: the run's random key, for dropout and the like.
        model_state: stacked non-trainable collections, {} by default.

    Returns:
        The state, with a copy of ``params``, so that a donating loop may consume it.
    """
    params = jax.tree.map(jnp.copy, params)
    model_state = jax.tree.map(jnp.copy, {} if model_state is None else model_state)
    return TrainState(jnp.zeros([], jnp.int32), params, tx.init(params), model_state, key)


def train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    plan: str = "auto",
    mesh: Mesh | None = None,
) -> StepFn:
    """One step of every agent: its gradient on its own batch, then the optimizer.

    Args:
        loss_fn: the loss of one agent.
        tx: any optax optimizer on stacked parameters, :func:`cdjax.cdmsgd` for one.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the agents are sharded, see :mod:`cdjax.sharding`, if any.

    Returns:
        A pure function ``step(state, batch) -> (state, metrics)`` on a stacked batch; the metrics
        hold ``loss`` and the loss function's own, each of shape (N,).

    Example::

        step = jax.jit(train_step(loss_fn, tx), donate_argnums=0)
        state, metrics = step(state, batch)
    """
    loss_and_grads = agent_map(jax.value_and_grad(loss_fn, has_aux=True), plan=plan)
    if mesh:
        loss_and_grads = sharded(loss_and_grads, mesh)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        keys = _agent_keys(state.key, state.step, stacked_size(state.params))
        (losses, (model_state, metrics)), grads = loss_and_grads(
            state.params, state.model_state, batch, keys
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        next_state = TrainState(state.step + 1, params, opt_state, model_state, state.key)
        return next_state, {"loss": losses, **metrics}

    return step


def train_loop(
    step: StepFn, *, mesh: Mesh | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Many steps in one dispatch, without a host round-trip between them.

    Args:
        step: a step function, see :func:`train_step`.
        mesh: the devices over which state and data are sharded, if any.

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``. It donates
        ``state``; ``data`` is stacked and stays on the device; ``indices`` of shape
        ``(max_steps, N, batch)`` says which samples each agent takes in each step; the first
        ``num_steps`` of them are run, and one compilation serves every ``num_steps``. The metrics
        are means over these steps, each of shape (N,).

    Example::

        loop = train_loop(train_step(loss_fn, tx))
        indices = cdjax.data.batch_indices(sizes, 32, first_step=0, num_steps=100, seed=0)
        state, metrics = loop(state, data, indices, 100)
    """
    take = sharded(take_batch, mesh) if mesh else take_batch

    def loop(
        state: TrainState,
        data: Any,
        indices: Int[Array, "steps agents batch"],
        num_steps: Int[Array, ""],
    ) -> tuple[TrainState, Metrics]:
        def body(
            i: Int[Array, ""], carry: tuple[TrainState, Metrics]
        ) -> tuple[TrainState, Metrics]:
            state, sums = carry
            state, metrics = step(state, take(data, indices[i]))
            return state, optax.tree.add(sums, metrics)

        _, shapes = jax.eval_shape(lambda s: step(s, take(data, indices[0])), state)
        sums = optax.tree.zeros_like(shapes)
        state, sums = jax.lax.fori_loop(0, num_steps, body, (state, sums))
        return state, jax.tree.map(lambda total: total / num_steps, sums)

    return jax.jit(loop, donate_argnums=0)


def evaluation(
    metrics_fn: Callable[[Params, Params, Any], Metrics],
    *,
    batch_size: int = 250,
    plan: str = "auto",
    mesh: Mesh | None = None,
) -> Callable[..., Metrics]:
    """The evaluation of every agent on one shared data set.

    Args:
        metrics_fn: for one agent, ``(params, model_state, batch) -> metrics``, each metric with one
            number a sample, shape (batch,).
        batch_size: samples at a time.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the parameters are sharded, if any.

    Returns:
        A jitted function ``evaluate(params, model_state, samples) -> metrics`` on stacked
        parameters. ``samples`` is a pytree whose leaves lead with the sample axis; the metrics are
        means over samples, each of shape (N,).

    Example::

        evaluate = evaluation(models.classification_metrics(model))
        evaluate(cdjax.eval_params(state.opt_state, state.params), state.model_state, test_set)
    """

    def evaluate(params: Params, model_state: Params, samples: Any) -> Metrics:
        num_samples = stacked_size(samples)
        batches, weights = _batches(samples, num_samples, min(batch_size, num_samples))

        def evaluate_agents(
            params: Params, model_state: Params, batches: Any, weights: Array
        ) -> Metrics:
            def evaluate_one_agent(params: Params, model_state: Params) -> Metrics:
                def batch_sums(batch_and_weights: Any) -> Metrics:
                    batch, weights = batch_and_weights
                    per_sample = metrics_fn(params, model_state, batch)
                    return jax.tree.map(lambda values: jnp.vdot(weights, values), per_sample)

                sums = jax.lax.map(batch_sums, (batches, weights))
                return jax.tree.map(lambda totals: jnp.sum(totals) / num_samples, sums)

            return agent_map(evaluate_one_agent, plan=plan)(params, model_state)

        if mesh:
            evaluate_agents = sharded(evaluate_agents, mesh, num_shared=2)
        return evaluate_agents(params, model_state, batches, weights)

    return jax.jit(evaluate)


def _agent_keys(key: PRNGKeyArray, step: Int[Array, ""], num_agents: int) -> Key[Array, " agents"]:
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(lambda agent: jax.random.fold_in(step_key, agent))(jnp.arange(num_agents))


def _batches(
    samples: Any, num_samples: int, batch_size: int
) -> tuple[Any, Float[Array, "batches batch"]]:
    """Samples cut into equal batches; the last is padded with samples of weight zero."""
    num_batches = -(-num_samples // batch_size)
    order = jnp.arange(num_batches * batch_size).reshape(num_batches, batch_size)
    batches = jax.tree.map(lambda x: x[jnp.minimum(order, num_samples - 1)], samples)
    return batches, (order < num_samples).astype(jnp.float32)
