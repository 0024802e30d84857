"""CDMSGD on scikit-learn's 1,797 handwritten digits, which need no download."""

from experiments.launch.cli import main
from experiments.run.config import Run

if __name__ == "__main__":
    main(Run(), dataset="digits", description=__doc__)
