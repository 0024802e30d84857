"""Theorems 1 and 2, as stated and corrected: how fast V and its gradient decrease."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from cdjax._checks import check_count, check_range, per_step
from cdjax.theory._constants import (
    Constants,
    StatedForm,
    check_constants,
    check_symmetric,
    guaranteed_descent,
    lyapunov_smoothness,
    stated_strong_convexity,
)
from cdjax.topology import Topology


def stated_lyapunov_bound(
    topology: Topology,
    constants: Constants,
    *,
    step_size: float,
    initial_gap: float,
    num_steps: int,
    form: StatedForm = "definition",
) -> Float[np.ndarray, " steps"]:
    r"""The paper's bound on :math:`V - V^*` for a fixed step and strongly convex losses.

    .. math:: E[V(x_k) - V^*] \le (1 - \alpha \hat H \zeta_1)^{k - 1} (V(x_1) - V^*)
              + \frac{\alpha^2 \hat\gamma Q}{2} \sum_{l=0}^{k-1} (1 - \alpha \hat H \zeta_1)^l

    with the paper's count of steps from :math:`x_1`, the start. It fails, and
    :func:`lyapunov_bound` holds: :math:`\hat H` is not the strong convexity of V in either form,
    see :func:`stated_strong_convexity`. On the lazy ring of five with :math:`\alpha = 0.1` and all
    :math:`f_j = \frac{1}{2} x^2`, a step multiplies V by 0.81. The bound says 0.785 by the
    definition of :math:`\hat H` and 0.670 by the second line of eq. 17.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`; the paper requires eq. 15, which is not checked.
        initial_gap: :math:`V(x_1) - V^*`.
        num_steps: K.
        form: of :math:`\hat H`, see :func:`stated_strong_convexity`.

    Returns:
        The bound at the start and the K - 1 points after it, shape (K,); for small λ2 it may be
        negative.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Theorem 1, eq. 17.
    """
    check_range("initial_gap", initial_gap, low=0)
    convexity = stated_strong_convexity(
        topology, constants.strong_convexity, step_size=step_size, form=form
    )
    powers = (1 - step_size * convexity * constants.alignment) ** np.arange(num_steps)
    noise = _noise(topology, constants, step_size) * np.cumsum(powers)
    return powers * initial_gap + noise


def stated_neighborhood(
    topology: Topology, constants: Constants, *, step_size: float, form: StatedForm = "definition"
) -> float:
    r"""The paper's limit of :math:`V - V^*` as the steps go on, in either of its forms.

    .. math::
        \text{definition:}\quad & \frac{\alpha \hat\gamma Q}{2 \hat H \zeta_1} \\
        \text{theorem:}\quad & \frac{(\alpha \gamma_m + 1 - \lambda_N) Q}
                              {2 (H_m + \alpha^{-1} (1 - \lambda_2) \zeta_1)}

    The paper says that they are equal. They are not: the second has lost the ½ of :math:`\hat H`,
    and :math:`\zeta_1` multiplies only one of its terms. What holds is
    :math:`(\alpha \gamma_m + 1 - \lambda_N) Q / (2 H_m \zeta_1)`, see :func:`lyapunov_bound`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_size: :math:`\alpha > 0`.
        form: which of the two.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), the limit after Theorem 1.
    """
    convexity, alignment = constants.strong_convexity, constants.alignment
    stated = stated_strong_convexity(topology, convexity, step_size=step_size, form=form)
    by_alignment = stated * alignment
    if form == "theorem":
        by_alignment = convexity + (stated - convexity) * alignment
    return _noise(topology, constants, step_size) / (step_size * by_alignment)


def lyapunov_bound(
    topology: Topology,
    constants: Constants,
    *,
    step_sizes: npt.ArrayLike,
    initial_gap: float,
    distances: npt.ArrayLike | None = None,
) -> Float[np.ndarray, " steps"]:
    r"""A bound on :math:`V - V^*` for step sizes that do not grow: Theorem 1 corrected.

    .. math:: \Delta_{k+1} = (1 - \alpha_k H_m c_k) \, \Delta_k
              + \frac{\alpha_k^2 \hat\gamma_k Q}{2}
              + \frac{1 - \lambda_N}{2} \left( \frac{1}{\alpha_{k+1}} - \frac{1}{\alpha_k} \right)
              d_{k+1}^2

    with :math:`c_k` of :func:`guaranteed_descent`, at least :math:`\zeta_1` where the paper's
    eq. 15 holds. The last term, 0 for a fixed step, is there because V itself grows as the step
    diminishes. The bound tends to :math:`(\alpha \gamma_m + 1 - \lambda_N) Q / (2 H_m c)`, which
    does not vanish with :math:`\alpha`; :func:`mean_error_bound` does.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients.
        step_sizes: :math:`\alpha_0 \ge ... \ge \alpha_{K-1} > 0`, shape (K,).
        initial_gap: :math:`V(x_0, \alpha_0) - V^*(\alpha_0)`.
        distances: :math:`d_k \ge \| x_k - s_k \|`, shape (K,); see :func:`consensus_bound`. Needed
            if the step sizes differ.

    Returns:
        The bound on :math:`E[V(x_k, \alpha_k) - V^*(\alpha_k)]` for k = 0, ..., K-1, shape (K,);
        infinite after a step size for which no descent is guaranteed.

    Raises:
        ValueError: if an argument is out of its range, or ``distances`` are missing.

    Example::

        constants = cdjax.theory.Constants(smoothness=1.0, strong_convexity=0.1)
        bound = cdjax.theory.lyapunov_bound(topology, constants, step_sizes=[0.1], initial_gap=1.0)

    Reference: Jiang et al. (2017), Theorem 1, corrected, and for diminishing steps.
    """
    check_symmetric(topology)
    check_range("initial_gap", initial_gap, low=0)
    step_sizes = _check_falling(step_sizes)
    drift = _drift(topology, step_sizes, distances)
    bounds, bound = [], initial_gap
    for step_size, growth in zip(step_sizes, drift, strict=True):
        bounds.append(bound)
        descent = guaranteed_descent(topology, constants, step_size=step_size)
        contraction = 1 - step_size * constants.strong_convexity * descent
        noise = _noise(topology, constants, step_size)
        bound = contraction * bound + noise + growth if descent >= 0 else math.inf
    return np.array(bounds, np.float64)


def stated_stationarity_bound(
    topology: Topology,
    constants: Constants,
    *,
    step_size: float,
    initial_gap: float,
    num_steps: int,
) -> float:
    r"""The paper's bound on the mean squared gradient of V, for a fixed step and smooth losses.

    .. math:: \frac{1}{K} \sum_{k < K} E \|\nabla V(x_k)\|^2 \le \frac{\alpha \hat\gamma Q}{\zeta_1}
              + \frac{2 (V(x_0) - V_{\inf})}{K \alpha \zeta_1}

    It holds under the paper's eq. 15, which is not checked and which on many graphs no step size
    meets, see :func:`sufficient_step_limit`; :func:`stationarity_bound` only needs the tight limit.
    It bounds the gradient of V, not that of the sum of the losses: the former vanishes where the
    agents still disagree by :math:`O(\alpha)`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients; their convexity is not used.
        step_size: :math:`\alpha > 0`.
        initial_gap: :math:`V(x_0) - V_{\inf}`.
        num_steps: K, at least 1.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Jiang et al. (2017), Theorem 2, eq. 18, divided by the number of steps.
    """
    check_symmetric(topology)
    check_range("initial_gap", initial_gap, low=0)
    check_count("num_steps", num_steps, low=1)
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size=step_size)
    noise = step_size * smoothness * constants.noise
    return (noise + 2 * initial_gap / (num_steps * step_size)) / constants.alignment


def stationarity_bound(
    topology: Topology,
    constants: Constants,
    *,
    step_sizes: npt.ArrayLike,
    initial_gap: float,
    distances: npt.ArrayLike | None = None,
) -> float:
    r"""A bound on the mean squared gradient of V, for step sizes that do not grow.

    .. math:: \frac{\sum_k \alpha_k c_k E \|\nabla V(x_k, \alpha_k)\|^2}{\sum_k \alpha_k c_k} \le
              \frac{2 \Delta_0 + \sum_k \alpha_k^2 \hat\gamma_k Q + (1 - \lambda_N) \sum_k
              (1 / \alpha_{k+1} - 1 / \alpha_k) \, d_{k+1}^2}{\sum_k \alpha_k c_k}

    with :math:`\Delta_0 = V(x_0, \alpha_0) - V_{\inf}(\alpha_0)` and :math:`c_k` of
    :func:`guaranteed_descent`. For a fixed step that satisfies the paper's eq. 15, it is Theorem 2
    or less.

    Args:
        topology: the graph with its symmetric mixing matrix.
        constants: of the losses and their gradients; their convexity is not used.
        step_sizes: :math:`\alpha_0 \ge ... \ge \alpha_{K-1} > 0`, shape (K,).
        initial_gap: :math:`\Delta_0`.
        distances: :math:`d_k`, see :func:`lyapunov_bound`.

    Returns:
        The bound on the weighted mean over k = 0, ..., K-1; infinite if no descent is guaranteed.

    Raises:
        ValueError: if an argument is out of its range, or ``distances`` are missing.

    Reference: Jiang et al. (2017), Theorem 2, up to the tight limit and for diminishing steps.
    """
    check_symmetric(topology)
    check_range("initial_gap", initial_gap, low=0)
    step_sizes = _check_falling(step_sizes)
    descents = [guaranteed_descent(topology, constants, step_size=alpha) for alpha in step_sizes]
    if min(descents) <= 0:
        return math.inf
    noise = sum(_noise(topology, constants, step_size) for step_size in step_sizes)
    rise = noise + _drift(topology, step_sizes, distances).sum()
    return float(2 * (initial_gap + rise) / np.dot(step_sizes, descents))


def _noise(topology: Topology, constants: Constants, step_size: float) -> float:
    """How much the gradients' noise raises V in a step at most, α² γ̂ Q / 2."""
    check_constants(constants)
    smoothness = lyapunov_smoothness(topology, constants.smoothness, step_size=step_size)
    return step_size**2 * smoothness * constants.noise / 2


def _drift(
    topology: Topology, step_sizes: np.ndarray, distances: npt.ArrayLike | None
) -> np.ndarray:
    """How much V grows from each point to the next because the step size falls; 0 at the last."""
    # V = Σ f + ‖x‖²_{I−Π} / (2 α), of which ‖x‖²_{I−Π} ≤ (1 − λ_N) ‖x − s‖².
    growth = np.append(np.diff(1 / step_sizes), 0) * (1 - topology.smallest_eigenvalue) / 2
    if distances is None and growth.any():
        raise ValueError("the step sizes differ; give distances=cdjax.theory.consensus_bound(...)")
    if distances is None:
        return growth
    distances = per_step("distances", distances, len(step_sizes))
    return growth * np.append(distances[1:], 0) ** 2


def _check_falling(step_sizes: npt.ArrayLike) -> np.ndarray:
    array = per_step("step_sizes", step_sizes)
    if not len(array) or array.min() <= 0 or np.any(np.diff(array) > 0):
        raise ValueError("step_sizes must be positive and never grow; the bound needs both")
    return array
