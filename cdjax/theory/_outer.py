r"""Which outer steps and momenta are stable, for rounds of local steps.

All limits are those of a linear recursion, written in the docstring, and tight for it: agents whose
losses are quadratic and share their eigenvectors obey it, and so does the disagreement of agents
with flat losses. Nothing here is from a paper; the tests compare with what the algorithms do.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cdjax._checks import check_count, check_positive, check_range, real_array
from cdjax.theory._constants import check_symmetric
from cdjax.topology import Topology


def outer_step_limit(
    topology: Topology,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    contractions: npt.ArrayLike | None = None,
) -> float:
    r"""The outer step size below which rounds of :func:`cdjax.outer` with momentum SGD converge.

    .. math::
        \eta \, \nu < \frac{2 + 2 \mu}{1 + 2 \mu} \;\text{ (Nesterov)}, \qquad
        \eta \, \nu < 2 + 2 \mu \;\text{ (heavy ball)}

    where :math:`\nu` is the largest eigenvalue of :math:`I - \Pi \, \mathrm{diag}(q)`: the outer
    gradient is linear in the slow parameters, and agent j's local steps take its distance from its
    own optimum to :math:`q_j` of it. Flat losses have :math:`q = 1` and
    :math:`\nu = 1 - \lambda_N`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        momentum: :math:`\mu` in [0, 1), of ``optax.sgd(η, momentum=μ, nesterov=nesterov)``.
        nesterov: whether it is Nesterov's.
        contractions: :math:`q_j` in [0, 1], shape (N,): :math:`(1 - \alpha h_j)^H` after H steps of
            ``optax.sgd(α)`` along a curvature :math:`h_j`. By default 1, for the disagreement.

    Returns:
        The limit of :math:`\eta`; infinite if nothing moves.

    Raises:
        ValueError: if an argument is out of its range.

    Example::

        limit = cdjax.theory.outer_step_limit(cdjax.topology.complete(8), momentum=0.9)
        assert abs(limit - 3.8 / 2.8) < 1e-12
    """
    check_symmetric(topology)
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    num_agents = topology.num_agents
    q = np.ones(num_agents) if contractions is None else real_array("contractions", contractions)
    if q.shape != (num_agents,):
        raise ValueError(f"contractions has shape {q.shape}; expected one per agent, {num_agents}")
    check_range("contractions", q, low=0, high=1)
    # Π diag(q) has the eigenvalues of the symmetric diag(√q) Π diag(√q).
    root = np.sqrt(q)
    smallest = np.linalg.eigvalsh(root[:, None] * topology.mixing_matrix * root)[0]
    allowed = (2 + 2 * momentum) / (1 + 2 * momentum) if nesterov else 2 + 2 * momentum
    return allowed / (1 - smallest) if smallest < 1 else math.inf


def check_outer_step(
    topology: Topology, learning_rate: float, *, momentum: float = 0.9, nesterov: bool = True
) -> None:
    """Raises if the agents' disagreement would grow in every round of :func:`cdjax.outer`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        learning_rate: the outer optimizer's.
        momentum: the outer optimizer's, in [0, 1).
        nesterov: whether it is Nesterov's.

    Raises:
        ValueError: if the step size is not below :func:`outer_step_limit`; the error says it.

    Example: ``cdjax.theory.check_outer_step(cdjax.topology.complete(8), 0.7)``
    """
    check_positive("learning_rate", learning_rate)
    limit = outer_step_limit(topology, momentum=momentum, nesterov=nesterov)
    if learning_rate >= limit:
        raise ValueError(
            f"learning_rate is {learning_rate}; with momentum {momentum} on {topology.name} agents "
            f"come apart from {limit:.6g} on; give less, or weights 'lazy', (I + Π)/2"
        )


def random_pairs_step_limit(
    num_agents: int, *, momentum: float = 0.5, nesterov: bool = False
) -> float:
    r"""The outer step size below which agents that meet in random pairs stay together.

    For :func:`cdjax.outer` with ``mixing.pull(mixing.random_pairs(complete))`` and flat losses, in
    mean square. With heavy ball, the recursion of NoLoCo,

    .. math:: \gamma < \frac{2 (1 - \mu^2)}{1 - \mu / (N - 1)}

    so that NoLoCo's released default, :math:`\mu = 0.9` and :math:`\gamma = 0.7`, diverges from 4
    agents on. With Nesterov's momentum the limit is where the second moments of
    :math:`\varphi` and of the momentum cease to contract.

    Args:
        num_agents: N, even.
        momentum: :math:`\mu` in [0, 1), of ``optax.sgd(γ, momentum=μ, nesterov=nesterov)``.
        nesterov: whether it is Nesterov's.

    Returns:
        The limit of :math:`\gamma`.

    Raises:
        ValueError: if the number of agents is odd, or the momentum out of its range.

    Example: ``assert abs(cdjax.theory.random_pairs_step_limit(4, momentum=0.9) - 0.542857) < 1e-6``
    """
    check_count("num_agents", num_agents, low=2)
    if num_agents % 2:
        raise ValueError(f"num_agents is {num_agents}; agents that all meet in pairs are even many")
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    if not nesterov:
        return 2 * (1 - momentum**2) / (1 - momentum / (num_agents - 1))
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        moments = random_pairs_moments(num_agents, middle, momentum=momentum, nesterov=True)
        stable = np.max(np.abs(np.linalg.eigvals(moments))) < 1
        low, high = (middle, high) if stable else (low, middle)
    return low


def random_pairs_moments(
    num_agents: int, learning_rate: float, *, momentum: float, nesterov: bool = False
) -> np.ndarray:
    r"""How the second moments of agents that meet in random pairs change in a round.

    With :math:`\tilde\varphi` the slow parameters' distance from their mean and m the momentum's,
    both with flat losses, and :math:`D = I - \Pi` of the round, a random projection with mean
    :math:`c = N / (2 (N - 1))`:

    .. math::
        m^+ = \mu m + D \tilde\varphi, \qquad
        \tilde\varphi^+ = \tilde\varphi - \gamma m^+ \;\text{ or }\;
        \tilde\varphi - \gamma (D \tilde\varphi + \mu m^+)

    Args:
        num_agents: N, even.
        learning_rate: :math:`\gamma`.
        momentum: :math:`\mu` in [0, 1).
        nesterov: the second form.

    Returns:
        The matrix, shape (3, 3), that multiplies
        :math:`(E \|\tilde\varphi\|^2, E \langle \tilde\varphi, m \rangle, E \|m\|^2)`.

    Example::

        moments = cdjax.theory.random_pairs_moments(4, 0.5, momentum=0.0)
        assert abs(moments[0, 0] - (1 - 4 / 6 * 0.75)) < 1e-12
    """
    c, mu = num_agents / (2 * (num_agents - 1)), momentum
    # φ⁺ = φ − a Dφ − b m and m⁺ = Dφ + μ m; D is a projection, so ⟨Dφ, Dφ⟩ = ⟨φ, Dφ⟩.
    a, b = learning_rate * (1 + mu if nesterov else 1), learning_rate * (mu**2 if nesterov else mu)
    return np.array(
        [
            [1 - 2 * a * c + a**2 * c, -2 * b + 2 * a * b * c, b**2],
            [c - a * c, mu - a * mu * c - b * c, -b * mu],
            [c, 2 * mu * c, mu**2],
        ]
    )


def momentum_before_mix_limit(topology: Topology) -> float:
    r"""The momentum below which :func:`cdjax.accelerated_outer` may apply it before the mix.

    .. math:: \gamma < \frac{1}{2} \left( \frac{1}{|\lambda_N|} - 1 \right)
              \;\text{ if } \lambda_N < 0, \text{ else } 1

    Along an eigenvector of :math:`\lambda` the points obey
    :math:`y_{t+1} = \lambda (1 + \gamma) y_t - \lambda \gamma y_{t-1}`. With the momentum after the
    mix every :math:`\gamma < 1` is stable.

    Args:
        topology: the graph with its symmetric mixing matrix.

    Returns:
        The limit, at most 1; 1/3 on the torus of 4 × 4 agents.

    Example::

        limit = cdjax.theory.momentum_before_mix_limit(cdjax.topology.torus(16))
        assert abs(limit - 1 / 3) < 1e-12
    """
    check_symmetric(topology)
    smallest = topology.smallest_eigenvalue
    return min(1.0, (1 / -smallest - 1) / 2) if smallest < 0 else 1.0


def check_momentum_before_mix(topology: Topology, momentum: float) -> None:
    """Raises if momentum before the mix would drive agents apart.

    Args:
        topology: the graph with its symmetric mixing matrix.
        momentum: of :func:`cdjax.accelerated_outer` with ``momentum_before_mix``.

    Raises:
        ValueError: if it is not below :func:`momentum_before_mix_limit`; the error says the remedy.

    Example: ``cdjax.theory.check_momentum_before_mix(cdjax.topology.torus(16), 0.3)``
    """
    check_range("momentum", momentum, low=0, high=1, high_open=True)
    limit = momentum_before_mix_limit(topology)
    if momentum >= limit:
        raise ValueError(
            f"momentum is {momentum}; before the mix on {topology.name} agents come apart from "
            f"{limit:.6g} on; use weights 'lazy', (I + Π)/2, or momentum after the mix"
        )


def gossip_momentum(topology: Topology) -> float:
    r"""The momentum with which accelerated gossip reaches consensus fastest.

    .. math:: \gamma = \left( 1 - \sqrt{1 - \lambda_2} \right)^2

    With it disagreement falls by :math:`1 - \sqrt{1 - \lambda_2}` per mix and not by
    :math:`\lambda_2`, where :math:`\lambda_2 \ge -\lambda_N`.

    Args:
        topology: the graph with its symmetric mixing matrix.

    Returns:
        The momentum :math:`\gamma` of :func:`cdjax.accelerated_outer`, applied after the mix.

    Example::

        rate = cdjax.theory.gossip_momentum(cdjax.topology.ring(8)) ** 0.5
        assert round(rate, 6) == 0.558115
    """
    check_symmetric(topology)
    return (1 - math.sqrt(max(0.0, 1 - topology.second_eigenvalue))) ** 2


def led_gain_limit(topology: Topology, *, learning_rate: float, period: int) -> float:
    r"""The gain of :func:`cdjax.led` below which the disagreement of agents contracts.

    .. math:: \kappa < \frac{2}{\alpha \tau} \cdot \frac{1 + \lambda_N}{1 - \lambda_N}

    for ``optax.sgd(α)`` and flat losses: along an eigenvector of :math:`\lambda` the roots are
    those of :math:`z^2 - (1 + \lambda - \alpha \tau \kappa (1 - \lambda)) z + \lambda`. With one
    step and :math:`\kappa = 1 / \alpha`, exact diffusion, it says :math:`\lambda_N > -1/3`.

    Args:
        topology: the graph with its symmetric mixing matrix.
        learning_rate: :math:`\alpha > 0`.
        period: τ, in steps.

    Returns:
        The limit, in gradients per parameter; infinite if agents do not mix.

    Raises:
        ValueError: if an argument is out of its range.

    Example::

        limit = cdjax.theory.led_gain_limit(cdjax.topology.ring(8), learning_rate=0.1, period=1)
        assert abs(limit - 1 / 0.1) < 1e-9
    """
    check_symmetric(topology)
    check_positive("learning_rate", learning_rate)
    check_count("period", period, low=1)
    smallest = topology.smallest_eigenvalue
    if smallest >= 1:
        return math.inf
    return 2 / (learning_rate * period) * (1 + smallest) / (1 - smallest)
