"""Gossip in which every neighbour's influence is clipped.

He, Karimireddy, Jaggi, *Byzantine-Robust Decentralized Learning via ClippedGossip*, 2022,
arXiv:2202.01545.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cdjax._checks import (
    check_number,
    check_scalar,
    check_stacked,
    check_step,
    check_topology,
)
from cdjax._trees import along_agents, map_floats_together, widened
from cdjax._types import Mixer, Params, ScalarOrSchedule
from cdjax.robust._links import Fault, check_faults, failed_links, heard_by_slot, links_of
from cdjax.topology import Topology


def clipped_gossip(topology: Topology, radius: ScalarOrSchedule, *faults: Fault) -> Mixer:
    r"""A mixer in which no neighbour moves an agent by more than a radius times its weight.

    .. math:: \text{mixed}^j = x^j + \sum_{l \ne j} \Pi_{jl} \, \text{clip}(x^l - x^j, \tau), \qquad
              \text{clip}(z, \tau) = z \min(1, \tau / \|z\|)

    The norm is over all floating leaves of an agent. With a symmetric Π the mean over agents stays.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).
        radius: :math:`\tau`, at least 0, in the units of the parameters: a number, also infinite
            (nothing is clipped), or a schedule of the step.
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents; with faults or a schedule it needs the step.
        Neighbours at a non-finite distance are ignored.

    Raises:
        ValueError: if the radius is negative or not a number.

    Example: ``mixed = cdjax.robust.clipped_gossip(topology, 1.0)(params)``

    Reference: He et al. (2022), Section 4.
    """
    check_topology(topology)
    check_number("radius", radius)
    if not (isinstance(radius, float) and radius == math.inf):
        check_scalar("radius", radius, low=0)
    check_faults(faults)
    links = links_of(topology.entries)

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        mixer = "clipped_gossip with a schedule"
        tau = radius(check_step(step, mixer)) if callable(radius) else radius
        failed = failed_links(links, faults, step)
        check_stacked(tree, topology.num_agents)

        def mix_leaves(leaves: list[Array]) -> list[Array]:
            mixed = own = [widened(x) for x in leaves]
            for senders, weights in heard_by_slot(links, failed):
                differences = [x[senders] - x for x in own]
                norms = _norms(differences, topology.num_agents)
                # The maximum keeps the branch not taken finite: an agent is at distance 0 from
                # itself, which it reads in place of what does not arrive.
                scale = jnp.where(norms > tau, tau / jnp.maximum(norms, 1e-30), 1)
                # Neighbours that diverged are masked, not scaled by 0: 0 times nan is nan.
                is_finite = jnp.isfinite(norms)
                mixed = [
                    m
                    + jnp.where(along_agents(is_finite, d), along_agents(scale * weights, d) * d, 0)
                    for m, d in zip(mixed, differences, strict=True)
                ]
            return [m.astype(x.dtype) for m, x in zip(mixed, leaves, strict=True)]

        return map_floats_together(mix_leaves, tree)

    return mix


def _norms(leaves: list[Array], num_agents: int) -> Float[Array, " agents"]:
    """Each agent's Euclidean norm over all leaves; 0 without any."""
    squares = [jnp.sum(jnp.square(jnp.abs(x)), axis=tuple(range(1, x.ndim))) for x in leaves]
    square = sum(squares, start=jnp.zeros(num_agents))
    # The gradient of the root at 0 is infinite, and times 0 would be NaN.
    return jnp.where(square != 0, jnp.sqrt(jnp.where(square != 0, square, 1)), 0)
