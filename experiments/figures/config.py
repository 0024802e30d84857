"""The paper's experiments, and what it leaves for later, in one command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.run.config import RunConfig


@dataclass(frozen=True)
class Figures(RunConfig):
    """Draws every experiment of the paper, and checks each of its claims.

    Leaves figures (PNG and PDF), curves.csv and claims.md in --out. Runs that it holds already are
    not run again. Options that are not given are the preset's.
    """

    preset: str = "smoke"
    """smoke (digits, minutes), fashion (Fashion-MNIST) or paper (CIFAR-10, CIFAR-100 and MNIST)."""
    figures: tuple[str, ...] = ("all",)
    """Which to draw: all, or names such as fig1a."""
    seeds: int | None = None
    """Runs of each curve, with the seeds from --seed on."""
    model: str | None = None  # type: ignore[assignment]
    """cnn (the paper's), mlp or softmax (regression)."""
    out: Path = Path("runs/figures")
    """Folder of the figures; the runs lie in one of the preset's name below."""
