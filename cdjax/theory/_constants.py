"""The constants of the paper's assumptions and of its Lyapunov function V, and the step limits."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

from cdjax._checks import check_choice, check_positive, check_range, check_topology
from cdjax.topology import Topology
from cdjax.topology._entries import largest_asymmetry
from cdjax.topology._topology import TOLERANCE

StatedForm: TypeAlias = Literal["definition", "theorem"]


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

    Reference: Jiang et al. (2017), Section 3.2, the definition after eq. 9.
    """
    check_symmetric(topology)
    check_positive("smoothness", smoothness)
    check_positive("step_size", step_size)
    return smoothness + (1 - topology.smallest_eigenvalue) / step_size


def stated_strong_convexity(
    topology: Topology,
    strong_convexity: float,
    *,
    step_size: float,
    form: StatedForm = "definition",
) -> float:
    r"""The strong convexity that the paper claims for V, in either of its forms; V has neither.

    .. math::
        \text{definition:}\quad & \hat H = H_m + (2 \alpha)^{-1} (1 - \lambda_2) \\
        \text{theorem:}\quad & \hat H = H_m + \alpha^{-1} (1 - \lambda_2)

    The second is what :math:`\alpha \hat H` stands for in the second line of eq. 17.
    :math:`I - \Pi` vanishes on consensus, so V is no more convex there than the losses are: the
    constant is :math:`H_m` itself. Orthogonally to consensus the second form holds.

    Args:
        topology: the graph with its symmetric mixing matrix.
        strong_convexity: :math:`H_m`.
        step_size: :math:`\alpha > 0`.
        form: whose :math:`\hat H`, that of its definition or that of Theorem 1.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Section 3.2, the definition before eq. 10; eq. 17.
    """
    check_symmetric(topology)
    check_range("strong_convexity", strong_convexity, low=0)
    check_positive("step_size", step_size)
    check_choice("form", form, get_args(StatedForm))
    # One agent has no λ₂, and I − Π = 0.
    gap = 1 - topology.second_eigenvalue if topology.num_agents > 1 else 0.0
    return strong_convexity + gap / (step_size if form == "theorem" else 2 * step_size)


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

    Reference: Jiang et al. (2017), eq. 15.
    """
    check_constants(constants)
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size=step_size)
    return constants.alignment / (smoothness * constants.second_moment)


def sufficient_step_limit(topology: Topology, constants: Constants) -> float:
    r"""The paper's step limit, sufficient for its theorems: eq. 15 solved.

    .. math:: \alpha \le \frac{\zeta_1 - (1 - \lambda_N) Q_m}{\gamma_m Q_m}

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.

    Returns:
        The limit. If it is 0 or less, no step size satisfies it. That is so on every graph with
        :math:`\lambda_N \le 0`, such as rings, tori, and the complete graphs of the paper.

    Raises:
        ValueError: if the smoothness is not positive.

    Reference: Jiang et al. (2017), the inequality after eq. 15.
    """
    return _step_limit(topology, constants, constants.alignment)


def necessary_step_limit(topology: Topology, constants: Constants) -> float:
    r"""The step size up to which the paper's Lemma 2 makes V fall: eq. 14 solved.

    .. math:: \alpha \le \frac{2 \zeta_1 - (1 - \lambda_N) Q_m}{\gamma_m Q_m}

    The paper calls :math:`\alpha \le 2 \zeta_1 / (\hat\gamma Q_m)` necessary: for the bound of
    Lemma 2 to fall, not for V. For full gradients it is :func:`tight_step_limit` without momentum.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.

    Returns:
        The limit. If it is 0 or less, no step size satisfies it.

    Raises:
        ValueError: if the smoothness is not positive.

    Reference: Jiang et al. (2017), eq. 14.
    """
    return _step_limit(topology, constants, 2 * constants.alignment)


def _step_limit(topology: Topology, constants: Constants, alignment: float) -> float:
    """α ≤ alignment / (γ̂(α) Q_m), solved for α."""
    check_symmetric(topology)
    check_constants(constants)
    moment = constants.second_moment
    free = alignment - (1 - topology.smallest_eigenvalue) * moment
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

    Reference: without momentum, Jiang et al. (2017), eq. 14 for full gradients; with momentum not
    in the paper: the heavy ball and Nesterov's method on its V, eq. 9.
    """
    check_symmetric(topology)
    check_positive("smoothness", smoothness)
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    limit = (1 + topology.smallest_eigenvalue + 2 * momentum) / smoothness
    return limit / (1 + 2 * momentum) if nesterov else limit


def guaranteed_descent(topology: Topology, constants: Constants, *, step_size: float) -> float:
    r"""The fraction of :math:`\frac{1}{2} \alpha \|\nabla V\|^2` by which a step surely reduces V.

    .. math:: c = 2 \zeta_1 - \alpha \hat\gamma Q_m

    Noise comes on top. Under eq. 15 c is :math:`\zeta_1` at least, with which the paper's theorems
    replace it. It falls to 0 at :func:`necessary_step_limit`, the tight one for full gradients.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`.

    Returns:
        c; if it is 0 or less, no descent is guaranteed.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Lemma 2, eq. 13.
    """
    check_constants(constants)
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size=step_size)
    return 2 * constants.alignment - step_size * smoothness * constants.second_moment


def check_constants(constants: Constants) -> None:
    """Raises unless the constants are as in Assumption 3."""
    check_positive("constants.smoothness", constants.smoothness)
    check_range("constants.strong_convexity", constants.strong_convexity, low=0)
    check_range("constants.noise", constants.noise, low=0)
    check_range("constants.noise_growth", constants.noise_growth, low=0)
    check_positive("constants.alignment", constants.alignment)
    check_range("constants.length", constants.length, low=constants.alignment)


def check_symmetric(topology: Topology) -> None:
    """Raises unless ``topology`` is one that the paper's theory is about."""
    check_topology(topology)
    _, apart = largest_asymmetry(topology.entries)
    if apart > TOLERANCE:
        raise ValueError(
            f"topology has a mixing matrix that differs from its transpose by {apart:.2g}; the "
            "theory is for symmetric ones, such as those of cdjax.topology.from_graph"
        )
