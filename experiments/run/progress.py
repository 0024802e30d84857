"""The part of a run that is on the host: its records so far, and what the next one is made of."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from experiments.run import bounds, clock
from experiments.run.dispatch import Rows
from experiments.run.job import Job


class Progress(NamedTuple):
    """How far a run has come.

    ``sums`` are those of each training metric over the steps since the last record, shape (N,);
    ``largest_gradient`` and ``initial_distance`` are of all agents together; ``started`` is the
    monotonic clock at the start, as if nothing had interrupted the run; ``sent`` is the step at
    which the last of the ``dropped`` agents, by name or number, was taken out, and the bytes sent
    by then; ``clock`` is that of the network, None if there is none.
    """

    records: list[dict[str, Any]]
    sums: dict[str, np.ndarray]
    largest_gradient: float
    initial_distance: float
    started: float
    dropped: list[Any]
    sent: tuple[int, float]
    clock: clock.Now | None = None

    @property
    def last_recorded(self) -> int:
        """The step of the last record; 0 before the first."""
        return self.records[-1]["step"] if self.records else 0


def beginning(job: Job) -> Progress:
    """The progress of a run that starts."""
    now = clock.started(job.run, job.problem, job.timing)
    distance = bounds.initial_distance(job)
    return Progress([], {}, 0.0, distance, time.monotonic(), [], (0, 0.0), now)


def timed(job: Job, progress: Progress, rows: Rows) -> Progress:
    """The progress with the network's clock after so many steps as there are rows."""
    steps = len(next(iter(rows.values()))) if rows else 0
    return progress._replace(clock=clock.later(job.timing, progress.clock, steps))


def advanced(progress: Progress, rows: Rows) -> Progress:
    """The progress after steps with these metrics, each of shape (steps, N)."""
    sums = dict(progress.sums)
    for name, values in rows.items():
        # Row after row in float64: the sum must not depend on where a run is cut.
        for row in values.astype(np.float64):
            sums[name] = sums.get(name, 0.0) + row
    norms = np.linalg.norm(rows["gradient_norm"].astype(np.float64), axis=1) if rows else []
    # Not Python's max, which loses a NaN.
    largest = np.max([progress.largest_gradient, *norms])
    return progress._replace(sums=sums, largest_gradient=float(largest))


def agent_means(sums: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """The mean of each training metric in each agent that trained at all, from sums over steps.

    An algorithm that trains some of the agents in a step says so by the metric ``trained``.
    """
    shape = np.shape(next(iter(sums.values())))
    trained = sums.get("trained", np.full(shape, steps))
    return {name: total[trained > 0] / trained[trained > 0] for name, total in sums.items()}


def recorded(progress: Progress, record: dict[str, Any]) -> Progress:
    """The progress after an evaluation."""
    return progress._replace(records=[*progress.records, record], sums={})


def bytes_sent(job: Job, progress: Progress, step: int) -> float:
    """By all agents up to a step; fewer agents send less per step."""
    since, before = progress.sent
    return before + (step - since) * job.bytes_per_step
