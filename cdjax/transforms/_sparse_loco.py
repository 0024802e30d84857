r"""SparseLoCo: many local steps, then a few entries of what they changed.

Sarfi et al., *Communication Efficient LLM Pre-training with SparseLoCo*, 2025, arXiv:2508.15706;
github.com/tplr-ai/templar, src/tplr/neurons.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import (
    check_compressor,
    check_count,
    check_inner,
    check_params,
    check_scalar,
)
from cdjax._stored import written_over
from cdjax._trees import displacement, is_floating, map_floats, scalar_like
from cdjax._types import OptState, Params
from cdjax.compress import Compressor
from cdjax.compress._feedback import accumulated, left


class SparseLoCoState(NamedTuple):
    """State of :func:`sparse_loco`.

    ``start`` is where all agents began the round, ``error`` what each has not sent.
    """

    step: Int[Array, ""]
    start: Params
    error: Params
    inner: OptState


def sparse_loco(
    inner: optax.GradientTransformation,
    compressor: Compressor,
    *,
    period: int = 30,
    decay: float = 0.95,
    outer_step: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps; after every H of them what they changed is sent, compressed, to all.

    .. math::
        \Delta^j = \theta - x^j, \qquad e^j \leftarrow \beta e^j + \Delta^j, \qquad q^j = Q(e^j),
        \qquad e^j \leftarrow e^j - q^j, \\
        \theta \leftarrow \theta - \alpha \operatorname{mean}_j q^j, \qquad x^j \leftarrow \theta

    What was not sent is the momentum of the rounds, there is no other. The mean of an entry is over
    those that sent it, as in the released code; the paper divides by the number of agents. Where
    everything is sent this is :func:`fedavg` with the server's step :math:`\alpha`, for any
    :math:`\beta`.

    Args:
        inner: any optax optimizer; its state stays with the agent from round to round.
        compressor: Q, in the paper :func:`cdjax.compress.chunk_top_k` with ``value_bits=2``.
        period: H, in steps, at least 1.
        decay: :math:`\beta` in [0, 1].
        outer_step: :math:`\alpha`, at least 0.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. Its
        state holds two more copies of the parameters, of which :math:`\theta` is what to evaluate:
        see :func:`slow_params`.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.sparse_loco(optax.adamw(1e-4), cdjax.compress.chunk_top_k(64))``

    Reference: Sarfi et al. (2025), Algorithm 1 (number not verified), and the released code.
    """
    check_inner(inner)
    check_compressor(compressor)
    check_count("period", period, low=1)
    check_scalar("decay", decay, low=0, high=1)
    check_scalar("outer_step", outer_step, low=0)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SparseLoCoState:
        start, error = jax.tree.map(jnp.copy, params), optax.tree.zeros_like(params)
        return SparseLoCoState(jnp.zeros([], jnp.int32), start, error, inner.init(params))

    def exchange(
        x: Params, start: Params, error: Params, step: Int[Array, ""]
    ) -> tuple[Params, Params]:
        """θ of the next round, stacked, and what has not been sent."""

        def total_from(error: Params, others: tuple[Params, Params]) -> Params:
            return accumulated(error, left(*others), decay)

        total = written_over(total_from, error, (start, x), step)
        sent, mean = compressor.mean_of_senders(total, step)
        mean = jax.tree.map(lambda mean, x: jnp.broadcast_to(mean[None], x.shape), mean, x)
        start = map_floats(lambda x, mean: x - scalar_like(outer_step, x) * mean, start, mean)
        return start, left(total, sent)

    def update(
        updates: optax.Updates,
        state: SparseLoCoState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SparseLoCoState]:
        x = check_params(params, "sparse_loco", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        stepped = optax.apply_updates(x, updates)
        is_last = (state.step + 1) % period == 0
        start, error = jax.lax.cond(
            is_last,
            lambda: exchange(stepped, state.start, state.error, state.step // period),
            lambda: (state.start, state.error),
        )
        after = jax.tree.map(
            lambda x, start: jnp.where(is_last, start, x) if is_floating(x) else x, stepped, start
        )
        return displacement(after, x), SparseLoCoState(state.step + 1, start, error, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
