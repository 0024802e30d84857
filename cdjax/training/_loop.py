"""Many steps in one dispatch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, Int

from cdjax._checks import check_count
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
        More steps than rows of ``indices`` are a ValueError; under ``jax.jit``, where their number
        is not known, the loop ends with the rows, and ``state.step`` says after how many steps.

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

    return jitted_loop(loop)


def jitted_loop(loop: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """The jitted loop, which donates its state and takes no more steps than there are batches.

    JAX would repeat the last row of the indices in place of those beyond it.
    """

    def within(
        state: TrainState, data: Any, indices: Indices, num_steps: Int[Array, ""]
    ) -> Outcome:
        return loop(state, data, indices, jnp.minimum(num_steps, len(indices)))

    jitted = jax.jit(within, donate_argnums=0)

    @functools.wraps(jitted)
    def checked(state: TrainState, data: Any, indices: Any, num_steps: Any) -> Outcome:
        check_count("num_steps", num_steps, low=0)
        if not isinstance(num_steps, Tracer) and num_steps > len(indices):
            raise ValueError(
                f"num_steps is {num_steps}, more than the {len(indices)} rows of indices; draw "
                "more with cdjax.data.batch_indices"
            )
        return jitted(state, data, indices, num_steps)

    # What callers of jitted functions know them by.
    for name in ("lower", "trace", "eval_shape", "clear_cache", "_cache_size"):
        setattr(checked, name, getattr(jitted, name))
    return checked


def empty_rows(shapes: Params, axes: tuple[int, ...]) -> Params:
    """Zeros of these shapes behind further leading axes."""
    return jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), shapes)
