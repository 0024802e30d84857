"""The paper's theory where it can be checked: softmax regression with L2, bounds and all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Convex:
    """Runs CDSGD on a strongly convex problem and sets it against the paper's bounds.

    The problem is softmax regression with L2 on a data set's images, averaged over blocks of
    pixels, in float64. Constants, optimum and minima of the Lyapunov function are computed.
    """

    # One process, for the command line that all programs share.
    coordinator: ClassVar[None] = None
    num_processes: ClassVar[None] = None
    process_id: ClassVar[None] = None

    agents: int = 16
    """Number of agents N."""
    graphs: tuple[str, ...] = ("ring", "ring:lazy", "torus", "star", "complete")
    """Graph families, with :weights after the name if not metropolis_hastings."""
    step_size: float | None = None
    """Fixed step size, and the first diminishing one (default: half of the least tight limit)."""
    decay_power: float = 0.6
    """The power of the diminishing steps, Theta / (k^power + offset), in (0.5, 1]."""
    decay_offset: float = 10.0
    """The offset of the diminishing steps, in steps^power."""
    steps: int = 5000
    """Steps of each run."""
    l2: float = 0.01
    """Weight of the L2 term ½ l2 ‖x‖², which is the strong convexity H."""
    batch_size: int | None = None
    """Samples an agent draws in a step, with replacement (default: full gradients)."""
    partition: str = "shards"
    """How data is dealt to the agents: iid, dirichlet, shards or classes."""
    dirichlet_alpha: float = 0.5
    """Concentration of --partition dirichlet; small is far from iid."""
    shards_per_agent: int = 2
    """Label-sorted shards an agent gets from --partition shards."""
    seed: int = 0
    """Seed of the partition and of the minibatches."""
    dataset: str | None = None
    """cifar10, cifar100, mnist, fashion_mnist or digits (default: digits)."""
    data_dir: Path | None = None
    """Folder of the data set's archive files, or of tensorflow-datasets' prepared copies."""
    train_samples: int | None = None
    """How many training samples to take, at random (default: all)."""
    out: Path = Path("runs/convex")
    """Folder of the figure, the curves and the constants."""
