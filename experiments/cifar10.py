"""CDMSGD on CIFAR-10, the paper's main experiment (Section 5)."""

from experiments.launch.cli import main
from experiments.run.config import Run

if __name__ == "__main__":
    main(Run(), dataset="cifar10", description=__doc__)
