"""Every system of the paper's Table 1 on the same data, model and runner."""

from experiments.compare.config import Compare
from experiments.compare.study import compare
from experiments.launch.cli import main

if __name__ == "__main__":
    main(Compare(), compare)
