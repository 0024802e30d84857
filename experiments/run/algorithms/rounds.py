"""Rounds of local steps, an exchange at the end of each: outer optimizers, K-GT, LED."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from experiments.run.algorithms.peers import between_pairs, heard_from_partner, with_partner
from experiments.run.algorithms.row import (
    SUMS_UP,
    Algorithm,
    Setting,
    combines,
    combines_twice,
    sgd,
    to_neighbors,
    twice,
)
from experiments.run.algorithms.servers import averages, to_server_and_back
from experiments.run.errors import blame
from experiments.run.lazy import LazyModule

cdjax, mixing, network = (LazyModule(f"cdjax{name}") for name in ("", ".mixing", ".network"))
optax = LazyModule("optax")
theory, topology = LazyModule("cdjax.theory"), LazyModule("cdjax.topology")


def _outer(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
    fragments: int = 1,
    delay: int = 0,
    merge: float = 0.0,
) -> optax.GradientTransformation:
    with blame("--outer-learning-rate"):
        theory.check_outer_step(run.topology, outer_learning_rate, momentum=outer_momentum)
    inner, outer = sgd(run.alpha, momentum), sgd(outer_learning_rate, outer_momentum)
    with blame("--delay" if period % fragments == 0 else "--fragments"):
        return cdjax.outer(
            inner, outer, run.mix, period=period, fragments=fragments, delay=delay, merge=merge
        )


def _slowmo(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 1.0,
    outer_momentum: float = 0.5,
) -> optax.GradientTransformation:
    return cdjax.slowmo(
        sgd(run.alpha, momentum),
        run.mix,
        learning_rate=run.alpha,
        period=period,
        momentum=outer_momentum,
        slow_learning_rate=outer_learning_rate,
    )


def _through_server(
    build: Callable[..., optax.GradientTransformation],
) -> Callable[..., optax.GradientTransformation]:
    """The same with the mean over all agents for its mixer."""

    @functools.wraps(build)  # the options are those of ``build``
    def through_server(run: Setting, **options: Any) -> optax.GradientTransformation:
        complete = topology.complete(run.num_agents)
        return build(run._replace(topology=complete, mix=mixing.auto(complete)), **options)

    return through_server


def _noloco(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.5,
) -> optax.GradientTransformation:
    heavy_ball = optax.sgd(outer_learning_rate, momentum=outer_momentum)
    return cdjax.outer(sgd(run.alpha, momentum), heavy_ball, with_partner(run), period=period)


def _factored(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
) -> optax.GradientTransformation:
    inner, outer = sgd(run.alpha, momentum), sgd(outer_learning_rate, outer_momentum)
    return cdjax.outer(inner, outer, run.mix, period=period, overlapped=run.mix)


def _accelerated(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.5,
) -> optax.GradientTransformation:
    return cdjax.accelerated_outer(
        sgd(run.alpha, momentum),
        run.mix,
        period=period,
        learning_rate=outer_learning_rate,
        momentum=outer_momentum,
    )


def _kgt(
    run: Setting, *, momentum: float = 0.0, period: int = 10, outer_learning_rate: float = 1.0
) -> optax.GradientTransformation:
    inner = sgd(run.alpha, momentum)
    return cdjax.kgt(inner, run.mix, period=period, learning_rate=outer_learning_rate)


def _led(run: Setting, *, momentum: float = 0.0, period: int = 10) -> optax.GradientTransformation:
    """With half of the gain that would be stable without gradients, at the first step size."""
    alpha = run.alpha(0) if callable(run.alpha) else run.alpha
    rate = float(alpha) / (1 - momentum) or 1.0  # agents that take no steps have nothing to correct
    limit = theory.led_gain_limit(run.topology, learning_rate=rate, period=period)
    gain = limit / 2 if math.isfinite(limit) else 1.0
    return cdjax.led(sgd(run.alpha, momentum), run.mix, period=period, gain=gain)


_MEANS: dict[str, Any] = {
    "messages": to_server_and_back, "order": averages, "server": "stateless"
}  # fmt: skip
_ROUNDS: dict[str, Any] = {
    **SUMS_UP, "order": combines, "mixes_once": False,
    "talks": "with all neighbours, once per round",
}  # fmt: skip
_TWICE: dict[str, Any] = {**_ROUNDS, "messages": twice(to_neighbors), "order": combines_twice}
_DOUILLARD = "Douillard et al. (2023)"

ROUNDS: dict[str, Algorithm] = {
    "diloco": Algorithm(
        _through_server(_outer), title="DiLoCo", reference=f"{_DOUILLARD}, Algorithm 1", **_MEANS
    ),
    "slowmo": Algorithm(
        _through_server(_slowmo), title="SlowMo",
        reference="Wang, Tantia, Ballas, Rabbat (2020), Algorithm 1", **_MEANS,
    ),
    "outer": Algorithm(
        _outer, title="DiLoCo on the graph", reference=f"{_DOUILLARD}, with Π for the mean",
        **_ROUNDS,
    ),
    "noloco": Algorithm(
        _noloco, between_pairs, "NoLoCo", "Kolehmainen et al. (2025)", order=combines,
        heard=heard_from_partner,
    ),
    "factored": Algorithm(
        _factored, title="factored gossip DiLoCo", reference="arXiv:2606.22768, the abstract",
        **_TWICE,
    ),
    "accelerated": Algorithm(
        _accelerated, title="accelerated gossip of rounds",
        reference="Cagnasso, Belilovsky, Oyallon (2026), not verified", **_ROUNDS,
    ),
    "kgt": Algorithm(
        _kgt, title="K-GT", reference="Liu, Lin, Koloskova, Stich (2023), Algorithm 1",
        **_TWICE | {"fixed_links": False},
    ),
    "led": Algorithm(
        _led, title="local exact diffusion", reference="Alghunaim (2023), Algorithm 1", **_ROUNDS
    ),
}  # fmt: skip
