r"""Mixers that are polynomials in another one: lazy, repeated, and repeated with acceleration.

Liu, Morse, *Accelerated linear iterations for distributed averaging*, Annual Reviews in Control
2011; Scaman, Bach, Bubeck, Lee, Massoulié, *Optimal algorithms for smooth and strongly convex
distributed optimization in networks*, ICML 2017, arXiv:1702.08704 (not verified): Chebyshev's
polynomials among neighbours.
"""

from __future__ import annotations

from jaxtyping import Array, Int

from cdjax._checks import check_count, check_mixer, check_scalar
from cdjax._trees import map_floats
from cdjax._types import Mixer, Params


def lazy(mix: Mixer, weight: float = 0.5) -> Mixer:
    r"""Mixes, and keeps a share of what agents had: :math:`\omega I + (1 - \omega) \Pi`.

    At :math:`\omega = 1/2` no eigenvalue is negative, whatever Π.

    Args:
        mix: the mixer Π.
        weight: :math:`\omega` in [0, 1].

    Returns:
        A mixer; the step goes to ``mix``.

    Raises:
        ValueError: if the weight is out of its range.

    Example: ``mixed = cdjax.mixing.lazy(mix)(params)``
    """
    check_mixer(mix)
    check_scalar("weight", weight, low=0, high=1)

    def mix_lazily(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        # Differences, so that agents that agree stay as they are.
        return map_floats(lambda x, m: x + (1 - weight) * (m - x), tree, _mixed(mix, tree, step))

    return mix_lazily


def repeated(mix: Mixer, rounds: int) -> Mixer:
    r"""Mixes several times per step: :math:`\Pi^\tau`.

    Args:
        mix: the mixer Π. One that changes with the step is given ``rounds * step + r`` in round r.
        rounds: τ, at least 1.

    Returns:
        A mixer, which sends ``rounds`` messages to every neighbour.

    Raises:
        ValueError: if there are less than one round.

    Example: ``mixed = cdjax.mixing.repeated(mix, 3)(params)``
    """
    check_mixer(mix)
    check_count("rounds", rounds, low=1)

    def mix_repeatedly(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        for number in range(rounds):
            tree = _mixed(mix, tree, step, rounds=rounds, number=number)
        return tree

    return mix_repeatedly


def chebyshev(mix: Mixer, rounds: int, *, sigma: float) -> Mixer:
    r"""Mixes several times per step, with the polynomial that leaves the least disagreement.

    .. math::
        P_\tau(\Pi) = T_\tau(\Pi / \sigma) / T_\tau(1 / \sigma), \qquad
        x_1 = \Pi x_0, \quad x_{r+1} = x_{r-1} + w_r (\Pi x_r - x_{r-1})

    with Chebyshev's polynomials :math:`T_\tau`, :math:`w_r = 2 / (2 - \sigma \rho_{r-1})`,
    :math:`\rho_r = \sigma / (2 - \sigma \rho_{r-1})` and :math:`\rho_0 = \sigma`. The disagreement
    shrinks by :math:`1 / T_\tau(1 / \sigma)` at least; :math:`\tau` plain rounds shrink it by
    :math:`\sigma^\tau`. For σ near 1 this is as good as the square of as many rounds.

    Args:
        mix: a fixed mixer of a symmetric Π.
        rounds: τ, at least 1.
        sigma: σ = max(abs(λ2), abs(λ_N)) in [0, 1), ``1 - topology.spectral_gap``. Too small a
            value makes some disagreement grow; one that is too large costs speed.

    Returns:
        A mixer, which sends ``rounds`` messages to every neighbour.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``mix = cdjax.mixing.chebyshev(mix, 3, sigma=1 - topology.spectral_gap)``

    Reference: Scaman et al. (2017), Algorithm 2 (not verified).
    """
    check_mixer(mix)
    check_count("rounds", rounds, low=1)
    check_scalar("sigma", sigma, low=0, high=1, high_open=True)
    weights, rho = [], float(sigma)
    for _ in range(rounds - 1):
        weights.append(2 / (2 - sigma * rho))
        rho = sigma / (2 - sigma * rho)

    def mix_repeatedly(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        before, now = tree, _mixed(mix, tree, step, rounds=rounds)
        for number, weight in enumerate(weights, start=1):
            mixed = _mixed(mix, now, step, rounds=rounds, number=number)
            # Weights of more than 1: beyond what a mix alone would do.
            after = map_floats(lambda x, m, w=weight: x + w * (m - x), before, mixed)
            before, now = now, after
        return now

    return mix_repeatedly


def _mixed(
    mix: Mixer,
    tree: Params,
    step: int | Int[Array, ""] | None,
    *,
    rounds: int = 1,
    number: int = 0,
) -> Params:
    """One of the rounds of a step; without a step the mixer says whether it needs one."""
    return mix(tree) if step is None else mix(tree, rounds * step + number)
