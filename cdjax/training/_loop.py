"""Many steps in one dispatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int

from cdjax._types import Params
from cdjax.data import take_batch
from cdjax.sharding import sharded
from cdjax.training._step import Outcome, StepFn, TrainState

Indices: TypeAlias = Int[Array, "steps agents batch"]


def train_loop(step: StepFn, *, mesh: Mesh | None = None) -> Callable[..., Outcome]:
    """Many steps in one dispatch, without a round trip to the host between them.

    Args:
        step: a step function, see :func:`train_step`.
        mesh: the devices over which state and data are sharded, if any.

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``. It donates
        ``state``; ``data`` is stacked and stays on the device; ``indices`` of shape
        ``(max_steps, N, batch)`` says which samples each agent takes in each step; the first
        ``num_steps`` of them are run, and one compilation serves every ``num_steps``. The metrics
        hold one row per step, each of shape ``(max_steps, N)``; rows beyond ``num_steps`` are zero.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        loop = cdjax.training.train_loop(cdjax.training.train_step(agent_loss, tx))
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=20, seed=0)
        state, metrics = loop(cdjax.training.init_state(params, tx, key=key), batch, indices, 20)
    """
    take = sharded(take_batch, mesh) if mesh else take_batch

    def loop(state: TrainState, data: Any, indices: Indices, num_steps: Int[Array, ""]) -> Outcome:
        def one_step(state: TrainState, i: Int[Array, ""] | int) -> Outcome:
            return step(state, take(data, indices[i]))

        def body(i: Int[Array, ""], carry: Outcome) -> Outcome:
            state, rows = carry
            state, metrics = one_step(state, i)
            return state, jax.tree.map(lambda rows, row: rows.at[i].set(row), rows, metrics)

        _, shapes = jax.eval_shape(one_step, state, 0)
        rows = empty_rows(shapes, (len(indices),))
        return jax.lax.fori_loop(0, num_steps, body, (state, rows))

    return jax.jit(loop, donate_argnums=0)


def empty_rows(shapes: Params, axes: tuple[int, ...]) -> Params:
    """Zeros of these shapes behind further leading axes."""
    return jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), shapes)
