"""Consensus with all neighbours in every step: CDSGD, CDMSGD, and other orders of step and mix."""

from __future__ import annotations

from typing import Any

from experiments.run.algorithms.row import (
    MIXES,
    Algorithm,
    Setting,
    combines,
    overlaps,
    sgd,
    to_neighbors,
    twice,
)
from experiments.run.lazy import LazyModule

cdjax, mixing, network = (LazyModule(f"cdjax{name}") for name in ("", ".mixing", ".network"))
optax = LazyModule("optax")


def _cdsgd(run: Setting) -> optax.GradientTransformation:
    return cdjax.cdsgd(run.alpha, run.mix)


def _cdmsgd(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.cdmsgd(run.alpha, run.mix, momentum=momentum)


def _cdmsgd_polyak(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.cdmsgd(run.alpha, run.mix, momentum=momentum, nesterov=False)


def _cdmsgd_released(run: Setting, *, momentum: float = 0.95) -> optax.GradientTransformation:
    return optax.chain(sgd(run.alpha, momentum), cdjax.consensus(run.mix))


def _atc(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.adapt_then_combine(sgd(run.alpha, momentum), run.mix)


def _cta(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.combine_then_adapt(sgd(run.alpha, momentum), run.mix)


def _icdsgd(
    run: Setting, *, rounds: int = 2, accelerated: bool = False
) -> optax.GradientTransformation:
    if accelerated:
        mix = mixing.chebyshev(run.mix, rounds, sigma=1 - run.topology.spectral_gap)
        return cdjax.cdsgd(run.alpha, mix)
    return cdjax.icdsgd(run.alpha, run.mix, rounds=rounds)


def _gcdsgd(run: Setting, *, own_weight: float = 0.5) -> optax.GradientTransformation:
    return cdjax.gcdsgd(run.alpha, run.mix, own_weight=own_weight)


def _cga(
    run: Setting, *, momentum: float = 0.9, margin: float = 0.5
) -> optax.GradientTransformation:
    mix = mixing.auto(run.topology)
    return cdjax.cga(run.alpha, mix, momentum=momentum, margin=margin)


def _combines_first(run: Setting, **_: Any) -> network.Order:
    return network.combine_then_adapt()


def _sends_back(run: Setting, **_: Any) -> network.Order:
    """Models to the neighbours, then their gradients back."""
    return network.Order(before=("links",), after=("links",))


_JIANG = "Jiang, Balu, Hegde, Sarkar (2017)"
_TRADE_OFFS = "Jiang, Balu, Hegde, Sarkar (2018)"

NEIGHBORS: dict[str, Algorithm] = {
    "cdmsgd": Algorithm(
        _cdmsgd, title="CDMSGD, Nesterov momentum", reference=f"{_JIANG}, Algorithm 3",
        order=overlaps, recursion="nesterov", **MIXES,
    ),
    "cdmsgd-polyak": Algorithm(
        _cdmsgd_polyak, title="CDMSGD, Polyak momentum", reference=f"{_JIANG}, Algorithm 2",
        order=overlaps, recursion="polyak", **MIXES,
    ),
    "cdsgd": Algorithm(
        _cdsgd, title="CDSGD", reference=f"{_JIANG}, eq. 5", order=overlaps, recursion="plain",
        **MIXES,
    ),
    "cdmsgd-released": Algorithm(
        _cdmsgd_released, title="CDMSGD of the released code, momentum outside of consensus",
        reference="github.com/SCSLabISU/CDSGD, CDMSGD.py", order=overlaps, **MIXES,
    ),
    "atc": Algorithm(
        _atc, title="adapt then combine", reference="Chen, Sayed (2012)", order=combines, **MIXES
    ),
    "cta": Algorithm(
        _cta, title="combine then adapt", reference="Chen, Sayed (2012)", order=_combines_first,
        at_once=True, **MIXES,
    ),
    "icdsgd": Algorithm(
        _icdsgd, title="i-CDSGD, several exchanges per step", reference=f"{_TRADE_OFFS}, i-CDSGD",
        order=overlaps, mixes_once=False, **MIXES,
    ),
    "gcdsgd": Algorithm(
        _gcdsgd, title="g-CDSGD", reference=f"{_TRADE_OFFS}, g-CDSGD", order=overlaps, **MIXES
    ),
    # Models and gradients travel along the same links, so that none of them can fail alone.
    "cga": Algorithm(
        _cga, twice(to_neighbors), "cross-gradient aggregation",
        "Esfandiari et al. (2021), of the released code",
        talks="with all neighbours, who send gradients back", order=_sends_back,
        weighting="", crosses=True,
    ),
}  # fmt: skip
