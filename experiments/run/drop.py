"""What a run does when agents diverge: it ends, or goes on without them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cdjax import training
from experiments.run import clock
from experiments.run.dispatch import Divergence
from experiments.run.errors import Diverged, UsageError
from experiments.run.job import Job, prepare
from experiments.run.progress import Progress, bytes_sent
from experiments.run.resume import at_pace, without_also


def without_diverged(
    job: Job, state: training.TrainState, *, progress: Progress, divergence: Divergence
) -> tuple[Job, Progress, str]:
    """The run among the agents that have not diverged, from before the first bad step.

    Returns:
        The job with its state, the progress of the agents that are left, and a line that says so.

    Raises:
        Diverged: if ``--on-nan`` says so, or the others cannot go on: nobody is left, or they are
            not connected.
    """
    line = _described(job, divergence)
    if job.run.trouble.on_nan != "drop":
        raise Diverged(line)
    without = without_also(job.run, job.network.names(divergence.agents))
    try:
        rest = prepare(without, held=job)
    except UsageError as error:
        raise Diverged(f"{line}; {error}") from error
    kept = np.delete(np.arange(job.network.num_agents), divergence.agents)

    def of_the_rest(leaf: jax.Array, like: jax.Array) -> jax.Array:
        # An agent axis is one that is shorter among the rest, first or not.
        for axis, (size, wanted) in enumerate(zip(leaf.shape, like.shape, strict=True)):
            if size != wanted:
                leaf = jnp.take(leaf, kept, axis=axis)
        return jax.device_put(leaf, like.sharding)

    step = int(state.step)
    progress = progress._replace(
        sums={name: values[kept] for name, values in progress.sums.items()},
        dropped=[*progress.dropped, *job.network.names(divergence.agents)],
        sent=(step, bytes_sent(job, progress, step)),
        clock=clock.without(progress.clock, kept, rest.timing),
    )
    state = jax.tree.map(of_the_rest, state, rest.state)
    job = at_pace(rest._replace(state=state), job.problem.steps_per_epoch)
    return job, progress, f"{line}; the run goes on without"


def _described(job: Job, divergence: Divergence) -> str:
    """One line that names the agents and the step."""
    agents = job.network.names(divergence.agents)
    who = f"agent {agents[0]}" if len(agents) == 1 else f"agents {', '.join(map(str, agents))}"
    verb = "is" if divergence.what == "loss" else "are"
    return f"{who} diverged in step {divergence.step}: the {divergence.what} {verb} not finite"
