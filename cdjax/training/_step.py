"""One step of every agent: its gradient on its own batch, then the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from cdjax._checks import check_arrays, check_choice, check_stacked, stacked_size, warn_of_coupling
from cdjax._types import OptState, Params
from cdjax.agents import agent_map
from cdjax.sharding import sharded
from cdjax.topology import Topology
from cdjax.training._cross_gradients import cross_gradients

Metrics: TypeAlias = dict[str, Any]

# Metrics of a step that are not the loss function's own.
_TAKEN = ("loss", "gradient_norm", "trained")

OF_EACH = ("value", "grad", "model_state", "batch", "key")
"""Names of the extra arguments that lead with the agent axis, see :func:`train_step`."""


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
        """Returns ``loss, (model_state, metrics)``; ``loss`` itself is no name of a metric."""
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
        The state, with copies of the arguments and of what ``tx`` holds (a key for noise), so that
        a donating loop may consume it.

    Raises:
        ValueError: if a leaf is no array.

    Example: ``state = cdjax.training.init_state(params, tx, key=jax.random.key(0))``
    """
    check_arrays(params)
    params, key = jax.tree.map(jnp.copy, (params, key))
    model_state = jax.tree.map(jnp.copy, {} if model_state is None else model_state)
    opt_state = jax.tree.map(jnp.copy, tx.init(params))
    return TrainState(jnp.zeros([], jnp.int32), params, opt_state, model_state, key)


def train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    plan: str = "auto",
    mesh: Mesh | None = None,
    value: str = "mean",
    topology: Topology | None = None,
    gradient_norm: bool = True,
) -> StepFn:
    """One step of every agent: its gradient on its own batch, then the optimizer.

    An optimizer that takes extra arguments gets the loss as optax names it: ``value``, its gradient
    ``grad``, and ``value_fn``, the loss as a function of the parameters. They are those of the mean
    over agents, one number for all, as ``optax.contrib.reduce_on_plateau`` wants it. What compares
    the loss with a gradient (Polyak's step, line searches) is each agent's own business and goes
    into :func:`cdjax.per_agent`: with ``value="each"``, ``value`` and ``grad`` are stacked, and
    ``value_fn`` is the loss of one agent, which optax calls with that agent's ``model_state``,
    ``batch`` and ``key``.

    Args:
        loss_fn: the loss of one agent.
        tx: any optax optimizer on stacked parameters, such as :func:`cdjax.cdmsgd`.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the agents are sharded, see :mod:`cdjax.sharding`, if any.
        value: whose loss an optimizer with extra arguments gets, ``mean`` or ``each``.
        topology: the graph along which agents compute each other's gradients, if the optimizer
            wants them as the extra argument ``cross_gradients``, see :func:`cdjax.cga`.
        gradient_norm: whether to measure the norm of each agent's own gradient. That reads the
            gradient once more: a step of small MLPs takes 6 to 14 % longer, one of the paper's
            CNNs 3 %.

    Returns:
        A pure function ``step(state, batch) -> (state, metrics)`` on a stacked batch. The metrics
        are ``loss``, ``gradient_norm`` if it is measured, and the loss function's own, each of
        shape (N,).

    Raises:
        ValueError: if ``value`` is neither, or the optimizer takes no extra arguments, but there is
            a topology; from ``step``, if the parameters are not stacked as the batch is, or if
            ``loss_fn`` does not return what it should.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        step = jax.jit(cdjax.training.train_step(agent_loss, tx), donate_argnums=0)
        state, metrics = step(cdjax.training.init_state(params, tx, key=key), batch)

    Line searches, each agent its own::

        searching = cdjax.per_agent(optax.lbfgs(), stacked=cdjax.training.OF_EACH)
        tx = optax.chain(searching, cdjax.consensus(mix))
        step = cdjax.training.train_step(agent_loss, tx, value="each")
    """
    check_choice("value", value, ["mean", "each"])
    warn_of_coupling("tx", tx, stacklevel=3)
    gradients = agent_map(gradient_fn(loss_fn, with_norm=gradient_norm), plan=plan)

    def loss_of_one(params: Params, model_state: Params, batch: Any, key: PRNGKeyArray) -> Any:
        return loss_fn(params, model_state, batch, key)[0]

    losses_of = agent_map(loss_of_one, plan=plan)
    if mesh:
        gradients, losses_of = sharded(gradients, mesh), sharded(losses_of, mesh)
    takes_more = isinstance(tx, optax.GradientTransformationExtraArgs)
    cross = None
    if topology is not None:
        if not takes_more:
            raise ValueError(
                "topology is for an optimizer that wants cross gradients, such as cdjax.cga, but "
                "tx takes no extra arguments; leave it out"
            )
        gradient_of = lambda *args: gradient_fn(loss_fn, with_norm=False)(*args)[0]  # noqa: E731
        # A model's statistics travel with it; batch and key are those of whoever holds the data.
        cross = cross_gradients(gradient_of, topology, num_own=2, plan=plan, mesh=mesh)

    def step(state: TrainState, batch: Any) -> Outcome:
        _check_stacked_as(batch, state.params)
        agents = jnp.arange(stacked_size(state.params))
        keys = jax.vmap(lambda agent: agent_key(state, agent))(agents)
        given = {"model_state": state.model_state, "batch": batch, "key": keys}
        grads, model_state, metrics = gradients(state.params, *given.values())

        def extra_args() -> dict[str, Any]:
            losses = metrics["loss"]
            crossed = {"cross_gradients": cross(state.params, *given.values())} if cross else {}
            if value == "each":
                return {"value": losses, "grad": grads, "value_fn": loss_of_one, **given, **crossed}
            return {
                **crossed,
                "value": jnp.mean(losses),
                "grad": jax.tree.map(lambda g: g / len(agents), grads),
                "value_fn": lambda params: jnp.mean(losses_of(params, *given.values())),
            }

        more = extra_args() if takes_more else {}
        updates, opt_state = tx.update(grads, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, model_state, state.key), metrics

    return step


def _check_stacked_as(batch: Any, params: Params) -> None:
    """Raises unless parameters and batch are of the same number of agents."""
    for num_agents in {np.shape(x)[0] for x in jax.tree.leaves(batch) if np.ndim(x)}:
        stack = f"stack parameters with cdjax.replicate(params, {num_agents})"
        remedy = f"{stack}, and batches as (agents, samples, ...)"
        check_stacked(params, num_agents, holder="the batch", remedy=remedy)


def gradient_fn(
    loss_fn: LossFn, *, with_norm: bool = True
) -> Callable[..., tuple[Params, Params, Metrics]]:
    """One agent's ``(gradient, model_state, metrics)``, a function of what its loss takes."""
    loss_and_gradient = jax.value_and_grad(_checked(loss_fn), has_aux=True)

    def gradient(*args: Any) -> tuple[Params, Params, Metrics]:
        (loss, (model_state, metrics)), grads = loss_and_gradient(*args)
        if not with_norm:
            return grads, model_state, {"loss": loss, **metrics}
        # Here, while the agent's gradient is in the cache: later, norms would be one more pass. The
        # update waits for them, for it is then the gradient's last reader and takes its memory;
        # without the barrier XLA measures after the update, and holds one more copy of the model.
        grads, norm = jax.lax.optimization_barrier((grads, optax.tree.norm(grads)))
        return grads, model_state, {"loss": loss, "gradient_norm": norm, **metrics}

    return gradient


def _checked(loss_fn: LossFn) -> Callable[..., tuple[Any, tuple[Params, Metrics]]]:
    """The loss function, which raises if it does not return what it should."""

    def checked(*args: Any) -> tuple[Any, tuple[Params, Metrics]]:
        match loss_fn(*args):
            case (loss, (model_state, Mapping() as metrics)):
                pass
            case other:
                shape = jax.tree.map(lambda x: "*", other)
                raise ValueError(
                    f"loss_fn returned {shape}; it returns loss, (model_state, metrics), with {{}} "
                    "where there are none"
                )
        if jnp.shape(loss):
            raise ValueError(
                f"loss_fn's loss has shape {jnp.shape(loss)}; give one number, such as the mean"
            )
        if taken := [name for name in _TAKEN if name in metrics]:
            raise ValueError(
                f"loss_fn's metrics have the name {taken[0]!r}, which every step has; give another"
            )
        return loss, (model_state, dict(metrics))

    return checked


def agent_key(state: TrainState, agent: int | Int[Array, ""]) -> Key[Array, ""]:
    """The random key of an agent in this step: a run that resumes at a step draws the same."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), agent)
