r"""K-GT: local steps whose drift is corrected by tracked gradient sums.

Liu, Lin, Koloskova, Stich, *Decentralized Gradient Tracking with Local Steps*, 2023,
arXiv:2301.01313 (the paper's text not verified; the rule is that of
github.com/team-decent/decent-bench, _kgt.py).

After K steps of ``optax.sgd(α)`` from x the mean of the corrected gradients is
:math:`z = (x - y_K) / (K \alpha)`. Summed up as they come, they have the units of a gradient
whatever the inner optimizer makes of them, and need no step size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_count, check_inner, check_params, check_scalar
from cdjax._trees import displacement, map_floats
from cdjax._types import Mixer, OptState, Params


class KGTState(NamedTuple):
    """State of :func:`kgt`; ``total`` sums g + c over the round so far, ``start`` is its x."""

    step: Int[Array, ""]
    correction: Params
    total: Params
    start: Params
    inner: OptState


def kgt(
    inner: optax.GradientTransformation,
    mix: Mixer,
    *,
    period: int,
    learning_rate: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps without bias: gradients corrected by what agents know of each other's.

    .. math::
        y \leftarrow y + u(g(y) + c) \quad K \text{ times from } x, \qquad
        z = \tfrac{1}{K} \textstyle\sum (g + c), \qquad
        c^+ = c - z + \Pi z, \qquad x^+ = \Pi (x + \eta (y - x))

    The corrections sum to zero over agents, and in the limit make up for what sets their gradients
    apart: all agents end at the optimum of the mean loss, with any number of local steps, where
    :func:`outer` and :func:`fedavg` do not. The inner optimizer sees corrected gradients, so this
    holds for adaptive ones (Adam) as well. Two model-sized messages are sent per round.

    Args:
        inner: any optax optimizer with updates u, each agent's own.
        mix: a mixer whose columns sum to one, given the number of the round in place of the step.
        period: K, the steps of a round, at least 1.
        learning_rate: :math:`\eta`, the share of the way that agents go, above 0; values below 1
            steady rounds of many steps.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. Its
        state holds three copies of the parameters beside the inner optimizer's.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.kgt(optax.adam(1e-3), mix, period=20)``

    Reference: Liu et al. (2023), Algorithm 1, with c = 0 at the start (not verified).
    """
    check_inner(inner, mix)
    check_count("period", period, low=1)
    check_scalar("learning_rate", learning_rate, low=0, low_open=True)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> KGTState:
        zeros = lambda: optax.tree.zeros_like(params)  # noqa: E731
        start = jax.tree.map(jnp.copy, params)  # so that params can be donated beside it
        return KGTState(jnp.zeros([], jnp.int32), zeros(), zeros(), start, inner.init(params))

    def update(
        updates: optax.Updates, state: KGTState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, KGTState]:
        y = check_params(params, "kgt", updates)
        corrected = map_floats(lambda g, c: g + c, updates, state.correction)
        total = map_floats(lambda t, g: t + g, state.total, corrected)
        updates, inner_state = inner.update(corrected, state.inner, y, **extra_args)

        def exchange(updates: Params, total: Params) -> tuple[Params, Params, Params, Params]:
            z = map_floats(lambda t: t / period, total)
            stepped = optax.apply_updates(y, updates)
            sent = map_floats(lambda x, y: x + learning_rate * (y - x), state.start, stepped)
            x, mixed = mix((sent, z), state.step // period)
            correction = map_floats(
                lambda c, pull: c + pull, state.correction, displacement(mixed, z)
            )
            moved = jax.tree.map(lambda d, u: d.astype(u.dtype), displacement(x, y), updates)
            return moved, correction, optax.tree.zeros_like(total), x

        def go_on(updates: Params, total: Params) -> tuple[Params, Params, Params, Params]:
            return updates, state.correction, total, state.start

        is_last = (state.step + 1) % period == 0
        updates, correction, total, start = jax.lax.cond(is_last, exchange, go_on, updates, total)
        return updates, KGTState(state.step + 1, correction, total, start, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
