"""The choice of a step size from a grid that grows until its best is at none of its ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from experiments.run.errors import UsageError

Name = TypeVar("Name")

_FIRST_TUNING_SEED = 1000  # far from those that anyone reports
_FACTOR = 3.0
_MOST_STEP_SIZES = 12


def tuning_seeds(seed: int, count: int) -> range:
    """Seeds of runs that choose a step size; those that are reported begin with ``seed``."""
    first = seed + _FIRST_TUNING_SEED
    return range(first, first + count)


def loss_at_end(lasts: Iterable[Mapping[str, Any] | None]) -> float:
    """Of what is trained, on the whole training set, on average over the seeds.

    Args:
        lasts: the last record of each seed's run; None of one that has none. The loss is infinite
            if any of the runs diverges.
    """
    losses = [np.inf if last is None or last.get("diverged") else last["train_loss"]
              for last in lasts]  # fmt: skip
    return float(np.nan_to_num(np.mean(losses), nan=np.inf, posinf=np.inf))


def best_step_sizes(
    names: Sequence[Name],
    grid: Sequence[float],
    losses: Callable[[Sequence[tuple[Name, float]]], Sequence[float]],
    *,
    label: Callable[[Name], str] = str,
) -> dict[Name, float]:
    """The step size with the lowest loss for each name.

    Args:
        names: what is tuned.
        grid: the first step sizes to try, in increasing order.
        losses: the loss of each pair of a name and a step size; infinite if it diverges.
        label: what errors call a name.

    Raises:
        UsageError: if the best is at an end of the grid, however far it grows.
    """
    found: dict[Name, dict[float, float]] = {name: {} for name in names}
    missing = {name: [*grid] for name in names}
    while missing:
        tried = [(name, rate) for name, rates in missing.items() for rate in rates]
        for (name, rate), loss in zip(tried, losses(tried), strict=True):
            found[name][rate] = loss
        grids = {name: sorted(found[name]) for name in missing}
        missing = {
            name: more
            for name, rates in grids.items()
            if (more := beyond(rates, [found[name][rate] for rate in rates]))
        }
        for name, more in missing.items():
            if len(found[name]) + len(more) > _MOST_STEP_SIZES:
                raise UsageError(f"--learning-rates: no best one for {label(name)}; give others")
    return {name: min(sorted(of), key=of.__getitem__) for name, of in found.items()}


def beyond(grid: Sequence[float], losses: Sequence[float]) -> list[float]:
    """The step size next to the best if that is at an end of the grid."""
    best = int(np.argmin(losses))
    further = [grid[0] / _FACTOR] * (best == 0) + [grid[-1] * _FACTOR] * (best == len(grid) - 1)
    return [float(f"{rate:.1g}") for rate in further]  # 0.03 and not 0.0333
