"""The evaluation of every agent on data that all share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from cdjax._checks import stacked_size
from cdjax._types import Params
from cdjax.agents import agent_map
from cdjax.sharding import sharded
from cdjax.training._step import Metrics


def evaluation(
    metrics_fn: Callable[[Params, Params, Any], Metrics],
    *,
    batch_size: int = 250,
    plan: str = "auto",
    mesh: Mesh | None = None,
) -> Callable[..., Metrics]:
    """The evaluation of every agent on one shared data set.

    Args:
        metrics_fn: for one agent, ``(params, model_state, batch) -> metrics`` of shape (batch,).
        batch_size: samples at a time.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the parameters are sharded, if any.

    Returns:
        A jitted function ``evaluate(params, model_state, samples) -> metrics`` on stacked
        parameters. ``samples`` is a pytree whose leaves lead with the sample axis; the metrics are
        means over samples, each of shape (N,).

    Example::

        squares = lambda p, model_state, b: {"loss": (b[0] @ p["w"] + p["b"] - b[1]) ** 2}
        test_set = (jnp.ones((10, 3)), jnp.ones(10))
        losses = cdjax.training.evaluation(squares)(params, {}, test_set)["loss"]  # shape (N,)
    """

    def evaluate(params: Params, model_state: Params, samples: Any) -> Metrics:
        num_samples = stacked_size(samples)
        batches = _batches(samples, num_samples, min(batch_size, num_samples))

        def evaluate_agents(params: Params, model_state: Params, batches: Any) -> Metrics:
            def evaluate_one_agent(params: Params, model_state: Params) -> Metrics:
                def batch_sums(batch_and_mask: Any) -> Metrics:
                    batch, is_counted = batch_and_mask
                    per_sample = metrics_fn(params, model_state, batch)
                    # Selected, not multiplied by 0, which would turn an infinite loss into NaN.
                    counted = lambda values: jnp.where(is_counted, values, 0)  # noqa: E731
                    return jax.tree.map(lambda values: jnp.sum(counted(values)), per_sample)

                sums = jax.lax.map(batch_sums, batches)
                return jax.tree.map(lambda totals: jnp.sum(totals) / num_samples, sums)

            return agent_map(evaluate_one_agent, plan=plan)(params, model_state)

        if mesh:
            evaluate_agents = sharded(evaluate_agents, mesh, num_shared=1)
        return evaluate_agents(params, model_state, batches)

    return jax.jit(evaluate)


def _batches(samples: Any, num_samples: int, batch_size: int) -> tuple[Any, Array]:
    """Equal batches, and which samples of each count: the last one is padded with others."""
    num_batches = -(-num_samples // batch_size)
    order = jnp.arange(num_batches * batch_size).reshape(num_batches, batch_size)
    batches = jax.tree.map(lambda x: x[jnp.minimum(order, num_samples - 1)], samples)
    return batches, order < num_samples
