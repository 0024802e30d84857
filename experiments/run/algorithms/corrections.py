"""For agents whose data differ: tracked gradients, corrections, and momentum without bias."""

from __future__ import annotations

from experiments.run.algorithms.row import (
    CORRECTS,
    SUMS_UP,
    TRACKS,
    Algorithm,
    Setting,
    combines,
    overlaps,
    tracks,
)
from experiments.run.lazy import LazyModule

cdjax, optax = LazyModule("cdjax"), LazyModule("optax")


def _gradient_tracking(
    run: Setting, *, tracking_form: str = "diging"
) -> optax.GradientTransformation:
    return cdjax.gradient_tracking(run.alpha, run.mix, form=tracking_form)


def _momentum_tracking(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.momentum_tracking(run.alpha, run.mix, momentum=momentum)


def _exact_diffusion(run: Setting) -> optax.GradientTransformation:
    return cdjax.exact_diffusion(run.alpha, run.mix)


def _d2(run: Setting) -> optax.GradientTransformation:
    smallest = run.topology.smallest_eigenvalue
    return cdjax.d2(run.alpha, run.mix, smallest_eigenvalue=smallest)


def _extra(run: Setting) -> optax.GradientTransformation:
    return cdjax.extra(run.alpha, run.mix)


def _decentlam(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.decentlam(run.alpha, run.mix, momentum=momentum)


def _quasi_global(
    run: Setting, *, momentum: float = 0.9, buffer_decay: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    options = {"momentum": momentum, "buffer_decay": buffer_decay, "nesterov": nesterov}
    return cdjax.quasi_global_momentum(run.alpha, run.mix, **options)


def _quasi_global_adam(run: Setting) -> optax.GradientTransformation:
    return cdjax.quasi_global_adam(run.alpha, run.mix)


CORRECTIONS: dict[str, Algorithm] = {
    "gradient-tracking": Algorithm(
        _gradient_tracking, title="gradient tracking", reference="Nedić, Olshevsky, Shi (2017)",
        order=tracks, **TRACKS,
    ),
    "momentum-tracking": Algorithm(
        _momentum_tracking, title="momentum tracking",
        reference="Takezawa, Bao, Niwa, Sato, Yamada (2023), Algorithm 1",
        order=tracks, **TRACKS,
    ),
    "exact-diffusion": Algorithm(
        _exact_diffusion, title="exact diffusion", reference="Yuan, Ying, Zhao, Sayed (2019)",
        order=combines, **SUMS_UP,
    ),
    "d2": Algorithm(
        _d2, title="D²", reference="Tang, Lian, Yan, Zhang, Liu (2018), Algorithm 1",
        order=combines, above_eigenvalue=-1 / 3, **SUMS_UP,
    ),
    "extra": Algorithm(
        _extra, title="EXTRA", reference="Shi, Ling, Wu, Yin (2015)", order=overlaps, **SUMS_UP
    ),
    "decentlam": Algorithm(
        _decentlam, title="DecentLaM",
        reference="Yuan, Chen, Huang, Zhang, Pan, Xu, Yin (2021), Algorithm 2",
        order=combines, **CORRECTS,
    ),
    "quasi-global": Algorithm(
        _quasi_global, title="quasi-global momentum",
        reference="Lin, Karimireddy, Stich, Jaggi (2021), Algorithm 1",
        order=combines, **CORRECTS,
    ),
    "quasi-global-adam": Algorithm(
        _quasi_global_adam, title="Adam with quasi-global moments",
        reference="github.com/epfml/quasi-global-momentum, decentralized_qg_adam.py",
        order=combines, **CORRECTS,
    ),
}  # fmt: skip
