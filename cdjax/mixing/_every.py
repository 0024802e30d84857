"""A mixer that mixes every few steps."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int

from cdjax._checks import check_count, check_mixer, check_step
from cdjax._types import Mixer, Params


def every(period: int, mix: Mixer) -> Mixer:
    r"""Mixes at the last of every ``period`` steps and returns the tree unchanged at the others.

    .. math:: \Pi_k = \Pi \text{ if } \tau \mid k + 1, \text{ else } I

    The inner mixer is given the round, ``step // period``, in place of the step: a cycle of mixers
    advances by one per mix, whatever the period.

    Args:
        period: τ, in steps, at least 1.
        mix: the mixer.

    Returns:
        A mixer that acts at the steps τ − 1, 2τ − 1, ... and needs the step; for τ = 1, ``mix``.

    Raises:
        ValueError: if the period is below 1.

    Example: ``mixed = cdjax.mixing.every(10, mix)(params, 9)``
    """
    check_count("period", period, low=1)
    check_mixer(mix)
    if period == 1:
        return mix

    def mix_at_last_step(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step = check_step(step, "every")
        is_last = (step + 1) % period == 0
        return jax.lax.cond(is_last, mix, lambda tree, step: tree, tree, step // period)

    return mix_at_last_step
