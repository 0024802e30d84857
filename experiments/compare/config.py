"""Every system of the paper's Table 1 on the same data, model and runner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.run.config import RunConfig


@dataclass(frozen=True)
class Compare(RunConfig):
    """Every system of the paper's Table 1 on the same data, model and runner.

    Each takes the step size of a grid, the same for all, with the lowest training loss after
    --tune-epochs with the first seed. Runs that --out holds already are not run again.
    """

    default_dataset: ClassVar[str] = "fashion_mnist"

    algorithms: tuple[str, ...] = ("all",)
    """Which to compare: all, or names of --algorithm."""
    seeds: int = 3
    """Runs of each, with the seeds from --seed on."""
    learning_rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    """The grid of step sizes."""
    tune_epochs: int = 2
    """Epochs of the runs that choose the step size."""
    target: float = 0.85
    """The test accuracy to which steps and bytes are counted."""
    out: Path = Path("runs/compare")
    """Folder of the table, the figure and all runs."""
