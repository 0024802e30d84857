r"""CHOCO-SGD: gossip of compressed differences.

Koloskova, Stich, Jaggi, *Decentralized Stochastic Optimization and Gossip Algorithms with
Compressed Communication*, ICML 2019, arXiv:1902.00340; Koloskova, Lin, Stich, Jaggi, *Decentralized
Deep Learning with Arbitrary Communication Compression*, ICLR 2020, arXiv:1907.09356.

Parameters are too large to be sent, and compressed they would be wrong for ever. So agents send
what their neighbours do not know yet, compressed, and average what everybody knows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_compressor, check_inner, check_params, check_scalar
from cdjax._trees import displacement, map_floats, scalar_like
from cdjax._types import Mixer, OptState, Params
from cdjax.compress import Compressor, PublicCopies, publishing


class ChocoState(NamedTuple):
    """State of :func:`choco`: the step, the public copies, and the inner optimizer's state."""

    step: Int[Array, ""]
    public: PublicCopies
    inner: OptState


def choco(
    inner: optax.GradientTransformation,
    mix: Mixer,
    compressor: Compressor,
    *,
    consensus_step: float,
    known_start: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Steps with an optimizer, sends a compressed difference, and averages public copies.

    .. math::
        \hat{x} = x + u, \qquad h^+ = h + Q(\hat{x} - h), \qquad
        x^+ = \hat{x} + \gamma (\Pi - I) h^+

    The mean over the agents moves by the mean of the updates alone, whatever Q. With
    :math:`Q = I` and :math:`\gamma = 1` it is :func:`adapt_then_combine`. The more Q leaves out,
    the smaller the consensus step has to be: for Q that contracts with :math:`\delta`, in practice
    up to some :math:`\delta` times a small number; too large a one diverges.

    Args:
        inner: any optax optimizer with updates :math:`u`.
        mix: a mixer. With :func:`cdjax.mixing.exchange` the devices send each other messages only,
            and :math:`\Pi h` is summed up from them. Any other one mixes :math:`h` in one program.
        compressor: Q, such as :func:`cdjax.compress.top_k`.
        consensus_step: :math:`\gamma` in (0, 1].
        known_start: whether all agents know each other's first parameters, as when they are equal:
            then :math:`h_0 = x_0`, otherwise :math:`h_0 = 0`.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. Its
        state holds one more copy of the parameters, two with an exchange.

    Raises:
        ValueError: if the consensus step is out of its range.

    Example::

        compressor = cdjax.compress.top_k(0.01)
        tx = cdjax.choco(optax.sgd(0.1), mix, compressor, consensus_step=0.05)

    Reference: Koloskova et al. (2019), Algorithm 2 (number not verified); github.com/epfml/
    powergossip, algorithms.py, ChocoGossip.
    """
    check_inner(inner, mix)
    check_compressor(compressor)
    check_scalar("consensus_step", consensus_step, low=0, high=1, low_open=True)
    inner = optax.with_extra_args_support(inner)
    publish = publishing(mix, compressor)

    def init(params: Params) -> ChocoState:
        public = publish.init(params, known_start)
        return ChocoState(jnp.zeros([], jnp.int32), public, inner.init(params))

    def update(
        updates: optax.Updates, state: ChocoState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, ChocoState]:
        x = check_params(params, "choco", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        stepped = optax.apply_updates(x, updates)
        public = publish.update(state.public, stepped, state.step)
        pull = publish.pull(public, state.step)  # (Π − I)h⁺
        pulled = map_floats(
            lambda x, pull: x + scalar_like(consensus_step, x) * pull, stepped, pull
        )
        return displacement(pulled, x), ChocoState(state.step + 1, public, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
