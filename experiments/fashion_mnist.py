"""CDMSGD on Fashion-MNIST."""

from experiments.launch.cli import main
from experiments.run.config import Run

if __name__ == "__main__":
    main(Run(), dataset="fashion_mnist", description=__doc__)
