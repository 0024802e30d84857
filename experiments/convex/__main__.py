"""The paper's theory where it can be checked: softmax regression with L2, bounds and all."""

from experiments.convex.config import Convex
from experiments.convex.study import convex
from experiments.launch.cli import main

if __name__ == "__main__":
    main(Convex(), convex)
