"""CDMSGD on scikit-learn's 1,797 handwritten digits, which need no download."""

from dataclasses import dataclass
from typing import ClassVar

from experiments.launch.cli import main
from experiments.run.config import RunConfig


@dataclass(frozen=True)
class Digits(RunConfig):
    """CDMSGD on scikit-learn's 1,797 handwritten digits, which need no download."""

    default_dataset: ClassVar[str] = "digits"


if __name__ == "__main__":
    main(Digits)
