"""Taking agents that have diverged out of a run that goes on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cdjax import training
from experiments.run.dispatch import Divergence
from experiments.run.living import living
from experiments.run.resume import Progress, at_pace
from experiments.run.setup import Job, prepare


def drop(
    job: Job, state: training.TrainState, progress: Progress, divergence: Divergence
) -> tuple[Job, Progress]:
    """The run among the agents that have not diverged, where it stands.

    Args:
        job: the run so far.
        state: before the first bad step.
        progress: at that state.
        divergence: what is bad.

    Returns:
        The job with its state, and the progress of the agents that are left.

    Raises:
        UsageError: if the others cannot go on alone: nobody is left, or they are not connected.
    """
    gone = numbers(job)[divergence.agents].tolist()
    without = tuple(sorted({*job.config.without_agents, *gone}))
    rest = prepare(dataclasses.replace(job.config, without_agents=without))
    kept = np.delete(np.arange(job.topology.num_agents), divergence.agents)

    def of_the_rest(leaf: jax.Array, like: jax.Array) -> jax.Array:
        # An agent axis is one that is shorter among the rest, first or not.
        for axis, (size, wanted) in enumerate(zip(leaf.shape, like.shape, strict=True)):
            if size != wanted:
                leaf = jnp.take(leaf, kept, axis=axis)
        return jax.device_put(leaf, like.sharding)

    state = jax.tree.map(of_the_rest, state, rest.state)
    sums = {name: values[kept] for name, values in progress.sums.items()}
    step = int(state.step)
    progress = progress._replace(
        sums=sums,
        dropped=[*progress.dropped, *gone],
        sent=(step, bytes_sent(job, progress, step)),
    )
    return at_pace(rest._replace(state=state), job.steps_per_epoch), progress


def numbers(job: Job) -> np.ndarray:
    """The numbers that the agents of a run have in the whole graph, shape (N,)."""
    without = job.config.without_agents
    return np.array(living(job.topology.num_agents + len(without), without))


def bytes_sent(job: Job, progress: Progress, step: int) -> float:
    """By all agents up to a step; fewer agents send less in a step."""
    since, before = progress.sent
    return before + (step - since) * job.bytes_a_step
