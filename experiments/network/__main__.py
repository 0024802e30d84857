"""Accuracy against simulated time: graphs and orders on several networks."""

from experiments.launch.cli import main
from experiments.network.config import Networks
from experiments.network.study import compare

if __name__ == "__main__":
    main(Networks(), compare)
