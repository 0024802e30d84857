"""Dispatches of training steps: how many at once, and which step is the last."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdjax import data, metrics, sharding, training
from experiments.run.job import Job
from experiments.run.signals import agreed, of_all

# Long enough that the host costs nothing, short enough that the bar moves.
_SECONDS_PER_DISPATCH = 0.5
_MAX_STEPS_PER_DISPATCH = 100
# The distance reads all parameters, which for large agents takes as long as a part of a step.
_SECONDS_PER_DISTANCE = 2.0

Rows = dict[str, np.ndarray]


class Divergence(NamedTuple):
    """The first step, counted from 1, in which not all is finite, and for which agents."""

    step: int
    agents: np.ndarray
    what: str


class Advance(NamedTuple):
    """Where some steps lead: the state, the rows of metrics on the way, why they ended early."""

    state: training.TrainState
    rows: Rows
    divergence: Divergence | None


# Told after every dispatch: its steps, its seconds, its rows and the last known consensus distance.
Report = Callable[[int, float, Rows, float], None]


def dispatcher(
    job: Job, report: Report, signals: Sequence[signal.Signals]
) -> Callable[[training.TrainState, int], Advance]:
    """A function ``advance(state, num_steps) -> Advance``, which runs dispatch after dispatch.

    It donates the state and tells ``report`` of every dispatch. Once any process holds one of the
    ``signals``, the dispatch that is running is the last. It ends where an agent diverges; with
    ``--on-nan drop`` the state is then the one before the first bad step.
    """
    fixed, on_nan = job.steps_per_dispatch, job.run.trouble.on_nan
    # The same program for every size of a dispatch: another one would round in other ways.
    most = max(fixed or 1, _MAX_STEPS_PER_DISPATCH)
    loop = _finite_loop(job.programs.loop)
    distance = jax.jit(lambda state: job.programs.view(state).consensus_distance)
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))
    chunk, shown, due = fixed or 1, float("nan"), time.monotonic()

    def advance(state: training.TrainState, num_steps: int) -> Advance:
        nonlocal chunk, shown, due
        done, parts = 0, []
        while done < num_steps and not agreed(signals):
            chunk = int(of_all(chunk).min())  # which each process finds by its own clock
            steps, first = min(chunk, num_steps - done), int(state.step)
            indices = _indices(job, first, steps=steps, most=most)
            before = copy(state) if on_nan == "drop" else None
            start = time.monotonic()
            state, rows, finite = loop(state, job.agent_data, indices, steps)
            rows, finite = fetched(job, (rows, finite))
            seconds = time.monotonic() - start
            rows = {name: values[:steps] for name, values in rows.items()}
            divergence = find_divergence(rows["loss"], finite, first)
            if divergence and on_nan != "ignore":
                # A turn cannot be cut: all of its agents have their own first step in it.
                good = 0 if job.in_turns else divergence.step - 1 - first
                if before is not None:
                    state = loop(before, job.agent_data, indices, good)[0] if good else before
                parts.append({name: values[:good] for name, values in rows.items()})
                return Advance(state, joined(parts), divergence)
            parts.append(rows)
            done += steps
            if of_all(time.monotonic() >= due).any():  # all processes, or none
                shown, due = float(distance(state)), time.monotonic() + _SECONDS_PER_DISTANCE
            report(steps, seconds, rows, shown)
            if not fixed:
                wanted = int(steps * _SECONDS_PER_DISPATCH / seconds)
                chunk = min(max(wanted, 1), 2 * chunk, most)
        return Advance(state, joined(parts), None)

    return advance


def _finite_loop(loop: Callable[..., Any]) -> Callable[..., Any]:
    """The training loop, which also tells whose parameters are finite after its last step."""

    def run(state: training.TrainState, samples: Any, indices: jax.Array, steps: jax.Array) -> Any:
        state, rows = loop(state, samples, indices, steps)
        return state, rows, metrics.finite_agents(state.params)

    return jax.jit(run, donate_argnums=0)


def _indices(job: Job, first: int, *, steps: int, most: int) -> np.ndarray:
    """The samples of these steps, padded to as many steps as a dispatch can have."""
    task = job.problem
    indices = np.zeros((most, len(task.sizes), task.batch_size), np.int32)
    order = {"first_step": first, "num_steps": steps, "seed": job.run.training.seed}
    indices[:steps] = data.batch_indices(task.sizes, task.batch_size, **order)
    return indices


def find_divergence(losses: np.ndarray, finite: np.ndarray, first: int) -> Divergence | None:
    """The first divergence in a dispatch after ``first`` steps; None if all is finite.

    It is in the step whose loss is not finite for some agent; or else, for parameters, in the last:
    from any other they would have shown in the next loss.
    """
    bad = ~np.isfinite(losses)
    if bad.any():
        row = int(np.argmax(bad.any(axis=1)))
        return Divergence(first + row + 1, np.flatnonzero(bad[row]), "loss")
    if not finite.all():
        return Divergence(first + len(losses), np.flatnonzero(~finite), "parameters")
    return None


def is_due(job: Job, step: int, epochs: int | None) -> bool:
    """Whether at this step something is done that is done every so many epochs, and at the end."""
    if epochs is None:
        return False
    return step % (epochs * job.problem.steps_per_epoch) == 0 or step == job.problem.num_steps


def next_stop(job: Job, step: int) -> int:
    """The step of the next evaluation or checkpoint, or the last."""
    cadences = (job.problem.eval_every, job.run.saving.checkpoint_every or job.problem.epochs)
    steps = [epochs * job.problem.steps_per_epoch for epochs in cadences]
    return min(job.problem.num_steps, *(step + every - step % every for every in steps))


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of dispatches one after another."""
    names = parts[0] if parts else {}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def fetched(job: Job, tree: Any) -> Any:
    """Results on the host, those of all agents in every process."""
    return jax.device_get(sharding.replicate_on_devices(tree, job.mesh))
