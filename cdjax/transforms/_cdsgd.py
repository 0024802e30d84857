"""CDSGD: consensus-based distributed SGD.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880, Algorithm 1.
"""

from __future__ import annotations

import optax

from cdjax._checks import check_mixer, check_per_agent
from cdjax._types import AgentScalarOrSchedule, Mixer
from cdjax.transforms._consensus import consensus
from cdjax.transforms._descent import descent


def cdsgd(learning_rate: AgentScalarOrSchedule, mix: Mixer) -> optax.GradientTransformation:
    r"""Consensus-based distributed SGD.

    .. math:: x^+ = \Pi x - \alpha \, g(x)

    The gradient is taken at ``x``, not at :math:`\Pi x`; for that order see
    :func:`adapt_then_combine`.

    Args:
        learning_rate: the step size :math:`\alpha`, a number, one per agent of shape (N,), or a
            schedule of either.
        mix: a mixer, ``mix(tree, step) -> tree`` on stacked trees.

    Returns:
        An optax transformation; its ``update`` needs ``params``.

    Raises:
        ValueError: if the learning rate is negative or not finite.

    Example: ``tx = cdjax.cdsgd(0.01, cdjax.mixing.auto(cdjax.topology.ring(8)))``

    Reference: Jiang et al. (2017), eq. 5.
    """
    check_mixer(mix)
    check_per_agent("learning_rate", learning_rate, low=0)
    return optax.chain(descent(learning_rate), consensus(mix))
