"""Numbers that say how well a topology, or one that changes, averages.

Vogels, Hendrikx, Jaggi, *Beyond Spectral Gap: The Role of the Topology in Decentralized Learning*,
NeurIPS 2022, arXiv:2206.03093.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cdjax._checks import check_positive, check_range, check_topology
from cdjax.topology._schedules import Schedule
from cdjax.topology._topology import Topology

_ROUNDING = 1e-12


def contraction(topology: Topology | Schedule) -> float:
    r"""By how much the worst disagreement shrinks per mix, :math:`\| \Pi - 11^\top / N \|_2`.

    The largest singular value, and so a bound on every step also where Π is not symmetric, where
    the spectral gap says only what many steps do. Of a schedule it is that of a whole period,
    :math:`\| \Pi^{(\tau - 1)} \cdots \Pi^{(0)} - 11^\top / N \|_2^{1 / \tau}`, per step.

    Args:
        topology: whose columns sum to one, as the mean is not kept otherwise.

    Returns:
        σ; 0 if one mix, or one period, ends in exact consensus, up to rounding.

    Example: ``cdjax.topology.contraction(cdjax.topology.ring(8))  # 0.804738``
    """
    if isinstance(topology, Schedule):
        norm = _disagreement_norm(topology.product())
        return float(norm ** (1 / topology.period)) if norm > _ROUNDING else 0.0
    check_topology(topology)
    return _disagreement_norm(topology.mixing_matrix)


def consensus_time(schedule: Topology | Schedule, tolerance: float = _ROUNDING) -> float:
    r"""The fewest steps after which disagreement is ``tolerance`` of what it was, at the worst.

    Args:
        schedule: a schedule, which starts at its first round, or a topology.
        tolerance: the share that may be left. By default it is rounding, so that the answer is
            finite for what reaches exact consensus, and for others many steps.

    Returns:
        The steps; infinity if a whole period does not contract.

    Example: ``cdjax.topology.consensus_time(cdjax.topology.one_peer_exponential(8))  # 3``
    """
    check_positive("tolerance", tolerance)
    if isinstance(schedule, Schedule):
        matrices = [schedule.mixing_matrix(step) for step in range(schedule.period)]
    else:
        check_topology(schedule)
        matrices = [schedule.mixing_matrix]
    num_agents = len(matrices[0])
    deviation = np.eye(num_agents) - 1 / num_agents
    largest = np.linalg.norm(deviation, 2)
    steps = 0
    if largest <= tolerance:
        return steps
    while True:
        before = largest
        for matrix in matrices:
            deviation = matrix @ deviation
            steps += 1
            # The Frobenius norm is at most √N times the largest singular value, which takes long.
            is_close = np.linalg.norm(deviation) <= np.sqrt(num_agents) * tolerance
            if is_close and np.linalg.norm(deviation, 2) <= tolerance:
                return steps
        largest = np.linalg.norm(deviation, 2)
        if largest >= before * (1 - _ROUNDING):
            return np.inf


def effective_neighbors(
    topology: Topology | Float[np.ndarray, "agents agents"], decay: float
) -> float:
    r"""With how many others an agent seems to average, where what is averaged ages.

    .. math:: n_\Pi(\gamma) = \frac{1 / (1 - \gamma)}
              {\frac 1 N \sum_{t \ge 0} \gamma^t \| \Pi^{t + 1} \|_F^2}
              = \frac{1 / (1 - \gamma)}{\frac 1 N \sum_i \lambda_i^2 / (1 - \gamma \lambda_i^2)}

    The ratio of the variances of two random walks with noise of unit variance in every step: of
    agents on their own, :math:`y \leftarrow \sqrt\gamma y + \xi`, and of agents that mix,
    :math:`z \leftarrow \Pi (\sqrt\gamma z + \xi)`. It is 1 without communication and N for exact
    averages; graphs of equal spectral gap differ in it. The second form, for symmetric Π, is the
    paper's.

    Args:
        topology: the graph and its mixing matrix.
        decay: γ in [0, 1), the share of the variance that is left after a step; in the paper
            it is fitted to a task, 0.951 for CIFAR-10.

    Returns:
        Between 1 and N for doubly stochastic Π.

    Example: ``cdjax.topology.effective_neighbors(cdjax.topology.ring(32), 0.951)``

    Reference: Vogels et al. (2022), Section 3, "effective number of neighbors" (equation number
    not verified).
    """
    check_range("decay", decay, low=0, high=1, high_open=True)
    if isinstance(topology, Topology):
        topology = topology.mixing_matrix
    # Σ γ^t Π^t Q Π^tᵀ by doubling, after k rounds of which the sum has 2^k terms.
    total, power = topology @ topology.T, np.sqrt(decay) * topology
    while np.max(np.abs(power)) > _ROUNDING:
        total = total + power @ total @ power.T
        power = power @ power
    return float(len(topology) / (1 - decay) / np.trace(total))


def _disagreement_norm(matrix: Float[np.ndarray, "agents agents"]) -> float:
    return float(np.linalg.norm(matrix - 1 / len(matrix), 2))
