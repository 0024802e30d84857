"""Accuracy of the worst and of the mean agent, by algorithm and by how far the data is from iid."""

from experiments.heterogeneity.config import Heterogeneity
from experiments.heterogeneity.study import compare
from experiments.launch.cli import main

if __name__ == "__main__":
    main(Heterogeneity(), compare)
