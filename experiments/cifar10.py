"""CDMSGD on CIFAR-10, the paper's main experiment (Section 5)."""

from dataclasses import dataclass
from typing import ClassVar

from experiments.launch.cli import main
from experiments.run.config import RunConfig


@dataclass(frozen=True)
class Cifar10(RunConfig):
    """CDMSGD on CIFAR-10, the paper's main experiment (Section 5)."""

    default_dataset: ClassVar[str] = "cifar10"


if __name__ == "__main__":
    main(Cifar10)
