"""The theory beside a run: step limits at its start, Proposition 1 at every evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cdjax
from cdjax import data, metrics, theory
from experiments.run import algorithm as _algorithms
from experiments.run import trouble as _faults
from experiments.run.config import RunConfig

if TYPE_CHECKING:
    from experiments.run.setup import Job

# Those whose disagreement Proposition 1, or the same with momentum, speaks of.
_BOUNDED = {"cdsgd": False, "cdmsgd": True, "cdmsgd-polyak": True}
_MOST_AGENTS = 2000  # of which the eigenvalues are wanted
_ITERATIONS = 20


class LargestGradientState(NamedTuple):
    """The largest norm of all agents' gradients together so far, and how far apart they began."""

    gradient_bound: jax.Array
    initial_distance: jax.Array


def largest_gradient() -> optax.GradientTransformation:
    """Changes nothing; its state keeps what Proposition 1 asks of a run: L and ‖x_0 − s_0‖."""

    def init(params: cdjax.Params) -> LargestGradientState:
        num_agents = len(jax.tree.leaves(params)[0])
        # Seen from agent 0, so that it is exactly 0 where all start alike.
        apart = jax.tree.map(lambda x: x - x[:1], params)
        distance = jnp.sqrt(num_agents) * metrics.consensus_distance(apart)
        return LargestGradientState(jnp.zeros([]), distance)

    def update(
        updates: optax.Updates, state: LargestGradientState, params: cdjax.Params | None = None
    ) -> tuple[optax.Updates, LargestGradientState]:
        del params
        largest = jnp.maximum(state.gradient_bound, optax.tree.norm(updates))
        return updates, state._replace(gradient_bound=largest)

    return optax.GradientTransformation(init, update)


def is_bounded(config: RunConfig, num_agents: int) -> bool:
    """Whether the theory bounds how far apart the agents of such a run are."""
    plain = not (config.sequential or config.size_weighted or _faults.is_disturbed(config))
    return plain and config.algorithm in _BOUNDED and num_agents <= _MOST_AGENTS


def consensus_bound(job: Job, opt_state: optax.OptState, step: int) -> float | None:
    """Proposition 1, corrected, with the L measured so far; None where it does not apply.

    Args:
        job: the run.
        opt_state: as :func:`largest_gradient` left it.
        step: k.

    Returns:
        The bound on the consensus distance after k steps, in its units.
    """
    config, graph = job.config, job.topology
    if config.without_agents or not is_bounded(config, graph.num_agents):
        return None
    is_state = lambda x: isinstance(x, LargestGradientState)  # noqa: E731
    leaves = jax.tree.leaves(opt_state, is_leaf=is_state)
    state = jax.device_get(next(filter(is_state, leaves)))
    if not np.isfinite(state.gradient_bound):
        return None
    alpha = _algorithms.learning_rate(config, job.epochs * job.steps_per_epoch)
    steps = np.arange(step + 1)
    step_sizes = np.asarray(jax.vmap(alpha)(steps)) if callable(alpha) else 0 * steps + alpha
    bound = theory.consensus_bound(
        graph,
        step_sizes,
        float(state.gradient_bound),
        initial_distance=float(state.initial_distance),
        momentum=config.momentum if _BOUNDED[config.algorithm] else 0.0,
    )[-1]
    return float(bound / np.sqrt(graph.num_agents))


def step_limits(job: Job) -> tuple[str, str]:
    """What the theory says of the step size: a line for the start table, and a warning or ''.

    The curvature γ is that of agent 0's loss on its first batch, at the run's state.

    Args:
        job: the run, before its first step or where it is resumed.
    """
    config, graph = job.config, job.topology
    if not is_bounded(config, graph.num_agents) or jax.process_count() > 1:
        return "", ""
    smoothness = _smoothness(job)
    nesterov = config.algorithm == "cdmsgd"
    momentum = config.momentum if _BOUNDED[config.algorithm] else 0.0
    tight = theory.tight_step_limit(graph, smoothness, momentum=momentum, nesterov=nesterov)
    sufficient = theory.sufficient_step_limit(graph, theory.Constants(smoothness))
    stated = f"{sufficient:.3g}" if sufficient > 0 else "none"
    step = int(job.state.step)
    where = f"at step {step}" if step else "at the start"
    line = f"{tight:.3g} tight, {stated} by eq. 15, with γ = {smoothness:.3g} {where}"
    if config.learning_rate < tight:
        return line, ""
    return line, (
        f"step size {config.learning_rate:g} is not below the tight limit {tight:.3g}: on a "
        f"quadratic with the curvature {where} it would diverge"
    )


def _smoothness(job: Job) -> float:
    """The largest eigenvalue of a Hessian; at least a little, for the limits to be finite."""
    key = jax.random.key(job.config.seed)
    indices = data.batch_indices(
        job.sizes, job.batch_size, first_step=0, num_steps=1, seed=job.config.seed
    )[0]
    params = job.view(job.state).params
    own = jax.tree.map(lambda x: x[:1], (params, job.state.model_state, job.agent_data))

    @jax.jit
    def largest(params: cdjax.Params, model_state: cdjax.Params, samples: data.AgentData):
        batch = jax.tree.map(lambda x: x[0], data.take_batch(samples, indices[:1]))
        one = jax.tree.map(lambda x: x[0], (params, model_state))
        return theory.hessian_extremes(
            lambda p: job.loss(p, one[1], batch, key)[0], one[0], key, num_iterations=_ITERATIONS
        ).largest

    return max(float(largest(*own)), float(np.finfo(np.float32).tiny))
