"""Mistakes that released implementations make: wrong loops, for the checker to tell by name.

Each yields the five agents' values after every round, from the step sizes of the rounds.
"""

import numpy as np

from tests.transforms.five_agents import CENTERS, CURVATURES, PI, I


def gradient(x):
    return CURVATURES * (x - CENTERS)


def new_step_for_the_old_gradient(steps):
    old, old_gradient, x = np.zeros(5), np.zeros(5), np.zeros(5)
    for alpha in steps:
        g = gradient(x)
        x, old, old_gradient = PI @ (2 * x - old - alpha * (g - old_gradient)), x, g
        yield x


def not_lazy(steps):
    x = psi = np.zeros(5)
    for alpha in steps:
        before, psi = psi, x - alpha * gradient(x)
        x = PI @ (psi + x - before)
        yield x


def estimate_from_zero(steps):
    x, y = np.zeros(5), np.zeros(5)
    for alpha in steps:
        after = PI @ x - alpha * y
        y = PI @ y + gradient(after) - gradient(x)
        x = after
        yield x


def old_parameters_not_lazy(steps):
    old, x, old_step = np.zeros(5), np.zeros(5), np.zeros(5)
    for alpha in steps:
        step = alpha * gradient(x)
        x, old, old_step = (I + PI) @ x - PI @ old - step + old_step, x, step
        yield x


def decay_tied_to_the_momentum(steps):
    x, m = np.zeros(5), np.zeros(5)
    for alpha in steps:
        g = gradient(x)
        after = PI @ (x - alpha * (g + 0.5 * (g + 0.5 * m)))
        m = 0.5 * m + 0.5 * (x - after) / alpha
        x = after
        yield x


def momentum_of_own_gradients(steps):
    x, m = np.zeros(5), np.zeros(5)
    for alpha in steps:
        m = 0.9 * m + gradient(x)
        x = PI @ (x - alpha * m)
        yield x


# The algorithm, what is wrong, the loop.
TRAPS = [
    ("D²", "the old gradient had the new step size", new_step_for_the_old_gradient),
    ("exact diffusion", "Π stood in place of (I + Π)/2", not_lazy),
    ("gradient tracking, DIGing", "the estimate started at zero", estimate_from_zero),
    ("EXTRA", "the old parameters were mixed by Π instead of (I + Π)/2", old_parameters_not_lazy),
    (
        "quasi-global momentum, Nesterov",
        "the buffer's decay were the momentum",
        decay_tied_to_the_momentum,
    ),
    ("DecentLaM", "the momentum held own gradients only", momentum_of_own_gradients),
]
