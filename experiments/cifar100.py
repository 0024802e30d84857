"""CDMSGD on CIFAR-100 (the paper's supplement)."""

from dataclasses import dataclass
from typing import ClassVar

from experiments._cli import main
from experiments.config import RunConfig


@dataclass(frozen=True)
class Cifar100(RunConfig):
    """CDMSGD on CIFAR-100 (the paper's supplement)."""

    default_dataset: ClassVar[str] = "cifar100"


if __name__ == "__main__":
    main(Cifar100)
