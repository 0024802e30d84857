"""CDMSGD on CIFAR-100 (the paper's supplement)."""

from experiments.launch.cli import main
from experiments.run.config import Run

if __name__ == "__main__":
    main(Run(), dataset="cifar100", description=__doc__)
