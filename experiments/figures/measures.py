"""What claims are measured by: numbers of the runs of several curves with the same seed.

All accuracies are of what is trained, in %: the server's parameters, or else the mean over the
agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Records: TypeAlias = Sequence[Mapping[str, Any]]


class Measure(NamedTuple):
    """A number for each of some runs, its unit and form.

    ``values`` are NaN where the runs cannot be compared by it. Those of a ``ratio`` are compared by
    their quotient, others by their difference.
    """

    values: Callable[[Sequence[Records]], list[float]]
    unit: str
    form: str = ".2f"
    ratio: bool = False


def _each(value: Callable[[Records], float]) -> Callable[[Sequence[Records]], list[float]]:
    return lambda runs: [value(run) for run in runs]


def _column(run: Records, name: str) -> np.ndarray:
    return np.array([record[name] for record in run], float)


def _by_steps(runs: Sequence[Records]) -> list[float]:
    """Averaged over the steps at which all runs have been evaluated."""
    first, last = max(run[0]["step"] for run in runs), min(run[-1]["step"] for run in runs)
    if first > last:
        return [np.nan] * len(runs)
    steps = np.linspace(first, last, 100)
    return [
        100 * np.mean(np.interp(steps, _column(run, "step"), _column(run, "test_accuracy")))
        for run in runs
    ]


def _gap_at_equal_loss(runs: Sequence[Records]) -> list[float]:
    """Train minus test accuracy where each has the training loss at which the last one ends."""
    loss = max(_column(run, "train_loss").min() for run in runs)

    def gap(run: Records) -> float:
        losses = _column(run, "train_loss")
        gaps = _column(run, "train_accuracy") - _column(run, "test_accuracy")
        order = np.argsort(losses)
        return 100 * float(np.interp(loss, losses[order], gaps[order], right=np.nan))

    return [gap(run) for run in runs]


def _second_half(run: Records) -> Records:
    return run[len(run) // 2 :]


SPEED = Measure(_each(lambda run: 100 * np.mean(_column(run, "test_accuracy"))), "% on average")
SPEED_BY_STEPS = Measure(_by_steps, "% on average over the steps")
FINAL = Measure(_each(lambda run: 100 * run[-1]["test_accuracy"]), "% at the end")
GAP = Measure(_gap_at_equal_loss, "points at equal training loss")
DISTANCE = Measure(_each(lambda run: run[-1]["consensus_distance"]), "distance", ".2g", ratio=True)
# How many times as far apart the agents are at the end as halfway.
CHANGE_OF_DISTANCE = Measure(
    _each(lambda run: run[-1]["consensus_distance"] / _second_half(run)[0]["consensus_distance"]),
    "of the distance halfway", ".2f", ratio=True,
)  # fmt: skip
DEVIATION = Measure(
    _each(lambda run: 100 * np.sqrt(np.mean(_column(_second_half(run), "test_accuracy_variance")))),
    "points of standard deviation over the agents", ".2f", ratio=True,
)  # fmt: skip
