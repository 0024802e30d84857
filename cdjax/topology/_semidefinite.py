"""A small interior-point method for convex problems whose constraints are on a graph's Laplacian.

Boyd, Vandenberghe, *Convex Optimization*, Cambridge University Press 2004, Section 11.6 (the
barrier method for semidefinite programs).
"""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Float

# The bound on how far the objective is from its minimum, at the end.
_GAP = 1e-9
# By how much the weight of the objective grows from one centre to the next.
_GROWTH = 20.0
_MOST_NEWTON_STEPS = 200
# Relative to a diagonal of ones; for a Hessian that is singular up to rounding.
_RIDGE = 1e-14


class MatrixInequality(NamedTuple):
    """The constraint that ``constant + V diag(terms @ y) V.T`` is positive definite."""

    constant: Float[np.ndarray, "size size"]
    terms: Float[np.ndarray, "columns variables"]


def minimize(
    cost: Float[np.ndarray, " variables"],
    start: Float[np.ndarray, " variables"],
    *,
    columns: Float[np.ndarray, "size columns"],
    inequalities: list[MatrixInequality],
    slopes: Float[np.ndarray, "bounds variables"],
    limits: Float[np.ndarray, " bounds"],
) -> Float[np.ndarray, " variables"]:
    r"""The y that minimizes a linear cost under matrix inequalities and ``slopes @ y <= limits``.

    .. math:: \min_y \; t \, c^\top y - \sum_i \log\det S_i(y) - \sum_b \log(d_b - D_b y)

    by Newton's method for growing t; at the minimum the cost is within (number of rows) / t of the
    least. With :math:`K_i = V^\top S_i^{-1} V`, the Hessian of a log-determinant is
    :math:`R_i^\top (K_i \circ K_i) R_i`, as every variable moves :math:`S_i` by columns of V.

    Args:
        cost: c.
        start: a y for which all inequalities are strict.
        columns: V, of which each column adds a matrix of rank one.
        inequalities: with their constants and terms :math:`R_i`.
        slopes: D.
        limits: d.
    """
    y, num_rows = start, len(limits) + sum(len(one.constant) for one in inequalities)
    weight = 1.0

    def matrices(y: np.ndarray) -> list[np.ndarray]:
        return [one.constant + (columns * (one.terms @ y)) @ columns.T for one in inequalities]

    def value(y: np.ndarray) -> float:
        slack = limits - slopes @ y
        if (slack <= 0).any():
            return np.inf
        try:
            roots = [np.linalg.cholesky(matrix) for matrix in matrices(y)]
        except np.linalg.LinAlgError:
            return np.inf
        logs = sum(2 * np.log(root.diagonal()).sum() for root in roots)
        return weight * (cost @ y) - logs - np.log(slack).sum()

    while True:
        for _ in range(_MOST_NEWTON_STEPS):
            slack = limits - slopes @ y
            gradient = weight * cost + slopes.T @ (1 / slack)
            hessian = slopes.T @ (slopes / slack[:, None] ** 2)
            for one, matrix in zip(inequalities, matrices(y), strict=True):
                kernel = columns.T @ np.linalg.solve(matrix, columns)
                gradient = gradient - one.terms.T @ kernel.diagonal()
                hessian = hessian + one.terms.T @ (kernel * kernel) @ one.terms
            # Scaled to a diagonal of ones: near the end the entries differ by many powers of ten.
            scale = 1 / np.sqrt(hessian.diagonal())
            scaled = scale[:, None] * hessian * scale + _RIDGE * np.eye(len(y))
            step = scale * np.linalg.solve(scaled, -scale * gradient)
            decrement = -gradient @ step
            before, length = value(y), 1.0
            while value(y + length * step) > before - 0.25 * length * decrement and length > 1e-10:
                length /= 2
            if length <= 1e-10:  # rounding hides any further progress
                break
            y = y + length * step
            if decrement < 1e-8:
                break
        if num_rows / weight < _GAP:
            return y
        weight *= _GROWTH


def incidence(graph: nx.Graph) -> Float[np.ndarray, "agents edges"]:
    """A column per edge, in the graph's order: 1 at one end, -1 at the other."""
    ends = np.array(graph.edges, int).reshape(-1, 2)
    matrix = np.zeros((graph.number_of_nodes(), len(ends)))
    matrix[ends[:, 0], np.arange(len(ends))] = 1.0
    matrix[ends[:, 1], np.arange(len(ends))] = -1.0
    return matrix


def disagreements(num_agents: int) -> Float[np.ndarray, "agents directions"]:
    """An orthonormal basis of the directions in which agents differ."""
    constant = np.ones((num_agents, 1))
    return np.linalg.qr(np.hstack([constant, np.eye(num_agents)[:, 1:]]))[0][:, 1:]
