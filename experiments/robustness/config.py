"""Test accuracy by mixer and attack, and by fault of the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.run.config import ATTACKS, MIXERS, RunConfig


@dataclass(frozen=True)
class Robustness(RunConfig):
    """Test accuracy by mixer and attack, and by fault of the network.

    Every mixer meets every attack, and the weighted mean every fault, each alone. The step size is
    the same for all. Runs that --out holds already are not run again.
    """

    default_dataset: ClassVar[str] = "fashion_mnist"

    mixers: tuple[str, ...] = MIXERS
    """Names of --mixer."""
    attacks: tuple[str, ...] = ATTACKS
    """Names of --attack."""
    clip_radii: tuple[float, ...] = (0.1, 1.0, 10.0)
    """The radii with which clipped is tried: nobody who trains knows the right one."""
    faults: tuple[str, ...] = ("link-failure", "message-loss", "absence", "lag")
    """Which faults, of these four; how strong each is, its own option says."""
    fault_topology: str = "ring"
    """The graph on which faults happen; attacks happen on --topology."""
    seeds: int = 3
    """Runs of each, with the seeds from --seed on."""
    agents: int | None = 10
    """Number of agents N."""
    algorithm: str = "cdsgd"
    """cdsgd, cdmsgd, cdmsgd-polyak or atc."""
    learning_rate: float = 0.1
    """Step size alpha at the first step."""
    model: str = "mlp"
    """cnn (the paper's), mlp or softmax (regression)."""
    epochs: int | None = 5
    """Passes over all agents' data together."""
    link_failure: float = 0.2
    """Probability that a link fails in a step, in both directions, in [0, 1]."""
    message_loss: float = 0.2
    """Probability that a message gets lost, in one direction, in [0, 1]."""
    absence: float = 0.2
    """Probability that an agent is away from the network, in [0, 1]; it trains alone then."""
    absence_duration: int = 50
    """Steps from one draw of who is away to the next."""
    lag: int = 5
    """Steps by which all that agents hear of each other is late."""
    malicious: int | None = 2
    """How many agents are malicious, those with the highest numbers."""
    num_trimmed: int = 2
    """Values that --mixer trimmed-mean cuts off at either end."""
    out: Path = Path("runs/robustness")
    """Folder of the tables, the figure and all runs."""
