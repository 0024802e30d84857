"""Chooses the plan that mixes a topology fastest."""

from __future__ import annotations

from cdjax._types import Mixer
from cdjax.mixing._dense import dense
from cdjax.topology import Topology


def auto(topology: Topology) -> Mixer:
    """The mixer that suits the topology: :func:`dense`, whatever the graph.

    Args:
        topology: the graph and its mixing matrix.

    Returns:
        A mixer equal to ``dense(topology)`` up to rounding.
    """
    return dense(topology)
