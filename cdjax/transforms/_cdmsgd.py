r"""CDMSGD: consensus-based distributed SGD with momentum inside of consensus.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880, Section 3.1 and the momentum forms of its supplement (not verified).

Both forms are one recursion in the iterate :math:`x` and the velocity :math:`v`, with the gradient
at a point :math:`y = x + \ell v` ahead of the iterate:

.. math::
    v^+ = \Pi x - x + \mu v - \alpha \, g(y), \qquad x^+ = x + v^+,

where :math:`\ell = 0` gives Polyak's and :math:`\ell = \mu` Nesterov's. Users of optax take
gradients at the parameters they hold, so those are the look-ahead point :math:`y`. The iterate is
:math:`x = y - \ell v`, the one tensor that agents send, and the update is

.. math:: y^+ - y = (x + v^+ + \ell^+ v^+) - (x + \ell v) = (1 + \ell^+) \, v^+ - \ell v .

This is exact for any schedules of :math:`\alpha` and :math:`\mu`, since the look-ahead that made
the stored point is kept in the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from cdjax._checks import check_arrays, check_mixer, check_params, check_per_agent
from cdjax._trees import (
    along_agents,
    displacement,
    is_floating,
    map_floats,
    value_at,
    widened,
)
from cdjax._types import AgentScalarOrSchedule, Mixer, OptState, Params


class CDMSGDState(NamedTuple):
    """State of :func:`cdmsgd`; the stored parameters are ``x + lookahead * velocity``."""

    step: Int[Array, ""]
    velocity: Params
    lookahead: Float[Array, ""]


def cdmsgd(
    learning_rate: AgentScalarOrSchedule,
    mix: Mixer,
    *,
    momentum: AgentScalarOrSchedule = 0.9,
    nesterov: bool = True,
) -> optax.GradientTransformation:
    r"""Consensus-based distributed SGD with momentum.

    .. math::
        \text{Polyak:}\quad & v^+ = \Pi x - x + \mu v - \alpha \, g(x), & x^+ = x + v^+ \\
        \text{Nesterov:}\quad & v^+ = \Pi x - x + \mu v - \alpha \, g(x + \mu v), & x^+ = x + v^+

    The Nesterov form stores the look-ahead point :math:`y = x + \mu v`: take gradients there, as
    with any optax optimizer, and get :math:`x` for evaluation from :func:`eval_params`. With one
    agent and a constant step it is ``optax.sgd(learning_rate, momentum, nesterov=True)``. (Under a
    schedule it is not: here the step size sits inside the velocity, in optax outside.)

    The velocity holds the consensus displacement; for momentum without it see :func:`consensus`.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        momentum: :math:`\mu` in [0, 1), likewise.
        nesterov: whether the gradient is taken at the look-ahead point, as in the paper's
            experiments; otherwise Polyak's heavy ball.

    Returns:
        An optax transformation; its ``update`` needs ``params``.

    Raises:
        ValueError: if the learning rate is negative or the momentum outside of [0, 1).

    Example::

        tx = cdjax.cdmsgd(0.01, mix, momentum=0.9)
        updates, state = tx.update(grads, tx.init(params), params)

    Reference: Jiang et al. (2017), Section 3.1, who refer to their supplement for the forms with
    momentum (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_per_agent("momentum", momentum, low=0, high=1, high_open=True)

    def lookahead_at(step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(value_at(momentum, step) if nesterov else 0.0, jnp.result_type(float))

    def init(params: Params) -> CDMSGDState:
        check_arrays(params)
        step = jnp.zeros([], jnp.int32)
        # A copy, as a state that is donated must not take the caller's momentum with it.
        lookahead = jnp.copy(lookahead_at(step))
        return CDMSGDState(step, optax.tree.zeros_like(params), lookahead)

    def update(
        updates: optax.Updates, state: CDMSGDState, params: Params | None = None
    ) -> tuple[optax.Updates, CDMSGDState]:
        next_step = state.step + 1
        next_lookahead = lookahead_at(next_step)
        alpha, mu = value_at(learning_rate, state.step), value_at(momentum, state.step)

        y = check_params(params, "cdmsgd", updates)
        iterate = _iterate(y, state) if nesterov else y
        velocity = map_floats(
            lambda v, pull, g: (
                widened(pull) + along_agents(mu, v) * v - along_agents(alpha, v) * widened(g)
            ),
            state.velocity,
            displacement(mix(iterate, state.step), iterate),
            updates,
        )
        updates = map_floats(
            lambda v_next, ahead: (
                along_agents(1 + next_lookahead, v_next) * v_next - widened(ahead)
            ),
            velocity,
            displacement(y, iterate),
        )
        return updates, CDMSGDState(next_step, velocity, next_lookahead)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def eval_params(state: OptState, params: Params) -> Params:
    r"""The parameters to evaluate, mix or publish: the iterate :math:`x`.

    For :func:`cdmsgd` with Nesterov momentum, anywhere in a chain, it is :math:`x = y - \mu v` with
    the stored look-ahead point :math:`y`; for :func:`combine_then_adapt`, whose stored point is
    :math:`y = \Pi x`, it is :math:`x` before that exchange; for :func:`outer` and its kin the slow
    parameters :math:`\varphi`, and for :func:`sparse_loco` the common :math:`\theta`, also in the
    middle of a round; for every other optimizer it is ``params``.

    Args:
        state: the optimizer's state.
        params: the stored parameters of the same step, stacked.

    Returns:
        Stacked parameters with the shapes and dtypes of ``params``.

    Example: ``evaluated = cdjax.eval_params(state, params)``
    """
    if (slow := found_slow(state)) is not None:
        return _along_leaves(lambda slow, x: slow if is_floating(x) else x, slow, params)
    for _, found in optax.tree.get_all_with_path(state, "CDMSGDState"):
        params = _iterate(params, found)
    for _, found in optax.tree.get_all_with_path(state, "CombineThenAdaptState"):
        params = _behind(params, found.displacement)
    return params


def found_slow(state: OptState) -> Params | None:
    """The parameters that change once per round, anywhere in a chain; None if there are none."""
    # By name, because the files that define the states import this one.
    for name, field in {"OuterState": "slow", "SparseLoCoState": "start"}.items():
        for _, found in optax.tree.get_all_with_path(state, name):
            return getattr(found, field)
    return None


def _iterate(params: Params, state: CDMSGDState) -> Params:
    (lookahead,) = jax.tree.leaves(state.lookahead)  # nnx.Optimizer wraps it
    return _behind(params, state.velocity, factor=lookahead)


def _behind(params: Params, ahead: Params, *, factor: ArrayLike = 1.0) -> Params:
    """The parameters less a multiple of what an optimizer's state says they are ahead."""

    def leaf(v: Array, y: Array) -> Array:
        return y - along_agents(factor, v) * v if is_floating(y) else y

    return _along_leaves(leaf, ahead, params)


def _along_leaves(leaf: Callable[[Array, Array], Array], held: Params, params: Params) -> Params:
    """``leaf`` of what the state holds and of the parameters; those that it does not hold stay."""
    # optax.masked leaves MaskedNodes in the state for the parameters that it passes by.
    is_masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    leaves = jax.tree.leaves(held, is_masked)
    if any(map(is_masked, leaves)):
        keep = lambda x, y: y if is_masked(x) else leaf(x, y)  # noqa: E731
        return jax.tree.map(keep, held, params, is_leaf=is_masked)
    # Leaf by leaf, as nnx.Optimizer wraps the leaves of its state in other nodes than a model's.
    own, structure = jax.tree.flatten(params)
    return structure.unflatten([leaf(x, y) for x, y in zip(leaves, own, strict=True)])
