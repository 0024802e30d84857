"""The constants of the paper's assumptions and of its Lyapunov function V, and the step limits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cdjax._checks import check_positive, check_range, check_topology
from cdjax.topology import Topology
from cdjax.topology._topology import TOLERANCE


class Constants(NamedTuple):
    r"""What the theory assumes of the losses and their gradients; the defaults are full gradients.

    S is the stochastic gradient of V in one step: the agents' gradients plus
    :math:`(x - \Pi x) / \alpha`. If it is unbiased, :math:`\zeta_1 = \zeta_2 = 1`.

    Attributes:
        smoothness: :math:`\gamma_m`, the largest eigenvalue of any agent's Hessian (Assumption 1).
        strong_convexity: :math:`H_m`, the smallest eigenvalue of any agent's Hessian; 0 if unknown.
        noise: Q, in :math:`\mathrm{Var}\, S \le Q + Q_V \|\nabla V\|^2` (Assumption 3).
        noise_growth: :math:`Q_V`, in the same inequality.
        alignment: :math:`\zeta_1`: :math:`\langle \nabla V, ES \rangle \ge \zeta_1 \|\nabla V\|^2`.
        length: :math:`\zeta_2`, in :math:`\| ES \| \le \zeta_2 \|\nabla V\|`.
    """

    smoothness: float
    strong_convexity: float = 0.0
    noise: float = 0.0
    noise_growth: float = 0.0
    alignment: float = 1.0
    length: float = 1.0

    @property
    def second_moment(self) -> float:
        r""":math:`Q_m = Q_V + \zeta_2^2`, so that :math:`E \|S\|^2 \le Q + Q_m \|\nabla V\|^2`."""
        return self.noise_growth + self.length**2


def lyapunov_smoothness(topology: Topology, smoothness: float, *, step_size: float) -> float:
    r"""The Lipschitz constant of the gradient of V.

    .. math:: \hat\gamma = \gamma_m + \frac{1 - \lambda_N}{\alpha}

    Args:
        topology: the graph with its symmetric mixing matrix.
        smoothness: :math:`\gamma_m`.
        step_size: :math:`\alpha > 0`.

    Returns:
        An upper bound; exact where all agents have the Hessian :math:`\gamma_m I`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Section 4.
    """
    check_symmetric(topology)
    check_positive("smoothness", smoothness)
    check_positive("step_size", step_size)
    return smoothness + (1 - topology.smallest_eigenvalue) / step_size


def stated_strong_convexity(
    topology: Topology, strong_convexity: float, *, step_size: float
) -> float:
    r"""The strong convexity that the paper claims for V; V does not have it.

    .. math:: \hat H = H_m + \frac{1 - \lambda_2}{\alpha}

    :math:`I - \Pi` vanishes on consensus, so V is no more convex there than the losses are: the
    constant is :math:`H_m` itself. :math:`\hat H` holds only orthogonally to consensus.

    Args:
        topology: the graph with its symmetric mixing matrix.
        strong_convexity: :math:`H_m`.
        step_size: :math:`\alpha > 0`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Section 4.
    """
    check_symmetric(topology)
    check_range("strong_convexity", strong_convexity, low=0)
    check_positive("step_size", step_size)
    return strong_convexity + (1 - topology.second_eigenvalue) / step_size


def descent_limit(topology: Topology, constants: Constants, *, step_size: float) -> float:
    r"""The paper's implicit step limit, the right-hand side of what its theorems require.

    .. math:: \alpha \le \frac{\zeta_1}{\hat\gamma(\alpha) \, Q_m}

    Such a step reduces V by :math:`\frac{1}{2} \alpha \zeta_1 \|\nabla V\|^2`, up to noise.
    :func:`sufficient_step_limit` is this inequality solved for :math:`\alpha`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`, on which the limit depends.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), eq. 14.
    """
    check_symmetric(topology)
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size=step_size)
    return constants.alignment / (smoothness * constants.second_moment)


def sufficient_step_limit(topology: Topology, constants: Constants) -> float:
    r"""The paper's step limit, sufficient for its theorems.

    .. math:: \alpha \le \frac{\zeta_1 - (1 - \lambda_N) Q_m}{\gamma_m Q_m}

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.

    Returns:
        The limit. If it is 0 or less, no step size satisfies it. That is so on every graph with
        :math:`\lambda_N \le 0`, such as rings, tori, and the complete graphs of the paper.

    Raises:
        ValueError: if the smoothness is not positive.

    Reference: Jiang et al. (2017), eq. 15.
    """
    check_symmetric(topology)
    check_positive("smoothness", constants.smoothness)
    moment = constants.second_moment
    free = constants.alignment - (1 - topology.smallest_eigenvalue) * moment
    return free / (constants.smoothness * moment)


def tight_step_limit(
    topology: Topology, smoothness: float, *, momentum: float = 0.0, nesterov: bool = True
) -> float:
    r"""The step size at which CDSGD and CDMSGD begin to diverge on quadratics.

    .. math:: \alpha < \frac{1 + \lambda_N}{\gamma}, \qquad
              \alpha < \frac{1 + \lambda_N + 2 \mu}{\gamma}, \qquad
              \alpha < \frac{1 + \lambda_N + 2 \mu}{(1 + 2 \mu) \gamma}

    without momentum, with Polyak's and with Nesterov's. Each is necessary and sufficient if all
    agents have the same Hessian, with largest eigenvalue :math:`\gamma`. The first, which is
    :math:`\alpha \hat\gamma < 2`, suffices for V to fall whatever the losses are.

    Args:
        topology: the graph with its symmetric mixing matrix.
        smoothness: :math:`\gamma`.
        momentum: :math:`\mu` in [0, 1).
        nesterov: whether momentum is Nesterov's, as it is by default in :func:`cdjax.cdmsgd`.

    Raises:
        ValueError: if an argument is out of its range.

    Example::

        lazy_ring = cdjax.topology.ring(8, "lazy")  # λ_N = 1 / 3
        assert abs(cdjax.theory.tight_step_limit(lazy_ring, 2.0) - 2 / 3) < 1e-12

    Reference: not in the paper; gradient descent and the heavy ball on its V, eq. 9.
    """
    check_symmetric(topology)
    check_positive("smoothness", smoothness)
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    limit = (1 + topology.smallest_eigenvalue + 2 * momentum) / smoothness
    return limit / (1 + 2 * momentum) if nesterov else limit


def guaranteed_descent(topology: Topology, constants: Constants, *, step_size: float) -> float:
    r"""The fraction of :math:`\frac{1}{2} \alpha \|\nabla V\|^2` by which a step surely reduces V.

    .. math:: c = \min(\zeta_1, \; 2 \zeta_1 - \alpha \hat\gamma Q_m)

    Noise comes on top. This is the paper's :math:`\zeta_1` where eq. 14 holds. Beyond that limit it
    falls, to 0 at twice the limit, which is the tight one for full gradients.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`.

    Returns:
        c; if it is 0 or less, no descent is guaranteed.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: the proof of Theorem 1 of Jiang et al. (2017), without its use of eq. 14.
    """
    check_symmetric(topology)
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size=step_size)
    alignment = constants.alignment
    return min(alignment, 2 * alignment - step_size * smoothness * constants.second_moment)


def check_symmetric(topology: Topology) -> None:
    """Raises unless ``topology`` is one that the paper's theory is about."""
    check_topology(topology)
    matrix = topology.mixing_matrix
    apart = float(np.max(np.abs(matrix - matrix.T)))
    if apart > TOLERANCE:
        raise ValueError(
            f"topology has a mixing matrix that differs from its transpose by {apart:.2g}; the "
            "theory is for symmetric ones, such as those of cdjax.topology.from_graph"
        )
