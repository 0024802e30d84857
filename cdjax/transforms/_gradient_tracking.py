r"""Gradient tracking and momentum tracking: no bias from data that differ between agents.

Nedić, Olshevsky, Shi, *Achieving geometric convergence for distributed optimization over
time-varying graphs*, 2017, arXiv:1607.03218 (DIGing; not verified).

Takezawa, Bao, Niwa, Sato, Yamada, *Momentum Tracking: Momentum Acceleration for Decentralized Deep
Learning on Heterogeneous Data*, TMLR 2023, arXiv:2209.15505; the equations are those of the
authors' code, github.com/yukiTakezawa/MomentumTracking.
"""

from __future__ import annotations

from typing import Literal

import optax

from cdjax._checks import check_choice, check_mixer, check_per_agent, check_scalar
from cdjax._types import AgentScalarOrSchedule, Mixer
from cdjax.transforms._consensus import adapt_then_combine, consensus
from cdjax.transforms._descent import descent
from cdjax.transforms._tracking import tracking

TrackingForm = Literal["diging", "semi-atc", "atc"]
_FORMS = ("diging", "semi-atc", "atc")


def gradient_tracking(
    learning_rate: AgentScalarOrSchedule, mix: Mixer, *, form: TrackingForm = "diging"
) -> optax.GradientTransformation:
    r"""Gradient tracking: every agent steps along its estimate of the mean gradient.

    .. math::
        \text{diging:}\quad & x^+ = \Pi x - \alpha y, & y^+ = \Pi y + g(x^+) - g(x) \\
        \text{semi-atc:}\quad & x^+ = \Pi (x - \alpha y), & y^+ = \Pi y + g(x^+) - g(x) \\
        \text{atc:}\quad & x^+ = \Pi (x - \alpha y), & y^+ = \Pi (y + g(x^+) - g(x))

    with :math:`y_0 = g(x_0)`, in the last form :math:`\Pi g(x_0)`. With full gradients and a
    constant step all agents end at the minimum of the mean loss; CDSGD's end apart and beside it.
    Around another optimizer see :func:`tracking`.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a Π whose columns sum to one.
        form: the order of steps and exchanges. In ``atc`` the two exchanges of a step follow each
            other; in the others they may travel together.

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends two messages to every
        neighbour per step: parameters and estimate.

    Raises:
        ValueError: if the learning rate is negative or not finite, or there is no such form.

    Example: ``tx = cdjax.gradient_tracking(0.01, mix, form="semi-atc")``

    Reference: Nedić et al. (2017), Algorithm 1, for ``diging``; Xu et al. (2015) for ``atc`` (not
    verified); github.com/epfml/relaysgd, algorithms.py, for ``semi-atc``.
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_choice("form", form, _FORMS)
    tracked = optax.chain(tracking(mix, combined=form == "atc"), descent(learning_rate))
    if form == "diging":
        return optax.chain(tracked, consensus(mix))
    return adapt_then_combine(tracked, mix)


def momentum_tracking(
    learning_rate: AgentScalarOrSchedule, mix: Mixer, *, momentum: float = 0.9
) -> optax.GradientTransformation:
    r"""Momentum tracking: every agent steps along its estimate of the mean momentum.

    .. math:: m^+ = \mu m + g(x), \qquad x^+ = \Pi x - \alpha y, \quad y_k = \Pi y_{k-1} + m_{k+1} -
        m_k

    from :math:`m_0 = 0`, so :math:`y_0 = g(x_0)`. It ends where gradient tracking does. As long as
    Π stays the same, it *is* gradient tracking around SGD with heavy-ball momentum: both are linear
    filters of the gradients, and may be exchanged.

    The authors' code starts from :math:`m_0 = c_0 = (g(x_0) - \bar{g}_0) / (1 - \mu)` with the
    opposite sign of the correction, for which it takes the mean of all agents' first gradients.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees; of a Π whose columns sum to one.
        momentum: :math:`\mu` in [0, 1).

    Returns:
        An optax transformation; its ``update`` needs ``params``. It sends two messages to every
        neighbour per step: parameters and estimate.

    Raises:
        ValueError: if the learning rate is negative or the momentum outside of [0, 1).

    Example: ``tx = cdjax.momentum_tracking(0.01, mix, momentum=0.9)``

    Reference: Takezawa et al. (2023), Algorithm 1 (not verified), and optimizer/
    momentum_tracking_optimizer.py of their code.
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    check_scalar("momentum", momentum, low=0, high=1, high_open=True)
    return optax.chain(optax.trace(momentum), tracking(mix), descent(learning_rate), consensus(mix))
