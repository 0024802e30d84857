"""The largest ratio of a cycle in a graph.

Dasdan, *Experimental analysis of the fastest optimum cycle ratio and mean algorithms*, ACM TODAES
2004, compares such algorithms (not verified). This one is of the kind that raises a lower bound
from cycle to cycle, as Howard's policy iteration does, and ends with a proof that none is above it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Edges(NamedTuple):
    """What has to happen before what: ``t_head(k) >= t_tail(k - delay) + weight``."""

    tails: Int[np.ndarray, " edges"]
    heads: Int[np.ndarray, " edges"]
    weights: Float[np.ndarray, " edges"]
    delays: Int[np.ndarray, " edges"]


def critical_cycle(edges: Edges, num_nodes: int) -> tuple[float, Int[np.ndarray, " cycle"]]:
    """The largest sum of weights over sum of delays of a cycle, and the edges of one that has it.

    With λ the ratio of some cycle, edges weigh ``weight - λ delay``. If there are potentials x with
    ``x_head >= x_tail + weight - λ delay`` for all edges, their sum around any cycle says that its
    ratio is at most λ. Potentials are raised where they are too low (Bellman and Ford); each node
    remembers the edge that raised it last. If some cycle's ratio is above λ, they rise for ever,
    and the edges that nodes remember come to hold such a cycle, whose ratio is the next λ. There
    are finitely many cycles, so that this ends.

    Args:
        edges: at least one into every node, without a cycle of no delay.
        num_nodes: the number of nodes.
    """
    order = np.argsort(edges.heads, kind="stable")
    edges = Edges(*(np.asarray(part)[order] for part in edges))
    starts = np.searchsorted(edges.heads, np.arange(num_nodes))
    tolerance = 1e-12 * float(np.max(np.abs(edges.weights)))
    last = _best(edges.weights, edges.heads, starts)
    ratio, cycle = _best_of(edges, last)
    potentials = np.zeros(num_nodes)
    rounds, look_at = 0, 1
    while True:
        values = edges.weights - ratio * edges.delays + potentials[edges.tails]
        best = _best(values, edges.heads, starts)
        rises = values[best] > potentials + tolerance
        if not rises.any():
            return ratio, order[cycle]
        potentials = np.where(rises, values[best], potentials)
        last = np.where(rises, best, last)
        rounds += 1
        if rounds == look_at:  # after 1, 2, 4, ... rounds: to look for cycles takes as long as some
            look_at *= 2
            other, its_cycle = _best_of(edges, last)
            if other > ratio + tolerance:
                ratio, cycle, potentials = other, its_cycle, np.zeros(num_nodes)
                rounds, look_at = 0, 1


def _best(values: np.ndarray, heads: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For every head the number of its first edge with the largest value."""
    is_largest = values == np.maximum.reduceat(values, starts)[heads]
    numbers = np.where(is_largest, np.arange(len(values)), len(values))
    return np.minimum.reduceat(numbers, starts)


def _best_of(edges: Edges, incoming: np.ndarray) -> tuple[float, np.ndarray]:
    """The cycle with the largest ratio, and its ratio, among one edge into every node.

    Such edges, followed back, lead every node to a cycle. By doubling: what 2^i steps lead to, and
    add up to, is known from 2^(i - 1).
    """
    num_nodes = len(incoming)
    doublings = range(max(1, num_nodes.bit_length()))
    nodes, step = np.arange(num_nodes), edges.tails[incoming]
    end, lowest = step, np.minimum(nodes, step)
    for _ in doublings:
        lowest, end = np.minimum(lowest, lowest[end]), end[end]
    roots = np.unique(lowest[end])  # of every cycle its node of the lowest number
    is_root = np.isin(nodes, roots)
    end = np.where(is_root, nodes, step)  # a walk that has come to its root stays there
    weight = np.where(is_root, 0.0, edges.weights[incoming])
    delay = np.where(is_root, 0, edges.delays[incoming])
    for _ in doublings:
        weight, delay, end = weight + weight[end], delay + delay[end], end[end]
    around = (edges.weights[incoming] + weight[step])[roots]
    root = roots[np.argmax(around / (edges.delays[incoming] + delay[step])[roots])]
    cycle, node = [incoming[root]], edges.tails[incoming[root]]
    while node != root:
        cycle.append(incoming[node])
        node = edges.tails[incoming[node]]
    return float(edges.weights[cycle].sum() / edges.delays[cycle].sum()), np.array(cycle)
