r"""Error feedback: what a compressor leaves out is sent later.

Seide, Fu, Droppo, Li, Yu, *1-Bit Stochastic Gradient Descent*, Interspeech 2014: the errors are
added to what is sent next (EF14).

Richtárik, Sokolov, Fatkhullin, *EF21: A New, Simpler, Theoretically Better, and Practically Faster
Error Feedback*, NeurIPS 2021, arXiv:2106.05203: differences to what has been sent are compressed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_compressor, check_scalar
from cdjax._trees import map_floats, scalar_like
from cdjax._types import Params
from cdjax.compress._compressor import Compressor


class Feedback(NamedTuple):
    """A compressor with a memory, of the same shapes as the stacked tree that it compresses.

    Attributes:
        init: from a stacked tree to the memory.
        update: from a tree, the memory and the step to what others read, and the memory after.
    """

    init: Callable[[Params], Params]
    update: Callable[[Params, Params, int | Int[Array, ""]], tuple[Params, Params]]


class ErrorFeedbackState(NamedTuple):
    """State of :func:`compressed_updates`: the step, and what has not been sent."""

    step: Int[Array, ""]
    error: Params


def error_feedback(compressor: Compressor, *, decay: float = 1.0) -> Feedback:
    r"""Adds what was not sent to what is sent next.

    .. math:: e \leftarrow \beta e + u, \qquad q = Q(e), \qquad e \leftarrow e - q

    Nothing gets lost: :math:`e_T + \sum_t \beta^{T-1-t} q_t = \sum_t \beta^{T-1-t} u_t`.

    Args:
        compressor: Q.
        decay: :math:`\beta` in [0, 1], by which what was not sent is forgotten.

    Raises:
        ValueError: if the decay is out of its range.

    Example::

        feedback = cdjax.compress.error_feedback(cdjax.compress.sign())
        sent, memory = feedback.update(grads, feedback.init(params), step)

    Reference: Seide et al. (2014), eqs. 1 to 3 (numbers not verified).
    """
    check_compressor(compressor)
    check_scalar("decay", decay, low=0, high=1)

    def update(tree: Params, memory: Params, step: int | Int[Array, ""]) -> tuple[Params, Params]:
        total = accumulated(memory, tree, decay)
        sent = compressor(total, step)
        return sent, left(total, sent)

    return Feedback(optax.tree.zeros_like, update)


def difference_feedback(compressor: Compressor) -> Feedback:
    r"""Sends the difference to what others have read so far (EF21).

    .. math:: h \leftarrow h + Q(u - h), \qquad \text{others read } h

    Args:
        compressor: Q.

    Example: ``feedback = cdjax.compress.difference_feedback(cdjax.compress.top_k(0.1))``

    Reference: Richtárik et al. (2021), eq. 8 (number not verified).
    """
    check_compressor(compressor)

    def update(tree: Params, memory: Params, step: int | Int[Array, ""]) -> tuple[Params, Params]:
        memory = optax.tree.add(memory, compressor(left(tree, memory), step))
        return memory, memory

    return Feedback(optax.tree.zeros_like, update)


def compressed_updates(feedback: Feedback) -> optax.GradientTransformation:
    r"""Replaces each agent's updates by what a compressor with a memory sends of them.

    After ``optax.sgd(learning_rate)`` and before :func:`cdjax.average_updates` this is SGD whose
    gradients are sent compressed.

    Args:
        feedback: such as :func:`error_feedback`.

    Example::

        feedback = cdjax.compress.error_feedback(cdjax.compress.sign())
        tx = optax.chain(optax.sgd(0.1), cdjax.compress.compressed_updates(feedback))

    Reference: Karimireddy et al. (2019), arXiv:1901.09847, Algorithm 2 (number not verified).
    """

    def init(params: Params) -> ErrorFeedbackState:
        return ErrorFeedbackState(jnp.zeros([], jnp.int32), feedback.init(params))

    def update(
        updates: optax.Updates, state: ErrorFeedbackState, params: Params | None = None
    ) -> tuple[optax.Updates, ErrorFeedbackState]:
        del params
        sent, error = feedback.update(updates, state.error, state.step)
        return sent, ErrorFeedbackState(state.step + 1, error)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def accumulated(memory: Params, tree: Params, decay: float) -> Params:
    """``decay * memory + tree``."""
    return map_floats(lambda e, u: scalar_like(decay, e) * e + u, memory, tree)


def left(total: Params, sent: Params) -> Params:
    """What was not sent."""
    return map_floats(lambda e, q: e - q, total, sent)
