"""The options of the study of heterogeneous data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from experiments.run import config

# What is filled in for options that are not given.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"dataset": "digits", "model": "mlp", "batch_size": 8, "epochs": 20},
    "fashion": {"dataset": "fashion_mnist", "model": "mlp", "batch_size": 32, "epochs": 10},
    "cifar": {"dataset": "cifar10", "model": "cnn", "batch_size": 32, "epochs": 50},
}
PresetName: TypeAlias = Literal[tuple(PRESETS)]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Heterogeneity:
    """Accuracy of the worst and of the mean agent, by algorithm and Dirichlet's alpha.

    Each algorithm takes, at each alpha, the step size of a grid with which what it trains has the
    lowest loss on the whole training set at the end; the grid grows until none of its ends is the
    best. The step size is chosen on other seeds than those that are reported. All agents have
    equally many samples. Runs of an algorithm at an alpha are made together by one program; those
    that --out already holds are not made again. --dataset, --model, --batch-size and --epochs
    default to the preset's.
    """

    network: config.Network = config.Network(agents=16, topology="ring")
    training: config.Training = config.Training()
    machine: config.Machine = config.Machine()

    preset: PresetName = "fashion"
    """smoke (digits, minutes), fashion (Fashion-MNIST) or cifar (CIFAR-10 with the paper's CNN)."""
    dataset: config.DatasetName | None = None
    """The data set."""
    data_dir: Path | None = None
    """Folder of the data set's archive files, or of tensorflow-datasets' prepared copies."""
    model: config.ModelName | None = None
    """cnn (the paper's), resnet20 (with GroupNorm), mlp or softmax (regression)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which to compute gradients. Parameters and mixing stay float32."""
    init: Literal["same", "independent"] = "same"
    """Whether agents start from the same parameters or from independent ones."""
    algorithms: tuple[config.AlgorithmName, ...] = (
        "cdsgd",
        "cdmsgd",
        "atc",
        "quasi-global",
        "decentlam",
        "gradient-tracking",
        "momentum-tracking",
        "exact-diffusion",
        "relay",
        "kgt",
        "centralized",
    )
    """Which to compare; centralized averages all gradients in every step, an upper bound."""
    reference: config.AlgorithmName | None = None
    """The algorithm that the others are compared with (default: cdmsgd, else cdsgd, else the
    first)."""
    dirichlet_alphas: tuple[float, ...] = (1.0, 0.1, 0.01)
    """Concentrations of the agents' mixes of classes; small is far from iid."""
    seeds: int = 5
    """Runs of each, with the seeds from --seed on."""
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    """The grid of step sizes, in increasing order."""
    tune_seeds: int = 2
    """Runs of each algorithm with each step size, with seeds that are not reported."""
    schedule: config.ScheduleName = "fixed"
    """The step size over time; diminishing is Theta / (k^power + offset)."""
    decay_power: float | None = None
    """The power of the diminishing schedule, in (0.5, 1] (default: 0.6)."""
    decay_offset: float | None = None
    """The offset of the diminishing schedule, in steps^power (default: 100)."""
    momentum: float = 0.9
    """Momentum mu, in [0, 1), of every algorithm that can have it, but for those of rounds, such as
    kgt, whose local steps have none."""
    period: int | None = None
    """Steps of a round of kgt and its like (default: 10)."""
    together: int = 16
    """Runs that one program makes at the most; 1 is one after another."""
    out: Path = Path("runs/heterogeneity")
    """Folder of the table, the figure, the results and all runs; one of the preset's name below."""
