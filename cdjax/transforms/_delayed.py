r"""Agents that lag: their neighbours receive what they sent some steps ago.

Tsitsiklis, Bertsekas, Athans, *Distributed asynchronous deterministic and stochastic gradient
optimization algorithms*, IEEE Trans. Automatic Control 1986: mixing with outdated values.

What is sent is what the algorithm hands to its mixer, :math:`z_k` at step k: the parameters in
CDSGD, the adapted parameters in adapt-then-combine, the iterate :math:`x = y - \mu v` in CDMSGD.
The neighbours of agent l hold :math:`h^l = z^l_{k - d_l}`, while l has its own in time:

.. math::
    \text{mixed}^j = \Pi_{jj} z^j + \sum_{l \ne j} \Pi_{jl} h^l = (\Pi h)^j + \Pi_{jj} (z^j - h^j) .

The right-hand side is exact whatever the weights of the step are. It is the form to compute,
because a mixer takes one value per agent: it cannot give agent j the latest :math:`z^j` and j's
neighbours a late one. The diagonal of Π is that of :math:`\Pi I`, the mixed identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_callable, check_mixer, check_optimizer, check_stacked
from cdjax._trees import along_agents, displacement, is_floating, map_floats, widened
from cdjax._types import Mixer, OptState, Params


class DelayedState(NamedTuple):
    """State of :func:`delayed`: the step k, what was sent lately, and the algorithm's own state.

    The history is a ring buffer as long as the longest delay d: leaves of shape ``(N, d, ...)``,
    with those of step k at index k mod d.
    """

    step: Int[Array, ""]
    history: Params
    inner: OptState


def delayed(
    make: Callable[[Mixer], optax.GradientTransformation], mix: Mixer, *, delays: npt.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""A decentralized algorithm among agents that lag.

    Wherever the algorithm mixes what agents have, :math:`z_k` at step k, they receive

    .. math:: \text{mixed}^j = \Pi_{jj} \, z^j_k + \sum_{l \ne j} \Pi_{jl} \, z^l_{k - d_l}

    What agent l sends arrives :math:`d_l` steps late; until its first message arrives, its
    neighbours use :math:`x^l_0`. Every agent knows its own parameters without delay. The mean over
    agents is not conserved. Without delays the algorithm is unchanged.

    No delay keeps plain mixing from reaching consensus. With momentum inside of consensus it does:
    :func:`cdmsgd` with :math:`\mu = 0.9` on a ring of 5 diverges at a delay of one step, by a
    factor of 1.2 per step (the largest root of :math:`z^{d+1} - (\Pi_{jj} + \mu) z^d + \mu z^{d-1}
    - (\lambda - \Pi_{jj})` over the eigenvalues of Π, for Polyak's form).

    Args:
        make: from a mixer to the algorithm, such as ``functools.partial(cdjax.cdmsgd, 0.01)``. The
            algorithm must mix exactly once per step, outside of ``lax.cond``; to mix less often,
            wrap ``mix`` in :func:`cdjax.mixing.every`.
        mix: a mixer of weighted means, ``mix(tree, step) -> tree``; its weights may change from
            step to step. (Not a median, a trimmed mean or clipped gossip.)
        delays: :math:`d_l` in steps, whole numbers of at least 0, shape (N,).

    Returns:
        An optax transformation; its ``update`` needs ``params``. Its state holds as many copies of
        the parameters as the longest delay has steps.

    Raises:
        ValueError: if the delays are not N whole numbers of at least 0; from ``update``, if the
            algorithm does not mix exactly once.

    Example: ``tx = cdjax.delayed(lambda mix: cdjax.cdsgd(0.01, mix), mix, delays=np.arange(8))``

    Reference: Tsitsiklis et al. (1986), for the delays.
    """
    check_callable("make", make, "the algorithm of a mixer, as lambda mix: cdjax.cdsgd(0.01, mix)")
    check_mixer(mix)
    lags = np.asarray(delays)
    if lags.ndim != 1 or not np.issubdtype(lags.dtype, np.integer) or (lags < 0).any():
        raise ValueError(f"delays is {delays!r}; expected one whole number >= 0 per agent")
    plain = make(mix)
    check_optimizer("make", plain)

    def init(params: Params) -> DelayedState:
        check_stacked(params, len(lags), holder="delays")
        step, longest = jnp.zeros([], jnp.int32), int(np.max(lags, initial=0))
        history = jax.tree.map(lambda x: jnp.repeat(x[:, None], longest, axis=1), params)
        return DelayedState(step, history, plain.init(params))

    def update(
        updates: optax.Updates, state: DelayedState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, DelayedState]:
        sent: list[Params] = []
        received: list[Params] = []

        def mix_late(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
            check_stacked(tree, len(lags), holder="delays")
            sent.append(tree)
            if not lags.any():
                return mix(tree, step)
            received.append(jax.lax.optimization_barrier(_received(tree, state, lags)))
            return _mixed(mix, tree, received[-1], jnp.eye(len(lags)), step)

        # An algorithm closes over its mixer, and this mixer over the history of this step; so the
        # algorithm is made again, in Python, whenever JAX traces a step. Its state does not depend
        # on the mixer, which is why `init` can take that of the plain one.
        inner = optax.with_extra_args_support(make(mix_late))
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        # A second mix would need a history of its own, and without one there is nothing to delay.
        # Each call of the mixer runs in Python once per trace, so counting there is counting all.
        if len(sent) != 1:
            raise ValueError(f"make's algorithm mixes {len(sent)} times per step; expected once")
        history = _remembered(state, sent[0], received[0]) if received else state.history
        return updates, DelayedState(state.step + 1, history, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _received(tree: Params, state: DelayedState, lags: np.ndarray) -> Params:
    """What the neighbours of each agent hold of it, h: late values, or ``tree`` without delay."""
    agents, is_late = np.arange(len(lags)), lags > 0

    def leaf(past: Array, x: Array) -> Array:
        if not is_floating(x):
            return x
        # The longest delay reads the place that this step's values are about to take.
        places = (state.step - jnp.asarray(lags, state.step.dtype)) % past.shape[1]
        return jnp.where(along_agents(is_late, x), past[agents, places], x)

    return jax.tree.map(leaf, state.history, tree)


def _mixed(
    mix: Mixer, tree: Params, received: Params, identity: Array, step: int | Int[Array, ""]
) -> Params:
    """(Πh)^j + Π_jj (z^j − h^j)."""
    # The identity is mixed at every step: the weights may be random or change with the step, and
    # nothing distinguishes such a mixer from a constant one. It costs as much as N more parameters
    # per agent, and travels in the same exchange as the parameters.
    mixed, matrix = mix((received, identity), step)
    own_weights = jnp.diagonal(matrix)

    return map_floats(
        lambda m, missed: m + along_agents(own_weights, m) * widened(missed),
        mixed,
        displacement(tree, received),
    )


def _remembered(state: DelayedState, sent: Params, received: Params) -> Params:
    """The history after this step: what was sent takes the place of what has become too old."""

    def leaf(past: Array, x: Array, late: Array) -> Array:
        # Never `late`, but XLA cannot know that: so the history is written after it was read, and
        # in place. Without an order XLA reads a second copy of all of it.
        x = jnp.where(state.step < 0, late, x)
        return past.at[:, state.step % past.shape[1]].set(x)

    return jax.tree.map(leaf, state.history, sent, received)
