r"""SUDA: the stochastic unified decentralized algorithm, of which four others are rows.

Alghunaim, Yuan, *A Unified and Refined Convergence Analysis for Non-Convex Decentralized Learning*,
IEEE Trans. Signal Processing 2022, arXiv:2110.09993 (not verified).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_choice, check_mixer, check_params, check_per_agent
from cdjax._stored import stored, written_over
from cdjax._trees import displacement, map_floats
from cdjax._types import AgentScalarOrSchedule, Mixer, Params
from cdjax.mixing import lazy
from cdjax.transforms._descent import descent
from cdjax.transforms._extra import zero_sums

SUDAForm: TypeAlias = Literal["exact-diffusion", "extra", "atc-tracking", "diging"]
_FromMixer: TypeAlias = Callable[[Mixer], Mixer]


class SUDAState(NamedTuple):
    """State of :func:`suda`: the step and the dual variable z, which sums to zero."""

    step: Int[Array, ""]
    dual: Params


class _Row(NamedTuple):
    """The mixers A, C and I − B² of an algorithm, each made of that of Π.

    With ``c_after_mixing``, C is ``c`` of what Π has mixed.
    """

    a: _FromMixer
    c: _FromMixer
    one_minus_b_squared: _FromMixer
    c_after_mixing: bool = False


def suda(
    learning_rate: AgentScalarOrSchedule, mix: Mixer, *, form: SUDAForm = "exact-diffusion"
) -> optax.GradientTransformation:
    r"""The primal-dual form that bias-corrected algorithms have in common.

    .. math:: x^+ = A (C x - \alpha g(x)) - z, \qquad z^+ = z + B^2 x^+, \qquad z_0 = 0

    =================  ====================  =====================  ===========
    form               A                     B²                     C
    =================  ====================  =====================  ===========
    exact-diffusion    (I + Π)/2             (I − Π)/2              I
    extra              I                     (I − Π)/2              (I + Π)/2
    atc-tracking       Π²                    (I − Π)²               I
    diging             I                     (I − Π)²               Π²
    =================  ====================  =====================  ===========

    From a start in consensus these are :func:`exact_diffusion`, :func:`extra` and
    :func:`gradient_tracking` in the forms ``atc`` and ``diging``. Those send less; this is the
    form of the theory, with one set of rates for all.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a fixed and symmetric Π.
        form: the row of the table.

    Returns:
        An optax transformation; its ``update`` needs ``params``.

    Raises:
        ValueError: if the learning rate is negative or not finite, or there is no such form.

    Example: ``tx = cdjax.suda(0.01, mix, form="extra")``

    Reference: Alghunaim & Yuan (2022), eq. 6 and Table 1 (not verified).
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_choice("form", form, _FORMS)
    row = _FORMS[form]
    a, c, one_minus_b_squared = row.a(mix), row.c(mix), row.one_minus_b_squared(mix)
    descend = descent(learning_rate)

    def init(params: Params) -> tuple[SUDAState, optax.OptState]:
        dual = zero_sums(params)
        return SUDAState(jnp.zeros([], jnp.int32), dual), descend.init(params)

    def update(
        updates: optax.Updates,
        state: tuple[SUDAState, optax.OptState],
        params: Params | None = None,
    ) -> tuple[optax.Updates, tuple[SUDAState, optax.OptState]]:
        x = check_params(params, "suda", updates)
        (step, dual), descent_state = state
        # All agents read each other's Πx, but each its own gradient.
        start = stored(mix(x, step), step) if row.c_after_mixing else x

        def stepped_from(gradient: Params, others: tuple[Params, Any, Any]) -> Params:
            start, descent_state, step = others
            updates, _ = descend.update(gradient, descent_state, start)
            return optax.apply_updates(c(start, step), updates)

        stepped = written_over(stepped_from, updates, (start, descent_state, step), step)
        _, descent_state = descend.update(updates, descent_state, x)
        after = stored(map_floats(lambda m, z: m - z, a(stepped, step), dual), step)
        pull = displacement(after, one_minus_b_squared(after, step))  # B²x
        dual = map_floats(lambda z, p: z + p, dual, pull)
        return displacement(after, x), (SUDAState(step + 1, dual), descent_state)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _identity(mix: Mixer) -> Mixer:
    return lambda tree, step=0: tree


def _same(mix: Mixer) -> Mixer:
    return mix


def _squared(mix: Mixer) -> Mixer:
    """Π², with both factors at the step's own Π."""
    return lambda tree, step=0: mix(stored(mix(tree, step), step), step)


def _difference_squared(mix: Mixer) -> Mixer:
    """I − (I − Π)² = 2Π − Π²."""

    def mix_difference(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        once = stored(mix(tree, step), step)
        return map_floats(lambda m, mm: m + (m - mm), once, mix(once, step))

    return mix_difference


_FORMS = {
    "exact-diffusion": _Row(a=lazy, c=_identity, one_minus_b_squared=lazy),
    "extra": _Row(a=_identity, c=lazy, one_minus_b_squared=lazy),
    "atc-tracking": _Row(a=_squared, c=_identity, one_minus_b_squared=_difference_squared),
    "diging": _Row(
        a=_identity,
        c=_same,
        one_minus_b_squared=_difference_squared,
        c_after_mixing=True,
    ),
}
