"""CDMSGD on scikit-learn's 1,797 handwritten digits, which need no download."""

from dataclasses import dataclass
from typing import ClassVar

from experiments._cli import main
from experiments.config import RunConfig


@dataclass(frozen=True)
class Digits(RunConfig):
    """CDMSGD on scikit-learn's 1,797 handwritten digits, which need no download."""

    default_dataset: ClassVar[str] = "digits"


if __name__ == "__main__":
    main(Digits)
