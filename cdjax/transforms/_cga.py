r"""CGA: steps that no neighbour's data object to.

Esfandiari, Tan, Jiang, Balu, Herron, Hegde, Sarkar, *Cross-Gradient Aggregation for Decentralized
Learning from Non-IID Data*, ICML 2021, arXiv:2103.02051; its equations are those of the released
code (github.com/yasesf93/CrossGradientAggregation, Optimizers/CGA.py), as the text of the paper was
not at hand.

Lopez-Paz, Ranzato, *Gradient Episodic Memory for Continual Learning*, NeurIPS 2017,
arXiv:1706.08840: the quadratic program and its margin.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Inexact

from cdjax._checks import check_mixer, check_per_agent, check_scalar
from cdjax._trees import (
    along_agents,
    is_floating,
    leaf_name,
    map_floats_together,
    scalar_like,
    widened,
)
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.transforms._consensus import consensus
from cdjax.transforms._descent import descent
from cdjax.transforms._nonnegative import nonnegative_minimum


class CrossGradients(NamedTuple):
    """Gradients of every agent's model on its neighbours' data, see :func:`cdjax.cross_gradients`.

    Attributes:
        gradients: leaves of shape ``(N, K, ...)``: in slot k of agent j the gradient of its model
            on the data of one neighbour; zeros where it has fewer than K.
        weights: the weight that agent j gives to that neighbour, shape ``(N, K)``; zero likewise.
    """

    gradients: Params
    weights: Float[Array, "agents neighbors"]


def cga(
    learning_rate: AgentScalarOrSchedule,
    mix: Mixer,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    margin: float = 0.5,
    per_leaf: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Cross-gradient aggregation: CDSGD along directions that suit the neighbours' data too.

    .. math::
        m^+ = \mu m + \tilde{g}, \qquad x^+ = \Pi x - \alpha (\tilde{g} + \mu m^+)

    with the directions of :func:`aggregate_cross_gradients` in place of gradients. Without
    ``nesterov`` it is :math:`x^+ = \Pi x - \alpha m^+`. The momentum lies outside of consensus.

    Each step costs every agent a gradient per neighbour beside its own, and on each edge a model
    and a gradient travel in both directions.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.
        momentum: :math:`\mu` in [0, 1).
        nesterov: whether the step looks ahead, as the released code's.
        margin: how much each neighbour counts at least, see :func:`aggregate_cross_gradients`.
        per_leaf: whether every leaf has a quadratic program of its own, likewise.

    Returns:
        An optax transformation; its ``update`` needs ``params``, and ``cross_gradients`` from
        :func:`cdjax.cross_gradients`. :func:`cdjax.training.train_step` gives them to it with
        ``topology=topology``.

    Raises:
        ValueError: if an argument is out of its range.

    Example::

        tx = cdjax.cga(0.01, mix)
        crossed = cdjax.cross_gradients(jax.grad(loss_fn), topology)(params, batch)
        updates, state = tx.update(grads, tx.init(params), params, cross_gradients=crossed)

    Reference: Esfandiari et al. (2021), Algorithm 1 (number not verified), and the released code.
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_scalar("momentum", momentum, low=0, high=1, high_open=True)
    has_none = isinstance(momentum, int | float) and not momentum
    return optax.chain(
        aggregate_cross_gradients(margin=margin, per_leaf=per_leaf),
        optax.identity() if has_none else optax.trace(momentum, nesterov=nesterov),
        descent(learning_rate),
        consensus(mix),
    )  # pyright: ignore[reportReturnType]


def aggregate_cross_gradients(
    *, margin: float = 0.5, per_leaf: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces each agent's gradient by the nearest combination to which no neighbour objects.

    .. math::
        \tilde{g}^j = \Pi_{jj} \, g^{jj} + \sum_{l \in N(j)} v_l \, \Pi_{jl} \, g^{jl}, \qquad
        v = \arg\min_{v \ge m} \| \tilde{g}^j \|^2

    with the gradients :math:`g^{jl}` of agent j's model on agent l's data. With the margin
    :math:`m = 0` it is the projection of agent j's own gradient, times :math:`\Pi_{jj}`, onto the
    directions that lengthen no neighbour's loss to first order,
    :math:`\langle \tilde{g}^j, g^{jl} \rangle \ge 0`; these inequalities hold for every m. Where
    nobody objects, v = m: the weighted mean of all for m = 1, and the own gradient for m = 0.

    A step of zero is a solution wherever own and cross gradients balance, so agents stop anywhere
    where these conflict, the sooner the fewer parameters they have to avoid each other with: one
    parameter ends between the neighbours' minima, not at that of the mean.

    Args:
        margin: m, at least 0; the released code's is 0.5, after GEM's.
        per_leaf: whether every leaf has a quadratic program of its own, as in the released code;
            by default there is one for all parameters together.

    Returns:
        An optax transformation without state, which goes first in a chain; its ``update`` needs
        ``cross_gradients`` from :func:`cdjax.cross_gradients`.

    Raises:
        ValueError: if the margin is negative; from ``update``, without cross gradients.

    Example::

        tx = optax.chain(cdjax.aggregate_cross_gradients(), optax.adam(1e-3), cdjax.consensus(mix))

    Reference: Lopez-Paz & Ranzato (2017), eq. 11 (number not verified), and the released code,
    which adds 1e-12 to the diagonal of the program's matrix.
    """
    check_scalar("margin", margin, low=0)

    def init(params: Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: Params | None = None,
        *,
        cross_gradients: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        weights, others = _checked(cross_gradients, updates)
        if not weights.shape[1]:  # one agent, or none with a neighbour
            return updates, state

        def aggregated(leaves: list[Array]) -> list[Array]:
            sums = [
                _weighed(g, of_others, weights, margin=margin)
                for g, of_others in zip(leaves, others, strict=True)
            ]
            programs = [[leaf] for leaf in sums] if per_leaf else [sums]
            # One for all leaves, or one for each.
            added = [_multipliers(program) for program in programs] * (len(sums) // len(programs))
            found = map(_combined, sums, added)
            return [leaf.astype(g.dtype) for leaf, g in zip(found, leaves, strict=True)]

        return map_floats_together(aggregated, updates), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


class _Sum(NamedTuple):
    """A leaf of g̃ at v = m, the gradients of which more can be added, and their weights.

    The gradients are as they came: weighed, they would take as much memory again.
    """

    least: Inexact[Array, "agents ..."]
    others: Inexact[Array, "agents neighbors ..."]
    weights: Float[Array, "agents neighbors"]


def _weighed(g: Array, others: Array, weights: Array, *, margin: float) -> _Sum:
    g, others = widened(g), widened(others)
    own = along_agents(1 - jnp.sum(weights, axis=1), g) * g  # rows of Π sum to one
    total = jnp.sum(along_agents(weights, others) * others, axis=1)
    return _Sum(own + scalar_like(margin, g) * total, others, weights)


def _combined(leaf: _Sum, added: Float[Array, "agents neighbors"]) -> Array:
    more = along_agents(added * leaf.weights, leaf.others) * leaf.others
    return leaf.least + jnp.sum(more, axis=1)


def _multipliers(leaves: list[_Sum]) -> Float[Array, "agents neighbors"]:
    """By how much the v of every agent exceed the margin, in the program of these leaves."""
    gram, linear, square = reduce(optax.tree.add, map(_products, leaves))
    return nonnegative_minimum(gram, linear, jnp.sqrt(square))


def _products(leaf: _Sum) -> tuple[Array, Array, Array]:
    """The products of a leaf's weighed gradients: others with others, with the sum; its square."""
    agents, own, other, *rest = range(leaf.others.ndim + 1)

    def product(a: Array, rows: list[int], b: Array, columns: list[int]) -> Array:
        of_each = [[agents, *axes, *rest] for axes in (rows, columns)]
        found = [agents, *rows, *columns]
        return jnp.real(
            jnp.einsum(jnp.conj(a), of_each[0], b, of_each[1], found, precision="highest")
        )

    gram = product(leaf.others, [own], leaf.others, [other])
    weights = leaf.weights.astype(gram.dtype)
    return (
        weights[:, :, None] * gram * weights[:, None, :],
        weights * product(leaf.others, [own], leaf.least, []),
        product(leaf.least, [], leaf.least, []),
    )


def _checked(cross: Any, updates: optax.Updates) -> tuple[Array, list[Array]]:
    """The weights and the floating leaves of cross gradients; raises for what they are not."""
    if cross is None:
        raise ValueError(
            "cross_gradients is None; aggregate_cross_gradients needs the gradients that "
            "neighbours compute: call tx.update(grads, state, params, cross_gradients=...) with "
            "what a function of cdjax.cross_gradients returns"
        )
    remedy = "give what a function of cdjax.cross_gradients returns for these params"
    if not isinstance(cross, CrossGradients):
        raise ValueError(f"cross_gradients is of type {type(cross).__name__}; {remedy}")
    found, wanted = jax.tree.structure(cross.gradients), jax.tree.structure(updates)
    if found != wanted:
        raise ValueError(f"cross_gradients have the structure {found}, updates {wanted}; {remedy}")
    slots, others = cross.weights.shape, []
    for (path, g), of_others in zip(
        jax.tree.leaves_with_path(updates), jax.tree.leaves(cross.gradients), strict=True
    ):
        shape = jnp.shape(of_others)
        if shape != (*slots, *jnp.shape(g)[1:]) or slots[0] != len(g):
            raise ValueError(
                f"cross_gradients: leaf '{leaf_name(path)}' has shape {shape} with weights of "
                f"shape {slots}, updates {jnp.shape(g)}; {remedy}"
            )
        if is_floating(g):
            others.append(of_others)
    return cross.weights, others
