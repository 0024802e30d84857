"""CDMSGD on Fashion-MNIST."""

from dataclasses import dataclass
from typing import ClassVar

from experiments.launch.cli import main
from experiments.run.config import RunConfig


@dataclass(frozen=True)
class FashionMnist(RunConfig):
    """CDMSGD on Fashion-MNIST."""

    default_dataset: ClassVar[str] = "fashion_mnist"


if __name__ == "__main__":
    main(FashionMnist)
