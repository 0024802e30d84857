"""Clocks and cycle means by loops over agents and messages, in float64."""

import numpy as np


def loop(order, wires, compute, message_bytes):
    """Times of every agent after every step, message by message."""
    compute = np.asarray(compute, float)
    num_steps, num_agents = compute.shape
    times, rows = np.zeros(num_agents), []
    free = np.zeros(len(wires.senders))
    busy = wires.transfer(message_bytes * order.messages)
    history = []

    def heard_by(ready, arrives):
        heard = ready.copy()
        for e, receiver in enumerate(wires.receivers):
            heard[receiver] = max(heard[receiver], arrives[e])
        return heard

    def exchange(ready):
        nonlocal free
        arrives = np.zeros_like(free)
        for e, sender in enumerate(wires.senders):
            free[e] = max(ready[sender], free[e]) + busy[e]
            arrives[e] = free[e] + wires.latency[e]
        history.append(arrives)
        if len(history) <= order.lag or order.overlap:
            return ready
        return heard_by(ready, history[-1 - order.lag])

    for step in range(num_steps):
        if (step + 1) % order.period:
            times = times + compute[step]
            if history and (step + 1) % order.period == order.overlap:
                times = heard_by(times, history[-1])
        else:
            for _ in order.before:
                times = exchange(times)
            start = times
            for _ in order.beside:
                times = exchange(times)
            times = np.maximum(start + compute[step], times)
            for _ in order.after:
                times = exchange(times)
        rows.append(times)
    return np.array(rows)


def karp(weights):
    """The largest mean weight of a cycle: Karp's theorem, of a strongly connected graph.

    max over v of min over k of (D_n(v) - D_k(v)) / (n - k), D_k(v) the heaviest walk of k edges.
    """
    size = len(weights)
    heaviest = [np.where(np.arange(size) == 0, 0.0, -np.inf)]
    for _ in range(size):
        heaviest.append(np.max(weights + heaviest[-1][None, :], axis=1))
    last, others = heaviest[-1], np.array(heaviest[:-1])
    lengths = size - np.arange(size)
    with np.errstate(invalid="ignore"):
        means = (last[None, :] - others) / lengths[:, None]
    return max(np.nanmin(means[:, v]) for v in range(size) if np.isfinite(last[v]))
