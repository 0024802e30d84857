"""One step of every agent: its gradient on its own batch, then the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from cdjax._checks import stacked_size
from cdjax._types import OptState, Params
from cdjax.agents import agent_map
from cdjax.sharding import sharded

Metrics: TypeAlias = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that a step carries; with the seed of the data order it determines the run.

    ``key`` never changes: step and agent are folded into it.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: OptState
    model_state: Params
    key: PRNGKeyArray


Outcome: TypeAlias = tuple[TrainState, Metrics]


@runtime_checkable
class LossFn(Protocol):
    """The loss of one agent on one batch, see :mod:`cdjax.training`."""

    def __call__(
        self, params: Params, model_state: Params, batch: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[Params, Metrics]]:
        """Returns ``loss, (model_state, metrics)``."""
        ...


StepFn: TypeAlias = Callable[[TrainState, Any], Outcome]


def init_state(
    params: Params,
    tx: optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
    model_state: Params | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        params: stacked parameters, leaves of shape ``(N, ...)``.
        tx: any optax optimizer on stacked parameters.
        key: the run's random key, for dropout and the like.
        model_state: stacked non-trainable collections, {} by default.

    Returns:
        The state, with copies of the arguments, so that a donating loop may consume it.

    Example: ``state = cdjax.training.init_state(params, tx, key=jax.random.key(0))``
    """
    params, key = jax.tree.map(jnp.copy, (params, key))
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
        tx: any optax optimizer on stacked parameters, such as :func:`cdjax.cdmsgd`.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the agents are sharded, see :mod:`cdjax.sharding`, if any.

    Returns:
        A pure function ``step(state, batch) -> (state, metrics)`` on a stacked batch. The metrics
        are ``loss``, ``gradient_norm`` (of the agent's own gradient) and the loss function's own,
        each of shape (N,).

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        step = jax.jit(cdjax.training.train_step(agent_loss, tx), donate_argnums=0)
        state, metrics = step(cdjax.training.init_state(params, tx, key=key), batch)
    """
    gradients = agent_map(gradient_fn(loss_fn), plan=plan)
    if mesh:
        gradients = sharded(gradients, mesh)

    def step(state: TrainState, batch: Any) -> Outcome:
        agents = jnp.arange(stacked_size(state.params))
        keys = jax.vmap(lambda agent: agent_key(state, agent))(agents)
        grads, model_state, metrics = gradients(state.params, state.model_state, batch, keys)
        params, opt_state = updated(tx, state, grads)
        return TrainState(state.step + 1, params, opt_state, model_state, state.key), metrics

    return step


def gradient_fn(loss_fn: LossFn) -> Callable[..., tuple[Params, Params, Metrics]]:
    """One agent's ``(gradient, model_state, metrics)``, a function of what its loss takes."""
    loss_and_gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def gradient(*args: Any) -> tuple[Params, Params, Metrics]:
        (loss, (model_state, metrics)), grads = loss_and_gradient(*args)
        # Here, while the agent's gradient is in the cache: later, norms would be one more pass. The
        # update waits for them, for it is then the gradient's last reader and takes its memory;
        # without the barrier XLA measures after the update, and holds one more copy of the model.
        grads, norm = jax.lax.optimization_barrier((grads, optax.tree.norm(grads)))
        return grads, model_state, {"loss": loss, "gradient_norm": norm, **metrics}

    return gradient


def updated(
    tx: optax.GradientTransformation, state: TrainState, grads: Params
) -> tuple[Params, OptState]:
    """The parameters and the optimizer's state after an update with stacked gradients."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    return optax.apply_updates(state.params, updates), opt_state


def agent_key(state: TrainState, agent: int | Int[Array, ""]) -> Key[Array, ""]:
    """The random key of an agent in this step: a run that resumes at a step draws the same."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), agent)
