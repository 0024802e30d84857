"""Runs CDSGD on the convex problem, beside the bounds that the theory gives for it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import track

import cdjax
from cdjax import data, mixing, theory, topology
from experiments.convex import plot as _convex_plot
from experiments.convex import report as _convex_report
from experiments.convex.problem import (
    Problem,
    build,
    gradients,
    largest_curvature,
    losses,
    minibatch,
    minimise,
    smoothness_bound,
)
from experiments.convex.report import Curves
from experiments.run.config import run_config
from experiments.run.errors import UsageError, blame, flag
from experiments.run.options import check_options, deal, load_dataset

if TYPE_CHECKING:
    from experiments.convex.config import Convex

_RECORDS = 60


class Setting(NamedTuple):
    """What all runs share."""

    problem: Problem
    optimum: jax.Array
    constants: theory.Constants
    step_sizes: dict[str, np.ndarray]
    batch_size: int | None
    seed: int


def convex(config: Convex) -> list[Curves]:
    """Runs every graph with both schedules; writes the figure and all numbers to ``config.out``.

    Args:
        config: the options.

    Returns:
        The curves.

    Raises:
        UsageError: for an option that cannot work.
    """
    shared = run_config(config)
    check_options(shared)
    _check_own_options(config)
    graphs = [_graph(name, config.agents) for name in config.graphs]
    dataset, _ = load_dataset(shared)
    parts = deal(shared, dataset, config.agents, batch_size=1)
    config.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with jax.enable_x64(True):
        setting, constants = _setting(config, dataset, parts, graphs)
        _convex_report.print_constants(console, f"softmax regression on {dataset.name}", constants)
        runs = [_runs(setting, g) for g in track(graphs, "graphs", console=console, transient=True)]
    summaries = [
        _convex_report.summary(graph, setting.constants, *run)
        for graph, run in zip(graphs, runs, strict=True)
    ]
    curves = [curve for run in runs for curve in run]
    _convex_report.print_summaries(console, summaries)
    _convex_report.write(config, curves, {**constants, "graphs": summaries})
    batch = f"minibatches of {config.batch_size}" if config.batch_size else "full gradients"
    figure = _convex_plot.page(
        curves,
        f"CDSGD, softmax regression with L2 on {dataset.name}, {config.agents} agents, {batch}",
    )
    figure.savefig(config.out / "convex.png", dpi=110)
    console.print(f"results in {config.out}: convex.png, curves.csv, constants.json", markup=False)
    return curves


def _check_own_options(config: Convex) -> None:
    if config.steps < 2:
        raise UsageError(f"--steps: {config.steps} is too few; give at least 2")
    for option in ("step_size", "l2"):
        value = getattr(config, option)
        if value is not None and not 0 < value < np.inf:
            raise UsageError(f"{flag(option)}: {value} is not positive and finite")
    if not config.graphs or len({*config.graphs}) < len(config.graphs):
        raise UsageError("--graphs: give one or more, each once")


def _graph(name: str, num_agents: int) -> topology.Topology:
    family, _, weights = name.partition(":")
    with blame("--graphs"):
        graph = topology.create(family, num_agents, weights or "metropolis_hastings")
    return dataclasses.replace(graph, name=name)


def _setting(
    config: Convex,
    dataset: data.Dataset,
    parts: Sequence[np.ndarray],
    graphs: Sequence[topology.Topology],
) -> tuple[Setting, dict[str, Any]]:
    """What all runs share, and its numbers for people."""
    problem = build(dataset, parts, config.l2)
    start = jnp.zeros(problem.shape)
    optimum = minimise(_objective(problem), start[0])
    smoothness = smoothness_bound(problem)
    at_optimum = cdjax.replicate(optimum, config.agents)
    noise = 0.0
    if config.batch_size:
        noise = max(_noise(config, problem, point) for point in (start, at_optimum))
    step_size = config.step_size
    if step_size is None:
        step_size = min(theory.tight_step_limit(graph, smoothness) for graph in graphs) / 2
    schedule = cdjax.diminishing_schedule(
        step_size, power=config.decay_power, offset=config.decay_offset
    )
    step_sizes = {
        "fixed": np.full(config.steps, step_size),
        "diminishing": np.asarray(schedule(jnp.arange(config.steps))),
    }
    constants = theory.Constants(smoothness, config.l2, noise)
    setting = Setting(problem, optimum, constants, step_sizes, config.batch_size, config.seed)
    return setting, {
        "agents": config.agents,
        "parameters of an agent": int(optimum.size),
        "step size": step_size,
        "gamma": smoothness,
        "gamma at 0": float(largest_curvature(problem, start)),
        "gamma at the optimum": float(largest_curvature(problem, at_optimum)),
        "H": config.l2,
        "L at 0": float(jnp.linalg.norm(gradients(problem, start))),
        "L at the optimum": float(jnp.linalg.norm(gradients(problem, at_optimum))),
        "Q": noise,
        "loss at the optimum": float(_objective(problem)(optimum)),
        "distance of the optimum from 0": float(jnp.linalg.norm(optimum)),
    }


def _objective(problem: Problem) -> Any:
    return jax.jit(lambda x: losses(problem, jnp.broadcast_to(x, problem.shape)).mean())


def _gradient(problem: Problem, batch_size: int | None, params: Any, key: jax.Array) -> Any:
    if batch_size:
        problem = minibatch(problem, key, batch_size)
    return gradients(problem, params)


def _noise(config: Convex, problem: Problem, params: jax.Array) -> float:
    gradient_fn = functools.partial(_gradient, problem, config.batch_size)
    return float(theory.gradient_noise(gradient_fn, params, jax.random.key(config.seed + 1)))


def _runs(setting: Setting, graph: topology.Topology) -> list[Curves]:
    """Every schedule on one graph, compiled once."""
    value_fn = jax.jit(functools.partial(_lyapunov, setting.problem, graph))
    simulate = jax.jit(functools.partial(_simulate, setting, graph))
    num_steps = len(setting.step_sizes["fixed"])
    kept = np.unique(np.geomspace(1, num_steps, _RECORDS).astype(int)) - 1
    curves = []
    for schedule, step_sizes in setting.step_sizes.items():
        points, norms = simulate(jnp.asarray(step_sizes), jnp.asarray(kept))
        if not jnp.isfinite(norms).all():
            limit = theory.tight_step_limit(graph, setting.constants.smoothness)
            raise UsageError(
                f"--step-size: {step_sizes[0]:g} diverges on {graph.name}; "
                f"any below {limit:.4g} is stable there"
            )
        gaps, minimum = [], jnp.broadcast_to(setting.optimum, setting.problem.shape)
        for alpha, point in zip(step_sizes[kept], points, strict=True):
            minimum = minimise(value_fn, minimum, alpha)
            gaps.append(float(value_fn(point, alpha) - value_fn(minimum, alpha)))
        curves.append(_curves(setting, graph, schedule, kept, points, float(norms.max()), gaps))
    return curves


def _curves(
    setting: Setting,
    graph: topology.Topology,
    schedule: str,
    kept: np.ndarray,
    points: jax.Array,
    gradient_bound: float,
    gaps: Sequence[float],
) -> Curves:
    """What was measured at the kept steps, beside its bounds."""
    constants, step_sizes = setting.constants, setting.step_sizes[schedule]
    means = jnp.mean(points, axis=1)
    errors = np.asarray(jax.vmap(lambda s: jnp.linalg.norm(s - setting.optimum))(means))
    disagreements = np.asarray(jax.vmap(optax.tree.norm)(points - means[:, None]))
    distances = theory.consensus_bound(graph, step_sizes, gradient_bound)
    bound = theory.lyapunov_bound(
        graph, constants, step_sizes, initial_gap=gaps[0], distances=distances
    )
    mean_bound = theory.mean_error_bound(
        graph, constants, step_sizes, initial_error=float(errors[0]), distances=distances
    )
    at_optimum = cdjax.replicate(setting.optimum, graph.num_agents)
    rate = theory.disagreement_rate(graph, gradients(setting.problem, at_optimum))
    stated_bound = stated_distances = np.full(len(step_sizes), np.nan)
    if schedule == "fixed":
        stated_bound = theory.stated_lyapunov_bound(
            graph, constants, step_sizes[0], initial_gap=gaps[0], num_steps=len(step_sizes)
        )
        stated = theory.stated_consensus_bound(graph, step_sizes[0], gradient_bound)
        stated_distances = np.full(len(step_sizes), stated)
    return Curves(
        graph=graph.name,
        schedule=schedule,
        step=kept,
        step_size=step_sizes[kept],
        lyapunov_gap=np.array(gaps),
        lyapunov_bound=bound[kept],
        stated_lyapunov_bound=stated_bound[kept],
        mean_error=errors,
        mean_error_bound=mean_bound[kept],
        disagreement=disagreements,
        consensus_bound=distances[kept],
        stated_consensus_bound=stated_distances[kept],
        predicted_disagreement=rate * step_sizes[kept],
    )


def _lyapunov(
    problem: Problem, graph: topology.Topology, params: jax.Array, step_size: jax.Array
) -> jax.Array:
    return theory.lyapunov(lambda x: losses(problem, x), params, graph, step_size=step_size)


def _simulate(
    setting: Setting, graph: topology.Topology, step_sizes: jax.Array, kept: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The parameters at the kept steps, and the norm of every gradient taken."""
    tx = cdjax.cdsgd(lambda step: step_sizes[step], mixing.dense(graph))
    gradient_fn = functools.partial(_gradient, setting.problem, setting.batch_size)
    key, start = jax.random.key(setting.seed), jnp.zeros(setting.problem.shape)

    def step(carry: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        params, state, points = carry
        # A row is written over and over until its own step comes.
        points = points.at[jnp.searchsorted(kept, number)].set(params)
        gradient = gradient_fn(params, jax.random.fold_in(key, number))
        updates, state = tx.update(gradient, state, params)
        carry = optax.apply_updates(params, updates), state, points
        return carry, optax.tree.norm(gradient)

    carry = (start, tx.init(start), jnp.zeros((len(kept), *start.shape)))
    (_, _, points), norms = jax.lax.scan(step, carry, jnp.arange(len(step_sizes)))
    return points, norms
