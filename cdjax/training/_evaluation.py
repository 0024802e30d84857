"""The evaluation of every agent, on data that all share or on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Int

from cdjax._checks import stacked_size
from cdjax._trees import along_agents
from cdjax._types import Params
from cdjax.agents import agent_map
from cdjax.sharding import sharded
from cdjax.training._step import Metrics


def evaluation(
    metrics_fn: Callable[[Params, Params, Any], Metrics],
    *,
    batch_size: int = 250,
    stacked: bool = False,
    plan: str = "auto",
    mesh: Mesh | None = None,
) -> Callable[..., Metrics]:
    """The evaluation of every agent, on one shared data set or each on its own.

    Args:
        metrics_fn: for one agent, ``(params, model_state, batch) -> metrics`` of shape (batch,).
        batch_size: samples at a time.
        stacked: whether every agent has samples of its own.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the parameters are sharded, if any.

    Returns:
        A jitted function ``evaluate(params, model_state, samples) -> metrics`` on stacked
        parameters. ``samples`` is a pytree whose leaves lead with the sample axis; the metrics are
        means over samples, each of shape (N,). With ``stacked`` the leaves have the shape
        ``(N, samples, ...)``, as :func:`cdjax.data.deal` makes them, and a fourth argument, the
        numbers of samples of shape (N,), says how many of each agent's count, all by default; an
        agent of which none counts has NaN.

    Raises:
        ValueError: from ``evaluate``, if there are no samples, their leaves disagree, or a metric
            is not one number per sample.

    Example::

        squares = lambda p, model_state, b: {"loss": (b[0] @ p["w"] + p["b"] - b[1]) ** 2}
        test_set = (jnp.ones((10, 3)), jnp.ones(10))
        losses = cdjax.training.evaluation(squares)(params, {}, test_set)["loss"]  # shape (N,)
    """

    def evaluate(
        params: Params,
        model_state: Params,
        samples: Any,
        sizes: Int[ArrayLike, " agents"] | None = None,
    ) -> Metrics:
        num_agents = stacked_size(params)
        shape = _sample_axes(samples, num_agents if stacked else None)
        if sizes is not None and (not stacked or jnp.shape(sizes) != (num_agents,)):
            raise ValueError(
                f"sizes has shape {jnp.shape(sizes)}; it takes stacked=True and one number per "
                f"agent, ({num_agents},)"
            )
        num_samples = shape[-1]
        counts = jnp.full(shape[:-1], num_samples) if sizes is None else jnp.asarray(sizes)
        own = _batches(samples, counts, num_samples, min(batch_size, num_samples))

        def evaluate_agents(params: Params, model_state: Params, own: Any) -> Metrics:
            def evaluate_one_agent(params: Params, model_state: Params, own: Any) -> Metrics:
                batches, count = own

                def batch_sums(batch_and_mask: Any) -> Metrics:
                    batch, is_counted = batch_and_mask
                    per_sample = _of_samples(metrics_fn, params, model_state, batch)
                    # Selected, not multiplied by 0, which would turn an infinite loss into NaN.
                    counted = lambda values: jnp.where(is_counted, values, 0)  # noqa: E731
                    return jax.tree.map(lambda values: jnp.sum(counted(values)), per_sample)

                sums = jax.lax.map(batch_sums, batches)
                # In the dtype of the sums, as strict promotion wants it.
                mean = lambda totals: jnp.sum(totals) / count.astype(totals.dtype)  # noqa: E731
                return jax.tree.map(mean, sums)

            num_shared = 0 if stacked else 1
            mapped = agent_map(evaluate_one_agent, plan=plan, num_shared=num_shared)
            return mapped(params, model_state, own)

        if mesh:
            evaluate_agents = sharded(evaluate_agents, mesh, num_shared=0 if stacked else 1)
        return evaluate_agents(params, model_state, own)

    return jax.jit(evaluate)


def _sample_axes(samples: Any, num_agents: int | None) -> tuple[int, ...]:
    """The axes that all leaves of the samples lead with: of the samples, or agents and samples."""
    num_axes = 1 if num_agents is None else 2
    wanted = "(samples, ...)" if num_agents is None else f"({num_agents}, samples, ...)"
    shapes = {jnp.shape(leaf) for leaf in jax.tree.leaves(samples)}
    leading = {shape[:num_axes] for shape in shapes}
    axes = [*min(leading, default=())]
    fits = len(leading) == 1 and len(axes) == num_axes and axes[-1] > 0
    if not fits or num_agents not in (None, axes[0]):
        found = ", ".join(map(str, sorted(shapes))) or "none"
        raise ValueError(f"samples has leaves of the shapes {found}; expected {wanted} in each")
    return tuple(axes)


def _of_samples(metrics_fn: Callable[..., Metrics], *args: Any) -> Metrics:
    """One agent's metrics of a batch, one number per sample."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(args[-1])]
    found = ", ".join(map(str, shapes))
    hint = (
        f"The batch has leaves of the shapes {found}. Samples of each agent's own, of the shape "
        "(agents, samples, ...), need evaluation(..., stacked=True)."
    )
    try:
        metrics = metrics_fn(*args)
    except (TypeError, ValueError) as error:
        error.add_note(hint)
        raise
    for name, values in metrics.items():
        if jnp.shape(values) != shapes[0][:1]:
            raise ValueError(
                f"metrics_fn's {name!r} has shape {jnp.shape(values)}; give one number per sample, "
                f"{shapes[0][:1]}. {hint}"
            )
    return metrics


def _batches(samples: Any, counts: Array, num_samples: int, batch_size: int) -> Any:
    """Equal batches, which samples of each count, and how many: the last one is padded.

    With the leading axis of ``counts``, if they are the agents'.
    """
    num_batches = -(-num_samples // batch_size)
    order = jnp.arange(num_batches * batch_size).reshape(num_batches, batch_size)
    places = jnp.minimum(order, num_samples - 1)
    batches = jax.tree.map(lambda x: x[:, places] if counts.ndim else x[places], samples)
    of_agents = jnp.broadcast_to(order, (*counts.shape, *order.shape))
    return (batches, of_agents < along_agents(counts, of_agents)), counts
