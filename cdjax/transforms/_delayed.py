"""Agents that lag: their neighbours hear what they were some steps ago.

Tsitsiklis, Bertsekas, Athans, *Distributed asynchronous deterministic and stochastic gradient
optimization algorithms*, IEEE Trans. Automatic Control 1986: mixing with outdated values.
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
from cdjax._trees import along_agents
from cdjax._types import Mixer, Params


class DelayedState(NamedTuple):
    """State of :func:`delayed`.

    What the agents sent in the last steps: leaves of shape ``(N, steps, ...)``, those of step k in
    place k mod steps; and the algorithm's own state.
    """

    step: Int[Array, ""]
    history: Params
    inner: optax.OptState


def delayed(
    make: Callable[[Mixer], optax.GradientTransformation], mix: Mixer, delays: npt.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""A decentralized algorithm among agents that lag.

    Wherever the algorithm mixes what agents have, :math:`z_k` at step k, they hear

    .. math:: \text{mixed}^j = \Pi_{jj} \, z^j_k + \sum_{l \ne j} \Pi_{jl} \, z^l_{k - d_l}

    What agent l sends arrives :math:`d_l` steps late; before that its neighbours hear
    :math:`x^l_0`. Every agent knows its own parameters without delay. The mean over agents moves.
    Without delays it is the algorithm as it is.

    No delay keeps mixing alone from reaching consensus. With momentum inside of consensus it does:
    :func:`cdmsgd` with :math:`\mu = 0.9` on a ring of 5 diverges at a delay of one step, by a
    factor of 1.2 a step (the largest root of :math:`z^{d+1} - (\Pi_{jj} + \mu) z^d + \mu z^{d-1}
    - (\lambda - \Pi_{jj})` over the eigenvalues of Π, for Polyak's form).

    Args:
        make: from a mixer to the algorithm, such as ``functools.partial(cdjax.cdmsgd, 0.01)``. It
            has to mix once a step, outside of ``lax.cond``; what is to happen less often belongs
            into ``mix``, as of :func:`cdjax.mixing.every`.
        mix: a mixer of weighted means, ``mix(tree, step) -> tree``; whatever its weights at a
            step. (Not a median, a trimmed mean or clipped gossip.)
        delays: :math:`d_l` in steps, whole numbers of at least 0, shape (N,).

    Returns:
        An optax transformation; its ``update`` needs ``params``. Its state holds as many copies of
        the parameters as the longest delay has steps.

    Raises:
        ValueError: if a delay is negative or no whole number; from ``init``, if there are not as
            many as agents; from ``update``, if the algorithm mixes never or more than once.

    Example::

        tx = cdjax.delayed(lambda mix: cdjax.cdmsgd(0.01, mix), mix, [0, 0, 5, 0])

    Reference: Tsitsiklis et al. (1986), for the delays.
    """
    check_callable("make", make, "the algorithm of a mixer, as lambda mix: cdjax.cdsgd(0.01, mix)")
    check_mixer(mix)
    lags = np.asarray(delays)
    if lags.ndim != 1 or not np.issubdtype(lags.dtype, np.integer) or (lags < 0).any():
        raise ValueError(f"delays is {delays!r}; expected a whole number >= 0 an agent")
    num_agents, num_steps = len(lags), int(np.max(lags, initial=0))
    agents, is_late = np.arange(num_agents), lags > 0
    plain = make(mix)
    check_optimizer("make", plain)

    def init(params: Params) -> DelayedState:
        check_stacked(params, num_agents, holder="delays")
        history = jax.tree.map(
            lambda x: jnp.repeat(jnp.expand_dims(x, 1), num_steps, axis=1), params
        )
        return DelayedState(jnp.zeros([], jnp.int32), history, plain.init(params))

    def update(
        updates: optax.Updates,
        state: DelayedState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DelayedState]:
        sent: list[Params] = []

        def mix_late(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
            check_stacked(tree, num_agents, holder="delays")
            sent.append(tree)
            if not num_steps:
                return mix(tree, step)
            places = (state.step - lags) % num_steps
            heard = jax.tree.map(
                lambda past, x: jnp.where(along_agents(is_late, x), past[agents, places], x),
                state.history,
                tree,
            )
            # A mixer takes one value an agent, so the weight of its own parameters is needed to
            # exchange what it heard of itself: mix(I) is Π.
            own_weights = jnp.diagonal(mix(jnp.eye(num_agents), step))
            return jax.tree.map(
                lambda m, x, old: m + jax.vmap(jnp.multiply)(own_weights, x - old).astype(m.dtype),
                mix(heard, step),
                tree,
                heard,
            )

        inner = optax.with_extra_args_support(make(mix_late))
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        if len(sent) != 1:
            raise ValueError(f"make's algorithm mixes {len(sent)} times in a step; expected once")
        history = state.history
        if num_steps:
            history = jax.tree.map(
                lambda past, x: past.at[:, state.step % num_steps].set(x), history, sent[0]
            )
        return updates, DelayedState(state.step + 1, history, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
