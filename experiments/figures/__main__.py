"""The paper's experiments, and what it leaves for later, in one command."""

from experiments.figures.config import Figures
from experiments.figures.study import draw
from experiments.launch.cli import main

if __name__ == "__main__":
    main(Figures(), draw)
