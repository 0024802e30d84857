"""Eigenvalues of a mixing matrix from its entries: in closed form, by Lanczos, or all of them.

Lanczos's method as in Lehoucq, Sorensen, Yang, *ARPACK Users' Guide*, SIAM 1998.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from cdjax.topology._entries import Entries, largest_asymmetry

# Decimal weights that people write into files are rounded to about this; float64 is far finer.
TOLERANCE = 1e-8
# Up to so many agents all eigenvalues take 2 s, and time with the cube of their number.
MOST_SOLVED = 2000
# Weights that are equal by construction differ by rounding.
_ROUNDING = 1e-14
# Restarts of Lanczos's method, of up to 20 products each, before it inverts.
_MOST_RESTARTS = 40
# How far above 1 the inverted matrix is shifted, so that it is regular.
_SHIFT = 1e-7


class Extremes(NamedTuple):
    """The eigenvalues that decide how fast a symmetric Π mixes."""

    second: float
    smallest: float


def closed_form(
    entries: Entries, laplacian: Float[np.ndarray, " agents"] | None
) -> Num[np.ndarray, " agents"] | None:
    r"""All eigenvalues of a mixing matrix whose structure gives them; None for others.

    - Of a circulant matrix, :math:`\Pi_{jl} = c_{(l - j) \bmod N}` (rings, complete and exponential
      graphs), they are the Fourier transform of c.
    - With the same weight w on all edges they are :math:`1 - w \lambda(L)`, for graphs whose
      Laplacian's eigenvalues are known.
    """
    first_row = _circulant_row(entries)
    if first_row is not None:
        spectrum = np.fft.fft(first_row).conj()
        return spectrum.real if largest_asymmetry(entries)[1] <= TOLERANCE else spectrum
    weights = entries.off_diagonal.weights
    if laplacian is None or not len(weights) or len(weights) != round(float(laplacian.sum())):
        return None
    if np.ptp(weights) > _ROUNDING or np.max(np.abs(entries.row_sums() - 1)) > _ROUNDING:
        return None
    return 1 - weights[0] * laplacian


def extremes(entries: Entries) -> Extremes:
    """λ2 and λ_N of a large symmetric Π with rows that sum to one, by Lanczos's method."""
    matrix = _sparse(entries)
    # Without the eigenvector of ones, whose eigenvalue of 1 becomes −1: λ2 is the largest then.
    ones = np.ones(entries.num_agents)
    deflated = lambda x: matrix @ x - 2 * np.mean(x) * ones  # noqa: E731
    second = _end(deflated, entries.num_agents, "LA")
    smallest = _end(lambda x: matrix @ x, entries.num_agents, "SA")
    if second is None:
        second = 1 + _SHIFT - 1 / _largest_inverse(matrix, shift=1 + _SHIFT, sign=1, deflate=True)
    if smallest is None:
        smallest = 1 / _largest_inverse(matrix, shift=1 + _SHIFT, sign=-1, deflate=False)
        smallest -= 1 + _SHIFT
    return Extremes(float(second), float(smallest))


def _circulant_row(entries: Entries) -> Float[np.ndarray, " agents"] | None:
    """The first row of a circulant matrix; None for other matrices."""
    num_agents, per_row = entries.num_agents, np.bincount(entries.receivers)
    if len(per_row) != num_agents or np.ptp(per_row):
        return None
    shifts = (entries.senders - entries.receivers) % num_agents
    shifts, weights = shifts.reshape(num_agents, -1), entries.weights.reshape(num_agents, -1)
    order = np.argsort(shifts, axis=1)
    shifts = np.take_along_axis(shifts, order, axis=1)
    if (shifts != shifts[:1]).any():
        return None
    weights = np.take_along_axis(weights, order, axis=1)
    if np.max(np.abs(weights - weights[:1])) > _ROUNDING:
        return None
    row = np.zeros(num_agents)
    row[shifts[0]] = weights[0]
    return row


def _sparse(entries: Entries) -> Any:
    from scipy import sparse  # JAX needs SciPy, but a small topology does not wait for its import

    shape = entries.num_agents, entries.num_agents
    return sparse.csr_array((entries.weights, (entries.receivers, entries.senders)), shape=shape)


def _end(product: Any, size: int, which: str, *, restarts: int = _MOST_RESTARTS) -> float | None:
    """The largest ("LA") or smallest ("SA") eigenvalue; None if that takes too long."""
    from scipy.sparse import linalg

    operator = linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = np.random.default_rng(0).standard_normal(size)
    options: Any = {"v0": start, "maxiter": restarts, "return_eigenvectors": False}
    try:
        return float(linalg.eigsh(operator, 1, which=which, **options)[0])
    except linalg.ArpackNoConvergence:
        return None


def _largest_inverse(matrix: Any, *, shift: float, sign: int, deflate: bool) -> float:
    """The largest eigenvalue of (shift I − sign Π)⁻¹, orthogonally to consensus if asked.

    Eigenvalues that lie densely at the end of Π's spectrum, where Lanczos's method is slow, lie far
    apart in its inverse's. Graphs that mix so slowly are long and thin, and have sparse factors.
    """
    from scipy import sparse
    from scipy.sparse import linalg

    size = matrix.shape[0]
    factors = linalg.splu(sparse.csc_matrix(shift * sparse.eye_array(size) - sign * matrix))

    def solve(x: np.ndarray) -> np.ndarray:
        solved = factors.solve(x - np.mean(x) if deflate else x)
        return solved - np.mean(solved) if deflate else solved

    largest = _end(solve, size, "LA", restarts=10 * size)
    assert largest is not None  # ten restarts per agent are ARPACK's own limit
    return largest
