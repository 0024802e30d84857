"""The options of the figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from experiments.figures.curves import PRESETS
from experiments.run.config import Data, Machine, ModelName, Network, Training

PresetName: TypeAlias = Literal[tuple(PRESETS)]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Figures:
    """Draws every experiment of the paper, and checks each of its claims.

    Leaves figures (PNG and PDF), curves.csv and claims.md in --out. Runs that it already holds are
    not run again. --dataset, --model, --epochs and --seeds default to the preset's.
    """

    network: Network = Network()
    training: Training = Training()
    data: Data = Data()
    machine: Machine = Machine()

    preset: PresetName = "smoke"
    """smoke (digits, minutes), fashion (Fashion-MNIST) or paper (CIFAR-10, CIFAR-100 and MNIST)."""
    figures: tuple[str, ...] = ("all",)
    """Which to draw: all, or names such as fig1a."""
    seeds: int | None = None
    """Runs of each curve, with the seeds from --seed on."""
    learning_rate: float = 0.01
    """Step size alpha; some figures also draw a tenth and ten times as much."""
    momentum: float | None = None
    """Momentum mu of CDMSGD, momentum SGD and rivals with momentum, in [0, 1) (default: 0.9)."""
    model: ModelName | None = None
    """cnn (the paper's), resnet20 (with GroupNorm), mlp or softmax (regression)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which to compute gradients. Parameters and mixing stay float32."""
    init: Literal["same", "independent"] = "same"
    """Whether agents start from the same parameters or from independent ones."""
    jobs: int = 1
    """Runs at a time, each in a process with its share of the cores."""
    out: Path = Path("runs/figures")
    """Folder of the figures; the runs lie in one of the preset's name below."""
