r"""Local exact diffusion: local steps without bias, one message per round.

Alghunaim, *Local Exact-Diffusion for Decentralized Optimization and Learning*, 2023,
arXiv:2302.00620 (the paper's text not verified; the rule is that of
github.com/team-decent/decent-bench, _led.py).

There :math:`\phi \leftarrow \phi - \alpha g(\phi) - \beta y` and
:math:`y \leftarrow y + \phi - \Pi \phi`. Here the correction is added to the gradient,
:math:`c = \beta y / \alpha`: the same with ``optax.sgd(α)``, and right for optimizers that rescale
gradients, which would weigh the loss and the correction differently.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_count, check_inner, check_params, check_scalar
from cdjax._stored import stored, written_over
from cdjax._trees import displacement, map_floats
from cdjax._types import Mixer, OptState, Params


class LEDState(NamedTuple):
    """State of :func:`led`: the step, the correction c, and the inner optimizer's state."""

    step: Int[Array, ""]
    correction: Params
    inner: OptState


def led(
    inner: optax.GradientTransformation, mix: Mixer, *, period: int, gain: float
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps without bias: gradients corrected by how far agents were apart.

    .. math::
        \phi \leftarrow \phi + u(g(\phi) + c) \quad \tau \text{ times from } x, \qquad
        x^+ = \Pi \phi, \qquad c^+ = c + \kappa (\phi - \Pi \phi)

    The corrections sum to zero over agents, and all agents end at the optimum of the mean loss. One
    model-sized message is sent per round, half of :func:`kgt`'s. With ``optax.sgd(α)``,
    :math:`\tau = 1` and :math:`\kappa = 1 / \alpha` it is exact diffusion.

    Args:
        inner: any optax optimizer with updates u, each agent's own.
        mix: a mixer whose columns sum to one, given the number of the round in place of the step.
        period: τ, the steps of a round, at least 1.
        gain: :math:`\kappa > 0`, in gradients per parameter: the paper's :math:`\beta / \alpha`.
            After ``optax.sgd(α)`` see :func:`cdjax.theory.led_gain_limit` for what is stable.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. Its
        state holds one copy of the parameters beside the inner optimizer's.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.led(optax.sgd(0.05), mix, period=10, gain=2.0)``

    Reference: Alghunaim (2023), Algorithm 1, with y = 0 at the start (not verified).
    """
    check_inner(inner, mix)
    check_count("period", period, low=1)
    check_scalar("gain", gain, low=0, low_open=True)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> LEDState:
        correction = optax.tree.zeros_like(params)
        return LEDState(jnp.zeros([], jnp.int32), correction, inner.init(params))

    def update(
        updates: optax.Updates, state: LEDState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, LEDState]:
        x = check_params(params, "led", updates)
        corrected = map_floats(lambda g, c: g + c, updates, state.correction)
        updates, inner_state = inner.update(corrected, state.inner, x, **extra_args)

        def exchange(updates: Params, correction: Params) -> tuple[Params, Params]:
            step_from = lambda updates, x: optax.apply_updates(x, updates)  # noqa: E731
            stepped = written_over(step_from, updates, x, state.step)
            mixed = stored(mix(stepped, state.step // period), state.step)
            apart = displacement(stepped, mixed)  # φ − Πφ
            correction = map_floats(lambda c, d: c + gain * d, correction, apart)
            # The updates take φ's memory, so that they wait for the correction, which reads it.
            mixed, correction = stored((mixed, correction), state.step)
            moved = jax.tree.map(lambda d, u: d.astype(u.dtype), displacement(mixed, x), updates)
            return moved, correction

        is_last = (state.step + 1) % period == 0
        updates, correction = jax.lax.cond(
            is_last, exchange, lambda *unchanged: unchanged, updates, state.correction
        )
        return updates, LEDState(state.step + 1, correction, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
