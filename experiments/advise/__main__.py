"""Which graph and which order are fast on a network: every topology and order, and the best."""

from experiments.advise.config import Advise
from experiments.advise.study import advise
from experiments.launch.cli import main

if __name__ == "__main__":
    main(Advise(), advise)
