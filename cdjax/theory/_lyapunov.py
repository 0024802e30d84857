"""The function that CDSGD descends: the agents' losses plus a penalty on their disagreement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdjax import mixing
from cdjax._checks import check_stacked
from cdjax._trees import floating_leaves, mean_over_agents
from cdjax._types import Params
from cdjax.theory._constants import check_symmetric
from cdjax.topology import Topology

LossesFn: TypeAlias = Callable[[Params], Float[Array, " agents"]]


def lyapunov(
    losses_fn: LossesFn, params: Params, topology: Topology, *, step_size: float | Array
) -> Float[Array, ""]:
    r"""The Lyapunov function V of CDSGD.

    .. math:: V(x, \alpha) = \sum_j f_j(x^j) + \frac{1}{2 \alpha} \| x \|^2_{I - \Pi}

    CDSGD with full gradients is gradient descent on V with step :math:`\alpha`. Its minimiser is
    :math:`O(\alpha)` away from the optimum of :math:`\sum_j f_j` and, unless the agents agree on
    that, not in consensus.

    Args:
        losses_fn: every agent's loss, shape (N,), from the stacked parameters.
        params: a stacked tree, leaves ``(N, ...)``; non-float leaves only enter the losses.
        topology: the graph with its symmetric mixing matrix.
        step_size: :math:`\alpha > 0`.

    Returns:
        A scalar, in the units of the losses.

    Raises:
        ValueError: if a leaf's leading axis is not N.

    Example::

        losses_fn = lambda params: cdjax.agent_map(loss_fn)(params, batch)
        V = cdjax.theory.lyapunov(losses_fn, params, topology, step_size=0.01)

    Reference: Jiang et al. (2017), eq. 9.
    """
    check_symmetric(topology)
    check_stacked(params, topology.num_agents)
    # I − Π maps the mean to zero. Without it, rounding does not hide a small disagreement.
    leaves = floating_leaves(params)
    centred = jax.tree.map(lambda x: x - mean_over_agents(x)[None], leaves)
    products = jax.tree.map(jnp.vdot, centred, _displacement(centred, topology))
    disagreement = sum(jax.tree.leaves(products), start=jnp.zeros([]))
    return jnp.sum(losses_fn(params)) + disagreement / (2 * step_size)


def lyapunov_gradient(
    losses_fn: LossesFn, params: Params, topology: Topology, *, step_size: float | Array
) -> Params:
    r"""The gradient of V: what a step of CDSGD with full gradients subtracts, divided by α.

    .. math:: \nabla V(x, \alpha) = g(x) + \frac{1}{\alpha} (x - \Pi x)

    Args:
        losses_fn: every agent's loss, shape (N,), from the stacked parameters.
        params: a stacked tree of floating-point leaves of shape ``(N, ...)``.
        topology: the graph with its symmetric mixing matrix.
        step_size: :math:`\alpha > 0`.

    Raises:
        ValueError: if a leaf's leading axis is not N.

    Reference: Jiang et al. (2017), Section 3.2, the gradient of eq. 9.
    """
    check_symmetric(topology)
    gradients = jax.grad(lambda x: jnp.sum(losses_fn(x)))(params)
    displacement = _displacement(params, topology)
    return jax.tree.map(lambda g, d: g + d / step_size, gradients, displacement)


def _displacement(params: Params, topology: Topology) -> Params:
    """(I − Π) x."""
    return jax.tree.map(jnp.subtract, params, mixing.dense(topology)(params))
