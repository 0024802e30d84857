"""CDMSGD on MNIST (the paper's supplement)."""

from dataclasses import dataclass
from typing import ClassVar

from experiments.launch.cli import main
from experiments.run.config import RunConfig


@dataclass(frozen=True)
class Mnist(RunConfig):
    """CDMSGD on MNIST (the paper's supplement)."""

    default_dataset: ClassVar[str] = "mnist"


if __name__ == "__main__":
    main(Mnist)
