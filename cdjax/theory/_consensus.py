r"""How far the agents are from each other, and their mean from the optimum.

Yuan, Ling, Yin, *On the Convergence of Decentralized Gradient Descent*, SIAM Journal on
Optimization 2016, arXiv:1310.7063.

Throughout, :math:`s_k` is the agents' mean and :math:`\| x_k - s_k \|` the norm over all agents
together: :math:`\sqrt N` times :func:`cdjax.metrics.consensus_distance`.
"""

from __future__ import annotations

import math

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from cdjax._checks import check_range, check_stacked, per_step
from cdjax._types import Params
from cdjax.theory._constants import Constants, check_symmetric
from cdjax.topology import Topology


def stated_consensus_bound(topology: Topology, step_size: float, *, gradient_bound: float) -> float:
    r"""The paper's bound on the distance of an agent from the mean, at every step.

    .. math:: E \| x_k^j - s_k \| \le \frac{\alpha L}{1 - \lambda_2}

    It presumes a start in consensus, and can fail where :math:`-\lambda_N > \lambda_2`: two agents
    with :math:`\lambda_2 = -0.8` exceed it by 27 %. :func:`consensus_bound` holds.

    Args:
        topology: the graph with its symmetric mixing matrix.
        step_size: :math:`\alpha`.
        gradient_bound: L, a bound on the norm of all agents' gradients together.

    Returns:
        The bound, in the units of the parameters; infinite if :math:`\lambda_2 = 1`.

    Raises:
        ValueError: if an argument is negative or not finite.

    Reference: Jiang et al. (2017), Proposition 1, eq. 16.
    """
    check_symmetric(topology)
    check_range("step_size", step_size, low=0)
    check_range("gradient_bound", gradient_bound, low=0)
    gap = 1 - topology.second_eigenvalue
    return step_size * gradient_bound / gap if gap > 0 else math.inf


def consensus_bound(
    topology: Topology,
    step_sizes: npt.ArrayLike,
    *,
    gradient_bound: float,
    initial_distance: float = 0.0,
    momentum: float = 0.0,
) -> Float[np.ndarray, " steps"]:
    r"""A bound on the disagreement at every step, for any step sizes: Proposition 1 corrected.

    .. math:: \| x_k - s_k \| \le \sigma^k \| x_0 - s_0 \|
              + L \sum_{i < k} \alpha_i \, \sigma^{k - 1 - i}, \qquad
              \sigma = \max(|\lambda_2|, |\lambda_N|)

    For a fixed step the second term rises to :math:`\alpha L / (1 - \sigma)`. If L only bounds the
    root mean square of that norm over runs, the result bounds the root mean square distance.

    With momentum of either kind, x of CDMSGD moves along the eigenvector of :math:`\lambda` as

    .. math:: h_{k+1} = (\lambda + \mu) h_k - \mu h_{k-1}, \qquad h_0 = 1, \; h_{-1} = 0.

    The largest :math:`|h_k(\lambda)|` over all eigenvalues but :math:`\lambda_1` then replaces
    :math:`\sigma^k` in the sum, and the largest :math:`|h_k - \mu h_{k-1}|` in the first term.

    Args:
        topology: the graph with its symmetric mixing matrix.
        step_sizes: :math:`\alpha_0, ..., \alpha_{K-1}`, shape (K,).
        gradient_bound: L, a bound on the norm of all agents' gradients together.
        initial_distance: :math:`\| x_0 - s_0 \|`, over all agents together.
        momentum: :math:`\mu` in [0, 1), 0 for CDSGD; CDMSGD starts with no velocity.

    Returns:
        The bound at :math:`x_0, ..., x_{K-1}`, shape (K,), in the units of the parameters.

    Raises:
        ValueError: if an argument is negative or not finite.

    Example::

        bound = cdjax.theory.consensus_bound(topology, np.full(1000, 0.01), gradient_bound=5.0)
        assert abs(bound[-1] - 0.01 * 5 / topology.spectral_gap) < 1e-12

    Reference: Jiang et al. (2017), Proposition 1, corrected.
    """
    check_symmetric(topology)
    step_sizes = per_step("step_sizes", step_sizes)
    check_range("gradient_bound", gradient_bound, low=0)
    check_range("initial_distance", initial_distance, low=0)
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    eigenvalues = np.asarray(topology.eigenvalues[1:])
    # A gradient is an impulse, whose effect k steps later is h_k. The start has no velocity, so
    # x_{−1} = x_0, from which the recursion gives h_k − μ h_{k−1}.
    h, h_before = np.ones_like(eigenvalues), np.zeros_like(eigenvalues)
    of_gradient, of_start = [], []
    for _ in step_sizes:
        of_gradient.append(np.max(np.abs(h), initial=0.0))
        of_start.append(np.max(np.abs(h - momentum * h_before), initial=0.0))
        h, h_before = (eigenvalues + momentum) * h - momentum * h_before, h
    # x_k has seen the gradients of steps 0, ..., k − 1: the convolution, one step late.
    sums = _convolved(step_sizes, np.array(of_gradient))
    bounds = gradient_bound * np.concatenate([[0.0], sums[:-1]])
    return initial_distance * np.array(of_start) + bounds


def _convolved(
    x: Float[np.ndarray, " steps"], y: Float[np.ndarray, " steps"]
) -> Float[np.ndarray, " steps"]:
    """The first steps of the convolution, by Fourier transforms: K log K operations and not K²."""
    size = 2 * len(x)
    transforms = np.fft.rfft(x, size) * np.fft.rfft(y, size)
    # Neither x nor y is negative; rounding may take a sum of zeros below zero.
    return np.maximum(np.fft.irfft(transforms, size)[: len(x)], 0.0)


def disagreement_rate(topology: Topology, gradients: Params) -> float:
    r"""The disagreement per step size to which diminishing steps lead.

    .. math:: \lim_k \frac{\| x_k - s_k \|}{\alpha_k} = \| (I - \Pi)^+ \nabla F(x^*) \|

    with the agents' gradients at the optimum :math:`x^*` of their sum, each of which need not be
    zero. So the agents do reach consensus, as fast as the steps diminish and no faster. With a
    fixed step, :math:`\alpha` times this is the disagreement, up to :math:`O(\alpha^2)`.

    Args:
        topology: the graph with its symmetric mixing matrix, connected.
        gradients: every agent's gradient at the optimum, a stacked tree; a common part is ignored.

    Returns:
        The limit, in the units of the gradient.

    Raises:
        ValueError: if a leaf's leading axis is not N.

    Reference: sharpens Jiang et al. (2017), who prove that diminishing steps lead to consensus.
    """
    check_symmetric(topology)
    num_agents = topology.num_agents
    check_stacked(gradients, num_agents)
    averaging = np.full((num_agents, num_agents), 1 / num_agents)
    # Orthogonally to consensus, (I − Π)⁺ is the inverse of I − Π + 11ᵀ/N, which is regular.
    regular = np.eye(num_agents) - topology.mixing_matrix + averaging
    total = 0.0
    for leaf in jax.tree.leaves(gradients):
        flat = np.asarray(leaf, np.float64).reshape(num_agents, -1)
        total += np.sum(np.linalg.solve(regular, flat - averaging @ flat) ** 2)
    return math.sqrt(total)


def mean_error_bound(
    topology: Topology,
    constants: Constants,
    *,
    step_sizes: npt.ArrayLike,
    initial_error: float,
    distances: npt.ArrayLike,
) -> Float[np.ndarray, " steps"]:
    r"""A bound on the distance of the agents' mean from the optimum, for any step sizes.

    .. math:: e_{k+1}^2 = \left( \rho_k e_k + \frac{\alpha_k \gamma_m d_k}{\sqrt N} \right)^2
              + \frac{\alpha_k^2 Q}{N^2}, \qquad
              \rho_k = \max(|1 - \alpha_k H_m|, |1 - \alpha_k \gamma_m|)

    The mean takes a gradient step on :math:`\frac{1}{N} \sum_j f_j`, with an error of at most
    :math:`\gamma_m \| x_k - s_k \| / \sqrt N`, because agents compute their gradients at their own
    parameters. Unlike the bound on V, it vanishes with the step size even if there is noise.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses; gradients are unbiased, their noise independent between agents.
        step_sizes: :math:`\alpha_0, ..., \alpha_{K-1}`, shape (K,).
        initial_error: :math:`e_0 = \| s_0 - x^* \|`.
        distances: :math:`d_k \ge \| x_k - s_k \|`, shape (K,) or (), see :func:`consensus_bound`.

    Returns:
        The bound on the root mean square distance at :math:`s_0, ..., s_{K-1}`, shape (K,).

    Raises:
        ValueError: if an argument is negative or not finite, or the shapes differ.

    Reference: the argument of Yuan, Ling & Yin (2016) for full gradients and a fixed step.
    """
    check_symmetric(topology)
    step_sizes = per_step("step_sizes", step_sizes)
    if np.ndim(distances) == 0:
        distances = np.full(len(step_sizes), distances)
    distances = per_step("distances", distances, len(step_sizes))
    check_range("initial_error", initial_error, low=0)
    smoothness, num_agents = constants.smoothness, topology.num_agents
    curvatures = np.array([constants.strong_convexity, smoothness])
    bounds, bound = [], initial_error
    for step_size, distance in zip(step_sizes, distances, strict=True):
        bounds.append(bound)
        contraction = float(np.max(np.abs(1 - step_size * curvatures)))
        drift = step_size * smoothness * distance / math.sqrt(num_agents)
        noise = step_size * math.sqrt(constants.noise) / num_agents
        bound = math.hypot(contraction * bound + drift, noise)
    return np.array(bounds, np.float64)
