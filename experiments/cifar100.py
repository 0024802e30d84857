"""CDMSGD on CIFAR-100 (the paper's supplement)."""

from dataclasses import dataclass
from typing import ClassVar

from experiments.launch.cli import main
from experiments.run.config import RunConfig


@dataclass(frozen=True)
class Cifar100(RunConfig):
    """CDMSGD on CIFAR-100 (the paper's supplement)."""

    default_dataset: ClassVar[str] = "cifar100"


if __name__ == "__main__":
    main(Cifar100)
