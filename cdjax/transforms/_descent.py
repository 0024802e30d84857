"""Steps against the gradient, whose length may differ between agents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from cdjax._checks import check_stacked
from cdjax._trees import along_agents, map_floats, value_at
from cdjax._types import AgentScalarOrSchedule, Params


def descent(learning_rate: AgentScalarOrSchedule) -> optax.GradientTransformation:
    r"""Plain SGD, :math:`u^j = -\alpha_j g^j`: ``optax.sgd`` where all agents step alike.

    Args:
        learning_rate: a number, one per agent of shape (N,), or a schedule of either.
    """
    shape = jax.eval_shape(lambda: jnp.asarray(value_at(learning_rate, jnp.zeros([], int)))).shape
    if not shape:
        return optax.sgd(learning_rate)  # pyright: ignore[reportArgumentType]

    def init(params: Params) -> optax.ScaleByScheduleState:
        check_stacked(params, shape[0], holder="the learning rate")
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates, state: optax.ScaleByScheduleState, params: Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByScheduleState]:
        del params
        alpha = value_at(learning_rate, jnp.asarray(state.count))
        updates = jax.tree.map(lambda g: -along_agents(alpha, g) * g, updates)
        return updates, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def stepped(params: Params, updates: Params, learning_rate: ArrayLike) -> Params:
    """The parameters after a step of some length along the updates: x − αu."""
    return map_floats(lambda x, u: x - along_agents(learning_rate, x) * u, params, updates)


def inverse(learning_rate: ArrayLike) -> Array:
    """1/α, to tell a gradient from a step; 0 where a step of size zero tells nothing."""
    alpha = jnp.asarray(learning_rate)
    return jnp.where(alpha > 0, 1 / jnp.where(alpha > 0, alpha, 1), 0)
