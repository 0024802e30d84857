"""The three orders in which any optax optimizer becomes a decentralized one.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880: mixing and gradient both at ``x`` (:func:`consensus`).

Chen, Sayed, *Diffusion Adaptation Strategies for Distributed Optimization and Learning over
Networks*, IEEE Trans. Signal Processing 2012, arXiv:1111.0034: first adapt, then combine
(:func:`adapt_then_combine`), and the other way round (:func:`combine_then_adapt`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from cdjax._checks import check_arrays, check_inner, check_mixer, check_params
from cdjax._stored import stored
from cdjax._trees import along_agents, displacement
from cdjax._types import Mixer, OptState, Params


class ConsensusState(NamedTuple):
    """State of :func:`consensus`: the step, which time-varying mixers read."""

    step: Int[Array, ""]


class AdaptThenCombineState(NamedTuple):
    """State of :func:`adapt_then_combine`: the step and the inner optimizer's state."""

    step: Int[Array, ""]
    inner: OptState


class CombineThenAdaptState(NamedTuple):
    """State of :func:`combine_then_adapt`: step, the last displacement, the optimizer's state."""

    step: Int[Array, ""]
    displacement: Params
    inner: OptState


def consensus(mix: Mixer) -> optax.GradientTransformation:
    r"""Adds the consensus displacement :math:`\Pi x - x` to the updates.

    Chained after an optimizer with updates :math:`u` it gives :math:`x^+ = \Pi x + u`; after
    ``optax.sgd`` that is CDSGD: gradient and mixing both at ``x``. It goes last in a chain, after
    whatever scales by the learning rate.

    After ``optax.sgd(learning_rate, momentum=...)`` the momentum lies *outside* of consensus: its
    buffer holds no consensus displacement, and the iterates end at CDSGD's fixed point for the step
    :math:`\alpha / (1 - \mu)`, with a :math:`1 / (1 - \mu)` larger disagreement. For momentum
    inside of consensus see :func:`cdmsgd`.

    Args:
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.

    Returns:
        An optax transformation; its ``update`` needs ``params``.

    Example: ``tx = optax.chain(optax.adamw(1e-3), cdjax.consensus(mix))``

    Reference: Jiang et al. (2017), eq. 5.
    """
    check_mixer(mix)

    def init(params: Params) -> ConsensusState:
        check_arrays(params)
        return ConsensusState(jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates, state: ConsensusState, params: Params | None = None
    ) -> tuple[optax.Updates, ConsensusState]:
        x = check_params(params, "consensus", updates)
        pull = displacement(mix(x, state.step), x)  # Πx − x
        return optax.tree.add(updates, pull), ConsensusState(state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def adapt_then_combine(
    inner: optax.GradientTransformation, mix: Mixer
) -> optax.GradientTransformationExtraArgs:
    r"""Steps with an optimizer first and mixes the result: :math:`x^+ = \Pi (x + u)`.

    With ``optax.sgd`` as the inner optimizer this is adapt-then-combine diffusion, and D-PSGD as it
    is usually coded. Its fixed point differs from that of :func:`consensus`.

    Args:
        inner: any optax optimizer with updates :math:`u`.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. With
        ``active``, truth values of shape (N,), only those agents adapt before all combine.

    Example: ``tx = cdjax.adapt_then_combine(optax.adamw(1e-3), mix)``

    Reference: Chen & Sayed (2012), eqs. 16 and 17.
    """
    check_inner(inner, mix)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> AdaptThenCombineState:
        check_arrays(params)
        return AdaptThenCombineState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(
        updates: optax.Updates,
        state: AdaptThenCombineState,
        params: Params | None = None,
        active: Bool[Array, " agents"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AdaptThenCombineState]:
        x = check_params(params, "adapt_then_combine", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        if active is not None:
            updates = jax.tree.map(lambda u: jnp.where(along_agents(active, u), u, 0), updates)
        combined = mix(stored(optax.apply_updates(x, updates), state.step), state.step)  # Π(x + u)
        return displacement(combined, x), AdaptThenCombineState(state.step + 1, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def combine_then_adapt(
    inner: optax.GradientTransformation, mix: Mixer
) -> optax.GradientTransformationExtraArgs:
    r"""Mixes first and steps from there: :math:`x^+ = \Pi x + u(\Pi x)`.

    With ``optax.sgd`` as the inner optimizer this is combine-then-adapt diffusion,
    :math:`x^+ = \Pi x - \alpha g(\Pi x)`. Users take gradients at the parameters they hold, so
    those are the mixed ones, :math:`y = \Pi x`; get :math:`x` for evaluation from
    :func:`eval_params`. The exchange of a step is made at the end of the one before. Agents that
    start unequal take their first gradient where they start: that is :math:`y_0`.

    As :math:`y^+ = \Pi (y + u(y))`, what is stored is the sequence of :func:`adapt_then_combine`
    where Π stays the same, and what is evaluated differs from it by one exchange.

    Args:
        inner: any optax optimizer with updates :math:`u`.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments.

    Example: ``tx = cdjax.combine_then_adapt(optax.adamw(1e-3), mix)``

    Reference: Chen & Sayed (2012), eqs. 14 and 15 (not verified).
    """
    check_inner(inner, mix)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> CombineThenAdaptState:
        zeros = optax.tree.zeros_like(params)
        return CombineThenAdaptState(jnp.zeros([], jnp.int32), zeros, inner.init(params))

    def update(
        updates: optax.Updates,
        state: CombineThenAdaptState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CombineThenAdaptState]:
        y, next_step = check_params(params, "combine_then_adapt", updates), state.step + 1
        updates, inner_state = inner.update(updates, state.inner, y, **extra_args)
        x = stored(optax.apply_updates(y, updates), next_step)
        # Of the next step, whose gradients are taken there.
        mixed = stored(mix(x, next_step), next_step)
        state = CombineThenAdaptState(next_step, displacement(mixed, x), inner_state)
        return displacement(mixed, y), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
