"""A program for the comparison with peers that needs NumPy only, and may be wrong or fail."""

import fcntl
import itertools
import os
import subprocess
import sys

import numpy as np

from benchmarks._peers.problem import Program


def steps(problem, *, mixes=True, factor=1.0, lasts=None, kept=False, locks=None):
    """CDSGD on a ring with f_j = |x - c_j|²/2, for a number of steps if ``lasts`` says one.

    A process that it starts holds the lock of the file ``locks`` for as long as it lives.
    """
    if locks:
        with open(locks, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            subprocess.Popen(["sleep", "600"], pass_fds=[file.fileno()])
    assert ("MALLOC_MMAP_MAX_" in os.environ) == kept
    x = np.tile(problem.params["x"], (len(problem.images), 1))
    numbers = itertools.count()

    def step():
        nonlocal x
        if next(numbers) == lasts:
            print("what a program prints is no answer")
            sys.exit("the toy is broken")
        gradient = x - problem.images[:, 0]
        mixed = (x + np.roll(x, 1, 0) + np.roll(x, -1, 0)) / 3 if mixes else x
        x = mixed - problem.facts["rate"] * gradient
        return factor * np.sum(gradient**2, axis=1) / 2

    return Program(step, lambda: {"x": x})
