"""Test accuracy by mixer and attack, and by fault of the network."""

from experiments.launch.cli import main
from experiments.robustness.config import Robustness
from experiments.robustness.study import compare

if __name__ == "__main__":
    main(Robustness(), compare)
