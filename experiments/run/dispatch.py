"""Dispatches of training steps: how many at once, what is kept of each, when one is the last."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress as Bars
from rich.progress import TaskID

from cdjax import data, sharding, training
from experiments.run.agreement import agreed, of_all
from experiments.run.display import metrics_text, speed_text
from experiments.run.setup import Job

# Long enough that the host costs nothing, short enough that the bar moves.
_SECONDS_A_DISPATCH = 0.5
_MAX_STEPS_A_DISPATCH = 100

Sums = dict[str, np.ndarray]


class Dispatch(NamedTuple):
    """What a dispatch of steps gives.

    ``metrics`` hold rows of shape (N,) that add up to the sums over all steps: one a step, or one
    for all steps of a turn; ``finite``, of shape (N,), says whose parameters are, after the last.
    """

    state: training.TrainState
    metrics: training.Metrics
    finite: jax.Array


class Divergence(NamedTuple):
    """The first step, counted from 1, of which not all is finite, and whose it is."""

    step: int
    agents: np.ndarray
    what: str


class Advance(NamedTuple):
    """Where some steps lead, with the sums of the metrics on the way, and why they ended early."""

    state: training.TrainState
    sums: Sums
    divergence: Divergence | None


def step_by_step(
    loop: Callable[..., tuple[training.TrainState, training.Metrics]],
) -> Callable[..., Dispatch]:
    """Keeps the metrics of every step of a training loop.

    Args:
        loop: as of :func:`cdjax.training.train_loop`.

    Returns:
        A jitted function with the arguments of ``loop``; it donates the state. Of its rows, one a
        step, those beyond the steps run are zero.
    """

    def dispatch(
        state: training.TrainState, samples: Any, indices: jax.Array, num_steps: jax.Array
    ) -> Dispatch:
        def one_step(
            state: training.TrainState, i: jax.Array | int
        ) -> tuple[training.TrainState, training.Metrics]:
            return loop(state, samples, jax.lax.dynamic_slice_in_dim(indices, i, 1), 1)

        def body(
            i: jax.Array, carry: tuple[training.TrainState, training.Metrics]
        ) -> tuple[training.TrainState, training.Metrics]:
            state, rows = carry
            state, metrics = one_step(state, i)
            return state, {name: rows[name].at[i].set(row) for name, row in metrics.items()}

        _, shapes = jax.eval_shape(one_step, state, 0)
        rows = {
            name: jnp.zeros((len(indices), *row.shape), row.dtype) for name, row in shapes.items()
        }
        state, rows = jax.lax.fori_loop(0, num_steps, body, (state, rows))
        return Dispatch(state, rows, _finite(state.params))

    return jax.jit(dispatch, donate_argnums=0)


def turn_by_turn(
    loop: Callable[..., tuple[training.TrainState, training.Metrics]],
) -> Callable[..., Dispatch]:
    """The same of a loop that cannot be cut: one row for all its steps.

    Args:
        loop: as of :func:`cdjax.training.sequential_loop`.

    Returns:
        A jitted function with the arguments of ``loop``; it donates the state.
    """

    def dispatch(
        state: training.TrainState, samples: Any, indices: jax.Array, num_steps: jax.Array
    ) -> Dispatch:
        state, means = loop(state, samples, indices, num_steps)
        rows = {name: num_steps * values[None] for name, values in means.items()}
        return Dispatch(state, rows, _finite(state.params))

    return jax.jit(dispatch, donate_argnums=0)


def dispatcher(
    job: Job, bars: Bars, bar: TaskID, signals: Sequence[signal.Signals]
) -> Callable[[training.TrainState, Sums, int], Advance]:
    """A function that runs a number of steps and keeps the progress bar moving meanwhile.

    Args:
        job: what to run.
        bars: the progress bars.
        bar: the run's own.
        signals: once any process holds one, the dispatch that is running is the last.

    Returns:
        ``advance(state, sums, num_steps) -> Advance``, with the sums so far. It donates the state.
        Where an agent diverges it ends; the state is then, with ``--on-nan drop``, the one before
        the first bad step.
    """
    num_agents = job.topology.num_agents
    samples_per_step = num_agents * job.batch_size
    distance = jax.jit(lambda state: job.view(state).consensus_distance)
    loop = (turn_by_turn if job.config.sequential else step_by_step)(job.loop)
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))
    log_every, on_nan = job.config.log_every, job.config.on_nan
    # The same program for every size of a dispatch: another one would round in other ways.
    most = max(log_every or 1, _MAX_STEPS_A_DISPATCH)
    chunk = log_every or 1

    def advance(state: training.TrainState, sums: Sums, num_steps: int) -> Advance:
        nonlocal chunk
        done = 0
        while done < num_steps and not agreed(signals):
            chunk = int(of_all(chunk).min())  # which each process finds by its own clock
            steps, first = min(chunk, num_steps - done), int(state.step)
            indices = np.zeros((most, num_agents, job.batch_size), np.int32)
            indices[:steps] = data.batch_indices(
                job.sizes,
                job.batch_size,
                first_step=first,
                num_steps=steps,
                seed=job.config.seed,
            )
            before = copy(state) if on_nan == "drop" else None
            start = time.monotonic()
            state, rows, finite = loop(state, job.agent_data, indices, steps)
            rows, finite = fetched(job, (rows, finite))
            seconds = time.monotonic() - start
            rows = {name: values[:steps] for name, values in rows.items()}
            divergence = find_divergence(rows["loss"], finite, first)
            if divergence and on_nan != "ignore":
                good = divergence.step - 1 - first
                if before is not None:
                    state = loop(before, job.agent_data, indices, good).state if good else before
                return Advance(state, _added(sums, rows, good), divergence)
            sums = _added(sums, rows, steps)
            done += steps
            means = {name: values.sum(axis=0) / steps for name, values in rows.items()}
            bars.update(
                bar,
                advance=steps,
                description="training",
                speed=speed_text(steps, seconds, samples_per_step),
                metrics=metrics_text(means["loss"], means["accuracy"], float(distance(state))),
            )
            if not log_every:
                wanted = int(steps * _SECONDS_A_DISPATCH / seconds)
                chunk = min(max(wanted, 1), 2 * chunk, most)
        return Advance(state, sums, None)

    return advance


def find_divergence(losses: np.ndarray, finite: np.ndarray, first: int) -> Divergence | None:
    """The first divergence in a dispatch.

    Args:
        losses: of every step and agent, shape (steps, N); or one row for a turn.
        finite: whose parameters are, after the last of the steps, shape (N,).
        first: how many steps came before these.

    Returns:
        The step whose loss is not finite for some agent; or else, for parameters, the last: from
        any other they would have shown in the next loss. None if all is finite.
    """
    bad = ~np.isfinite(losses)
    if bad.any():
        row = int(np.argmax(bad.any(axis=1)))
        return Divergence(first + row + 1, np.flatnonzero(bad[row]), "loss")
    if not finite.all():
        return Divergence(first + len(losses), np.flatnonzero(~finite), "parameters")
    return None


def fetched(job: Job, tree: Any) -> Any:
    """Results on the host, all agents' in every process."""
    return jax.device_get(sharding.replicate_on_devices(tree, job.mesh))


def _added(sums: Sums, rows: Sums, steps: int) -> Sums:
    """Adds row after row in float64: the sum must not depend on where a run is cut."""
    sums = dict(sums)
    for name, values in rows.items():
        for row in values[:steps]:
            sums[name] = sums.get(name, 0.0) + row.astype(np.float64)
    return sums


def _finite(params: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.inexact)]
    by_leaf = [jnp.all(jnp.isfinite(x.reshape(len(x), -1)), axis=1) for x in leaves]
    return jnp.all(jnp.stack(by_leaf), axis=0)
