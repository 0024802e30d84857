"""The theory beside a run: step limits at its start, Proposition 1 at every evaluation."""

from __future__ import annotations

import jax
import numpy as np

import cdjax
from cdjax import data, metrics, sharding, theory
from experiments.run.checks import disturbances
from experiments.run.compiling import jit_once
from experiments.run.job import Job

_MOST_AGENTS = 2000  # of which the eigenvalues are wanted
_ITERATIONS = 20


def is_bounded(job: Job) -> bool:
    """Whether the theory bounds how far apart the agents of a run are."""
    if job.in_turns or job.setting.size_weighted or job.run.network.personal:
        return False
    if disturbances(job.run):
        return False
    return bool(job.algorithm.recursion) and job.network.num_agents <= _MOST_AGENTS


def initial_distance(job: Job) -> float:
    """How far all agents together are from their mean at the start of a run."""
    if job.run.model.init == "same":
        return 0.0  # exactly: the mean over equal agents rounds
    distance = jit_once(metrics.consensus_distance)(job.state.params)
    distance = jax.device_get(sharding.replicate_on_devices(distance, job.mesh))
    return float(np.sqrt(job.network.num_agents) * distance)


def consensus_bound(
    job: Job, step: int, *, largest_gradient: float, initial_distance: float
) -> float | None:
    """Proposition 1, corrected, with the L measured so far: a bound on the consensus distance.

    None where it does not apply.
    """
    if job.run.trouble.without_agents or not is_bounded(job) or not np.isfinite(largest_gradient):
        return None
    alpha, steps = job.setting.alpha, np.arange(step + 1)
    bound = theory.consensus_bound(
        job.network.topology,
        np.asarray(jax.vmap(alpha)(steps)) if callable(alpha) else 0 * steps + alpha,
        gradient_bound=largest_gradient,
        initial_distance=initial_distance,
        momentum=_momentum(job),
    )[-1]
    return float(bound / np.sqrt(job.network.num_agents))


def step_limits(job: Job) -> tuple[str, str]:
    """What the theory says of the step size: a line for the start table, and a warning or "".

    The curvature γ is that of agent 0's loss on its first batch, at the run's state.
    """
    if not is_bounded(job) or jax.process_count() > 1:
        return "", ""
    graph, step_size = job.network.topology, job.run.algorithm.learning_rate
    smoothness = _smoothness(job)
    if not 0 < smoothness < np.inf:  # a run that goes on after it has diverged
        return "", ""
    nesterov = job.algorithm.recursion == "nesterov"
    tight = theory.tight_step_limit(graph, smoothness, momentum=_momentum(job), nesterov=nesterov)
    sufficient = theory.sufficient_step_limit(graph, theory.Constants(smoothness))
    stated = f"{sufficient:.3g}" if sufficient > 0 else "none"
    step = int(job.state.step)
    where = f"at step {step}" if step else "at the start"
    line = f"{tight:.3g} tight, {stated} by eq. 15, with γ = {smoothness:.3g} {where}"
    if step_size < tight:
        return line, ""
    return line, (
        f"step size {step_size:g} is not below the tight limit {tight:.3g}: on a quadratic with "
        f"the curvature {where} it would diverge"
    )


def _momentum(job: Job) -> float:
    return job.options.get("momentum", 0.0)


def _smoothness(job: Job) -> float:
    """The largest eigenvalue of a Hessian; at least a little, for the limits to be finite."""
    seed, task = job.run.training.seed, job.problem
    key = jax.random.key(seed)
    indices = data.batch_indices(task.sizes, task.batch_size, first_step=0, num_steps=1, seed=seed)[
        0
    ]
    params = job.programs.view(job.state).params
    own = jax.tree.map(lambda x: x[:1], (params, job.state.model_state, job.agent_data))

    @jit_once
    def largest(params: cdjax.Params, model_state: cdjax.Params, samples: data.AgentData):
        batch = jax.tree.map(lambda x: x[0], data.take_batch(samples, indices[:1]))
        one = jax.tree.map(lambda x: x[0], (params, model_state))
        return theory.hessian_extremes(
            lambda p: task.loss(p, one[1], batch, key)[0],
            one[0],
            key=key,
            num_iterations=_ITERATIONS,
        ).largest

    return max(float(largest(*own)), float(np.finfo(np.float32).tiny))
