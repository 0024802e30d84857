"""Consensus with agents that lag: their neighbours hear what they were some steps ago.

Tsitsiklis, Bertsekas, Athans, *Distributed asynchronous deterministic and stochastic gradient
optimization algorithms*, IEEE Trans. Automatic Control 1986: mixing with outdated values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from cdjax._checks import check_mixer, check_params, check_stacked
from cdjax._types import Mixer, Params

if TYPE_CHECKING:
    from jaxtyping import Array, Int


class DelayedConsensusState(NamedTuple):
    """State of :func:`delayed_consensus`.

    The parameters of the last steps: leaves of shape ``(N, steps, ...)``, those of step k in place
    k mod steps.
    """

    step: Int[Array, ""]
    history: Params


def delayed_consensus(mix: Mixer, delays: npt.ArrayLike) -> optax.GradientTransformation:
    r"""Consensus, eq. 5 of the paper, with what lagging agents were some steps ago.

    .. math:: x^{j+} = \Pi_{jj} \, x^j_k + \sum_{l \ne j} \Pi_{jl} \, x^l_{k - d_l} + u^j

    What agent l sends arrives :math:`d_l` steps late; before that its neighbours hear
    :math:`x^l_0`. Every agent knows its own parameters without delay. The mean over agents moves.
    Without delays it is :func:`consensus`; chained after ``optax.sgd``, CDSGD.

    Args:
        mix: a mixer of weighted means, ``mix(tree, step) -> tree``; whatever its weights at a
            step. (Not a median, a trimmed mean or clipped gossip.)
        delays: :math:`d_l` in steps, whole numbers of at least 0, shape (N,).

    Returns:
        An optax transformation, to go last in a chain; its ``update`` needs ``params``. Its state
        holds as many copies of the parameters as the longest delay has steps.

    Raises:
        ValueError: if a delay is negative or no whole number; from ``init``, if there are not as
            many as agents.

    Example::

        tx = optax.chain(optax.sgd(0.01), cdjax.delayed_consensus(mix, [0, 0, 5, 0]))

    Reference: Jiang et al. (2017), eq. 5; Tsitsiklis et al. (1986), eq. 2.1, for the delays.
    """
    check_mixer(mix)
    lags = np.asarray(delays)
    if lags.ndim != 1 or not np.issubdtype(lags.dtype, np.integer) or (lags < 0).any():
        raise ValueError(f"delays is {delays!r}; expected a whole number >= 0 an agent")
    num_agents, num_steps = len(lags), int(np.max(lags, initial=0))
    agents, is_late = np.arange(num_agents), lags > 0

    def init(params: Params) -> DelayedConsensusState:
        check_stacked(params, num_agents, holder="delays")
        history = jax.tree.map(
            lambda x: jnp.repeat(jnp.expand_dims(x, 1), num_steps, axis=1), params
        )
        return DelayedConsensusState(jnp.zeros([], jnp.int32), history)

    def update(
        updates: optax.Updates, state: DelayedConsensusState, params: Params | None = None
    ) -> tuple[optax.Updates, DelayedConsensusState]:
        x = check_params(params, "delayed_consensus", updates)
        check_stacked(x, num_agents, holder="delays")
        if not num_steps:
            mixed, history = mix(x, state.step), state.history
        else:
            places = (state.step - lags) % num_steps
            heard = jax.tree.map(
                lambda past, x: jnp.where(_lifted(is_late, x), past[agents, places], x),
                state.history,
                x,
            )
            # A mixer takes one value an agent, so the weight of its own parameters is needed to
            # exchange what it heard of itself: mix(I) is Π.
            own_weights = jnp.diagonal(mix(jnp.eye(num_agents), state.step))
            mixed = jax.tree.map(
                lambda m, x, old: m + (_lifted(own_weights, x) * (x - old)).astype(m.dtype),
                mix(heard, state.step),
                x,
                heard,
            )
            history = jax.tree.map(
                lambda past, x: past.at[:, state.step % num_steps].set(x), state.history, x
            )
        updates = optax.tree.add(updates, optax.tree.sub(mixed, x))
        return updates, DelayedConsensusState(state.step + 1, history)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _lifted(numbers: Array | np.ndarray, x: Array) -> Array:
    """One number an agent, in as many axes as x."""
    return jnp.asarray(numbers).reshape(-1, *[1] * (x.ndim - 1))
