"""Gossiping SGD.

Jin, Yuan, Iandola, Keutzer, *How to scale distributed deep learning?*, 2016, arXiv:1611.04581.
"""

from __future__ import annotations

import optax

from cdjax._types import Mixer
from cdjax.mixing import every
from cdjax.transforms._consensus import adapt_then_combine


def gossip(
    inner: optax.GradientTransformation, mix: Mixer, *, period: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps, and an exchange with a random peer after every ``period`` of them.

    .. math:: x^+ = \Pi_k (x + u), \qquad \Pi_k = I \text{ unless } \tau \mid k + 1

    Args:
        inner: any optax optimizer with updates :math:`u`.
        mix: a random mixer: :func:`cdjax.mixing.pull` or :func:`cdjax.mixing.push` with random
            peers, or ``pull`` with random pairs; among all agents or along a topology's edges.
        period: τ, in steps, at least 1.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments.

    Raises:
        ValueError: if the period is below 1.

    Example::

        pairs = cdjax.mixing.random_pairs(topology, key)
        tx = cdjax.gossip(optax.sgd(0.1), cdjax.mixing.pull(pairs), period=10)

    Reference: Jin et al. (2016), pull-gossip and push-gossip.
    """
    return adapt_then_combine(inner, every(period, mix))
