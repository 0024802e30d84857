"""The options of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import (
    CompressorName,
    Data,
    Machine,
    Model,
    Network,
    ScheduleName,
    Training,
)

SystemName: TypeAlias = Literal["all", *ALGORITHMS]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Compare:
    """Compares every system of the paper's Table 1 on the same data, model and runner.

    Each takes the step size of a grid, the same for all, with which what it trains has the lowest
    loss on the whole training set at the end; the grid grows until none of its ends is the best.
    The step size is chosen on other seeds than those that are reported. Runs that --out already
    holds are not run again.
    """

    network: Network = Network()
    training: Training = Training()
    data: Data = Data(dataset="fashion_mnist")
    model: Model = Model()
    machine: Machine = Machine()

    algorithms: tuple[SystemName, ...] = ("all",)
    """Which to compare: all of Table 1, or some by name."""
    seeds: int = 5
    """Runs of each, with the seeds from --seed on."""
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """The grid of step sizes, in increasing order."""
    tune_seeds: int = 2
    """Runs of each system with each step size, with seeds that are not reported."""
    tune_epochs: int | None = None
    """Epochs of the runs that choose the step size (default: --epochs)."""
    target: float = 0.85
    """The test accuracy to which steps and bytes are counted."""
    schedule: ScheduleName = "fixed"
    """The step size over time; diminishing is Theta / (k^power + offset)."""
    decay_power: float | None = None
    """The power of the diminishing schedule, in (0.5, 1] (default: 0.6)."""
    decay_offset: float | None = None
    """The offset of the diminishing schedule, in steps^power (default: 100)."""
    momentum: float = 0.9
    """Momentum mu, in [0, 1), of those that have it by themselves, and of all others that can have
    it in a second run of each; 0 leaves these out."""
    period: int | None = None
    """Steps between exchanges of gossip and the servers (default: fedavg an epoch of the agents'
    own data, easgd and eamsgd 10, downpour and gossip 1)."""
    client_fraction: float | None = None
    """Share of the agents that are fedavg's clients in a round, in [0, 1] (default: 1)."""
    talk_probability: float | None = None
    """Probability that an agent of gosgd talks in a step, in [0, 1] (default: 0.1)."""
    compressor: CompressorName | None = None
    """What choco and beer compress messages with (default: top-k)."""
    fraction: float | None = None
    """Share of the entries that top-k and random-k send, in (0, 1] (default: 0.1)."""
    consensus_step: float | None = None
    """How far agents of choco and beer move towards public copies, in (0, 1] (default: 0.1)."""
    asynchronous: bool = False
    """Sets the agents' clocks apart by a step each, in easgd, eamsgd and downpour."""
    jobs: int = 1
    """Runs at a time, each in a process with its share of the cores."""
    together: int = 1
    """Runs that choose the step size of one system, seeds times step sizes, which one program makes
    at the most; those of fedavg are made one after another. Rounding differs, so that of two step
    sizes that are as good as each other the other one may be chosen."""
    out: Path = Path("runs/compare")
    """Folder of the table, the figure and all runs."""
