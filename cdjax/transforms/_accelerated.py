r"""Accelerated gossip of what agents have learned in a round of local steps.

Cagnasso, Belilovsky, Oyallon, *Unifying Local Communications and Local Updates for LLM
Pretraining*, 2026, arXiv:2606.11081, "GASLoC" (the paper's text not verified: the order of its
momentum is that of the transcription in github.com/junaidaliop/zij).

The momentum is that of the points :math:`y` which agents send, so it holds the consensus
displacement, and along an eigenvector of :math:`\Pi` without gradients

.. math::
    \text{after:}\quad  y_{t+1} = (\lambda + \gamma) y_t - \gamma y_{t-1}, \qquad
    \text{before:}\quad y_{t+1} = \lambda (1 + \gamma) y_t - \lambda \gamma y_{t-1} .
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_inner, check_scalar
from cdjax._trees import displacement, map_floats
from cdjax._types import Mixer, OptState, Params
from cdjax.transforms._outer import outer_rounds


def accelerated_outer(
    inner: optax.GradientTransformation,
    mix: Mixer,
    *,
    period: int,
    learning_rate: float = 0.7,
    momentum: float = 0.5,
    momentum_before_mix: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps, and after every H of them gossip with momentum on the points that are sent.

    .. math::
        y_t = \varphi_t + \eta (x_t - \varphi_t), \qquad
        \varphi_{t+1} = \Pi y_t + \gamma (y_t - y_{t-1})
        \;\text{ or }\; \Pi (y_t + \gamma (y_t - y_{t-1})), \qquad x \leftarrow \varphi_{t+1}

    with :math:`y_{-1} = \varphi_0`. On a sparse graph the momentum speeds up consensus: with
    :func:`cdjax.theory.gossip_momentum` from :math:`\lambda_2` to :math:`1 - \sqrt{1 - \lambda_2}`.

    Momentum *after* the mix is stable for every :math:`\gamma < 1`, whatever the graph; on a
    complete one it is not DiLoCo, and agents agree in the limit only. Momentum *before* the mix is,
    on a complete graph, DiLoCo with ``optax.sgd(η, momentum=γ, nesterov=True)``. On a graph with
    :math:`\lambda_N < 0` it needs :math:`\gamma < (1 / |\lambda_N| - 1) / 2`, see
    :func:`cdjax.theory.momentum_before_mix_limit`; the weights ``lazy`` have no such eigenvalue.

    Both end at :math:`\varphi = \Pi y(\varphi)`, which depends on :math:`\eta`; that of
    :func:`outer` does not.

    Args:
        inner: any optax optimizer, each agent's own.
        mix: a mixer, given the number of the round in place of the step.
        period: H, the steps of a round, at least 1.
        learning_rate: :math:`\eta`, above 0.
        momentum: :math:`\gamma` in [0, 1).
        momentum_before_mix: the second form.

    Returns:
        An optax transformation; its ``update`` needs ``params``. Evaluate :func:`slow_params`.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``tx = cdjax.accelerated_outer(optax.adamw(3e-4), mix, period=100)``

    Reference: Cagnasso et al. (2026), not verified, for the first form.
    """
    check_inner(inner, mix)
    check_scalar("learning_rate", learning_rate, low=0, low_open=True)
    check_scalar("momentum", momentum, low=0, high=1, high_open=True)

    def advance(
        x: Params, slow: Params, before: OptState, number: Int[Array, ""]
    ) -> tuple[Params, OptState]:
        y = map_floats(lambda p, d: p + learning_rate * d, slow, displacement(x, slow))

        def pushed(target: Array, y: Array, y_before: Array) -> Array:
            return target + momentum * (y - y_before)

        if momentum_before_mix:
            return mix(map_floats(pushed, y, y, before), number), y
        return map_floats(pushed, mix(y, number), y, before), y

    # A copy, so that the state does not hold the slow parameters' buffers twice.
    first = lambda params: jax.tree.map(jnp.copy, params)  # noqa: E731
    return outer_rounds(inner, first, advance, period=period)
