"""decent-bench: its algorithm ATC on a ring, with its cost of a PyTorch module.

It needs decent-bench, PyTorch and NumPy only.
"""

from __future__ import annotations

import logging

import networkx as nx
import numpy as np
import torch
from decent_array import Array
from decent_array.types import Devices, Frameworks
from decent_bench.agents import Agent
from decent_bench.algorithms.p2p import ATC
from decent_bench.benchmark import configure
from decent_bench.costs import PyTorchCost
from decent_bench.networks import P2PNetwork

from benchmarks._peers.problem import Problem, Program
from benchmarks._peers.torch_modules import initial_params, module, problem_name


def steps(problem: Problem, *, threads: int = 1) -> Program:
    """Steps of ATC; one thread, since its products are small and more threads slow it down."""
    torch.set_num_threads(threads)
    configure(Frameworks.PYTORCH, Devices.CPU, log_level=logging.WARNING)
    images = torch.from_numpy(problem.images).flatten(2)
    labels = torch.from_numpy(problem.labels).long()
    batch = labels.shape[1]
    samples = [list(zip(*own, strict=True)) for own in zip(images, labels, strict=True)]
    costs = [
        PyTorchCost(own, module(problem), torch.nn.CrossEntropyLoss(), batch_size=batch)
        for own in samples
    ]
    # An agent keeps a snapshot of its state every so many steps: of the first one only.
    agents = [Agent(cost, state_snapshot_period=1 << 30) for cost in costs]
    network = P2PNetwork(nx.cycle_graph(len(agents)), agents)
    params = initial_params(problem)
    start = torch.cat([params[name].flatten() for name in costs[0].param_names])
    algorithm = ATC(step_size=problem.facts["learning_rate"], x0=Array(start))
    algorithm.initialize(network)
    done = 0

    def step() -> None:
        # As in the algorithm's run(), which would keep a snapshot of every call's last step.
        nonlocal done
        network._step(done)
        algorithm.step(network, done)
        done += 1

    def losses() -> np.ndarray:
        found = [own.cost.function(own.x, indices=list(range(batch))) for own in agents]
        return np.array(found)

    def current() -> dict[str, np.ndarray]:
        rows = torch.stack([own.x.value for own in agents])
        parts = rows.split(costs[0].param_sizes, 1)
        return {
            problem_name(name): part.numpy()
            for name, part in zip(costs[0].param_names, parts, strict=True)
        }

    return Program(step, current, losses)
