"""The options of the convex study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.run.config import DatasetName, PartitionName


@dataclass(frozen=True)
class Convex:
    """Runs CDSGD on a strongly convex problem and compares it with the paper's bounds.

    The problem is softmax regression with L2 on a data set's images, averaged over blocks of
    pixels, in float64. Constants, optimum and minima of the Lyapunov function are computed.
    """

    agents: int = 16
    """Number of agents N."""
    graphs: tuple[str, ...] = ("ring", "ring:lazy", "torus", "star", "complete")
    """Graph families, with :weights after the name if not metropolis_hastings."""
    step_size: float | None = None
    """Fixed step size, and the first diminishing one (default: half of the smallest tight limit of
    the graphs)."""
    decay_power: float = 0.6
    """The power of the diminishing steps, Theta / (k^power + offset), in (0.5, 1]."""
    decay_offset: float = 10.0
    """The offset of the diminishing steps, in steps^power."""
    steps: int = 5000
    """Steps of each run."""
    l2: float = 0.01
    """Weight of the L2 term ½ l2 ‖x‖², which is the strong convexity H."""
    batch_size: int | None = None
    """Samples that each agent draws per step, with replacement (default: full gradients)."""
    partition: PartitionName = "shards"
    """How data is dealt to the agents."""
    dirichlet_alpha: float | None = None
    """Concentration of --partition dirichlet; small is far from iid (default: 0.5)."""
    shards_per_agent: int | None = None
    """Label-sorted shards per agent, of --partition shards (default: 2)."""
    seed: int = 0
    """Seed of the partition and of the minibatches."""
    dataset: DatasetName = "digits"
    """The data set."""
    data_dir: Path | None = None
    """Folder of the data set's archive files, or of tensorflow-datasets' prepared copies."""
    train_samples: int | None = None
    """How many training samples to take, at random (default: all)."""
    out: Path = Path("runs/convex")
    """Folder of the figure, the curves and the constants."""
