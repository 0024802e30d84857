"""The constants of the paper's assumptions, of its Lyapunov function V, and the step limits.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880, Section 4.
"""

from __future__ import annotations

from typing import NamedTuple

from cdjax._checks import check_range
from cdjax.topology import Topology


class Constants(NamedTuple):
    r"""What the theory assumes of the losses and their gradients; by default full gradients.

    S stands for the step's stochastic gradient of V: the agents' gradients plus
    :math:`(x - \Pi x) / \alpha`.

    Attributes:
        smoothness: :math:`\gamma_m`, the largest eigenvalue of any agent's Hessian (Assumption 1).
        strong_convexity: :math:`H_m`, the smallest eigenvalue of any agent's Hessian; 0 if unknown.
        noise: Q, in :math:`\mathrm{Var}\, S \le Q + Q_V \|\nabla V\|^2` (Assumption 3).
        noise_growth: :math:`Q_V`, ibidem.
        alignment: :math:`\zeta_1`, in :math:`\langle \nabla V, E\, S \rangle \ge \zeta_1 \|\nabla
            V\|^2`; 1 for unbiased gradients.
        length: :math:`\zeta_2`, in :math:`\| E\, S \| \le \zeta_2 \|\nabla V\|`; 1 for unbiased
            ones.
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


def lyapunov_smoothness(topology: Topology, smoothness: float, step_size: float) -> float:
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
    _check(smoothness=smoothness, step_size=step_size)
    return smoothness + (1 - topology.smallest_eigenvalue) / step_size


def stated_strong_convexity(topology: Topology, strong_convexity: float, step_size: float) -> float:
    r"""The paper's strong convexity constant of V, which V does not have.

    .. math:: \hat H = H_m + \frac{1 - \lambda_2}{\alpha}

    :math:`I - \Pi` vanishes on consensus, so V is no more convex there than the losses are: the
    constant is :math:`H_m` itself. :math:`\hat H` holds orthogonally to consensus alone.

    Args:
        topology: the graph with its symmetric mixing matrix.
        strong_convexity: :math:`H_m`.
        step_size: :math:`\alpha > 0`.

    Returns:
        :math:`\hat H`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Section 4.
    """
    check_range("strong_convexity", strong_convexity, low=0)
    _check(step_size=step_size)
    return strong_convexity + (1 - topology.second_eigenvalue) / step_size


def descent_limit(topology: Topology, constants: Constants, step_size: float) -> float:
    r"""The paper's implicit limit of the step: its theorems ask for a step size of at most this.

    .. math:: \alpha \le \frac{\zeta_1}{\hat\gamma(\alpha) \, Q_m}

    It then takes V down by :math:`\frac{1}{2} \alpha \zeta_1 \|\nabla V\|^2` a step, up to noise.
    :func:`sufficient_step_limit` is the same solved for :math:`\alpha`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`, on which the right-hand side depends.

    Returns:
        The right-hand side.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), eq. 14.
    """
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size)
    return constants.alignment / (smoothness * constants.second_moment)


def sufficient_step_limit(topology: Topology, constants: Constants) -> float:
    r"""The paper's step limit, sufficient for its theorems.

    .. math:: \alpha \le \frac{\zeta_1 - (1 - \lambda_N) Q_m}{\gamma_m Q_m}

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.

    Returns:
        The limit. No step size satisfies it where it is 0 or less, as on every graph with
        :math:`\lambda_N \le 0`: rings, tori, and the complete graphs of the paper's own
        experiments.

    Raises:
        ValueError: if the smoothness is not positive.

    Reference: Jiang et al. (2017), eq. 15.
    """
    _check(smoothness=constants.smoothness)
    moment = constants.second_moment
    free = constants.alignment - (1 - topology.smallest_eigenvalue) * moment
    return free / (constants.smoothness * moment)


def tight_step_limit(
    topology: Topology, smoothness: float, *, momentum: float = 0.0, nesterov: bool = False
) -> float:
    r"""The step size from which on CDSGD and CDMSGD diverge on quadratics.

    .. math:: \alpha < \frac{1 + \lambda_N}{\gamma}, \qquad
              \alpha < \frac{1 + \lambda_N + 2 \mu}{\gamma}, \qquad
              \alpha < \frac{1 + \lambda_N + 2 \mu}{(1 + 2 \mu) \gamma}

    without momentum, with Polyak's and with Nesterov's. Each is necessary and sufficient when all
    agents have one Hessian with largest eigenvalue :math:`\gamma`. The first, which is
    :math:`\alpha \hat\gamma < 2`, is sufficient for V to fall whatever the losses.

    Args:
        topology: the graph with its symmetric mixing matrix.
        smoothness: :math:`\gamma`.
        momentum: :math:`\mu` in [0, 1).
        nesterov: whether momentum is Nesterov's.

    Returns:
        The limit.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: gradient descent and the heavy ball on V, eq. 9 of Jiang et al. (2017); the paper has
    none of the three.
    """
    _check(smoothness=smoothness)
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    limit = (1 + topology.smallest_eigenvalue + 2 * momentum) / smoothness
    return limit / (1 + 2 * momentum) if nesterov else limit


def guaranteed_descent(topology: Topology, constants: Constants, step_size: float) -> float:
    r"""How much of :math:`\frac{1}{2} \alpha \|\nabla V\|^2` a step takes off V, up to noise.

    .. math:: c = \min(\zeta_1, \; 2 \zeta_1 - \alpha \hat\gamma Q_m)

    The paper's :math:`\zeta_1` where eq. 14 holds. Beyond, it falls to 0 at twice that limit, which
    is the tight one for full gradients.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`.

    Returns:
        c; no descent is guaranteed where it is 0 or less.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: the proof of Theorem 1 of Jiang et al. (2017), without its use of eq. 14.
    """
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size)
    alignment = constants.alignment
    return min(alignment, 2 * alignment - step_size * smoothness * constants.second_moment)


def _check(**positive: float) -> None:
    for name, value in positive.items():
        check_range(name, value, low=0, low_open=True)
