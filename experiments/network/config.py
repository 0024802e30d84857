"""The options of the study of networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.run import config


@dataclass(frozen=True)
class Networks:
    """Accuracy against simulated time: graphs and orders on several networks.

    CDMSGD on a ring, an exponential and a complete graph, adapt then combine and rounds of local
    steps on a ring, FedAvg and averaged gradients, each on every network. Training is the same on
    every network, and so it is done once: the clock goes over it again for each. Runs that --out
    already holds are not made again.
    """

    training: config.Training = config.Training(epochs=10, batch_size=32)
    data: config.Data = config.Data(dataset="fashion_mnist")
    model: config.Model = config.Model(model="mlp")
    machine: config.Machine = config.Machine()

    agents: int = 16
    """Number of agents N."""
    networks: tuple[str, ...] = ("datacenter", "wide-area", "home")
    """Networks, as those of --network of a run."""
    compute_time: str = "20ms"
    """Time of an agent's gradient, such as 20ms."""
    stragglers: float = 0.05
    """Probability that an agent is slow in a step, in [0, 1]."""
    slowdown: float = 10.0
    """How many times as long a slow step takes."""
    momentum: float = 0.9
    """Momentum of all of them, in [0, 1): each agent's own but in CDMSGD."""
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    """The grid of step sizes, in increasing order. Each algorithm takes the one with which what it
    trains has the lowest loss on the whole training set at the end; the grid grows until none of
    its ends is the best."""
    tune_seeds: int = 2
    """Runs of each algorithm with each step size, with seeds that are not reported."""
    target: float = 85.0
    """Test accuracy in % for which seconds are told."""
    seeds: int = 5
    """Runs of each, with the seeds from --seed on."""
    jobs: int = 1
    """Runs at a time, each in a process with its share of the cores."""
    out: Path = Path("runs/network")
    """Folder for the runs, the table and the figure."""
