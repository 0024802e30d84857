"""Runs CDSGD on the convex problem, beside the bounds that the theory gives for it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

import cdjax
from cdjax import mixing, theory
from experiments.convex import problem as softmax
from experiments.convex import results
from experiments.convex.config import Convex
from experiments.convex.problem import Problem, minimise
from experiments.report.convex import Curves, page
from experiments.run.checks import check_options
from experiments.run.config import Run, check_choices, flat, replaced
from experiments.run.errors import UsageError, blame, flag
from experiments.run.problem import deal, load_dataset
from experiments.run.terminal import counted

_RECORDS = 60  # per run; for each V is minimised


class Setting(NamedTuple):
    """What all runs share."""

    config: Convex
    problem: Problem
    optimum: jax.Array  # of every agent: they are the same
    constants: theory.Constants
    step_sizes: dict[str, np.ndarray]


def convex(config: Convex) -> list[Curves]:
    """Runs every graph with both schedules; writes the figure and all numbers to ``config.out``.

    Raises:
        UsageError: for an option that cannot work.
    """
    run = _checked(config)
    graphs = [_graph(name, config.agents) for name in config.graphs]
    dataset, _ = load_dataset(run.data, seed=config.seed)
    parts = deal(run.data, dataset, config.agents, seed=config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with jax.enable_x64(True):
        setting = _setting(config, softmax.build(dataset, parts, l2=config.l2), graphs)
        runs = [
            _runs(setting, graph) for graph in counted(console, "graphs", graphs, total=len(graphs))
        ]
        constants = _constants(setting)
    summaries = {
        graph.name: results.summary(graph, setting.constants, **by_schedule)
        for graph, by_schedule in zip(graphs, runs, strict=True)
    }
    curves = [curve for by_schedule in runs for curve in by_schedule.values()]
    title = f"softmax regression with L2 on {dataset.name}"
    results.show(console, constants, summaries, title=title)
    results.write(config, curves, constants, summaries)
    batch = f"minibatches of {config.batch_size}" if config.batch_size else "full gradients"
    figure = page(curves, f"CDSGD, {title}, {config.agents} agents, {batch}")
    figure.savefig(config.out / "convex.png", dpi=110)
    console.print(f"results in {config.out}: convex.png, curves.csv, constants.json", markup=False)
    return curves


def _checked(config: Convex) -> Run:
    """A run with those of the study's options that it has too, after all are checked."""
    check_choices(config)
    run = Run()
    shared = {name: value for name, value in vars(config).items() if name in flat(run)}
    run = replaced(run, schedule="diminishing", **shared)
    check_options(run)
    if config.steps < 2:
        raise UsageError(f"--steps: {config.steps} is too few; give at least 2")
    for option in ("step_size", "l2"):
        value = getattr(config, option)
        if value is not None and not 0 < value < np.inf:
            raise UsageError(f"{flag(option)}: {value} is not positive and finite")
    if not config.graphs or len({*config.graphs}) < len(config.graphs):
        raise UsageError("--graphs: give one or more, each once")
    return run


def _graph(name: str, num_agents: int) -> cdjax.Topology:
    family, _, weights = name.partition(":")
    with blame("--graphs"):
        graph = cdjax.topology.create(family, num_agents, weights=weights or "metropolis_hastings")
    return dataclasses.replace(graph, name=name)


def _setting(config: Convex, problem: Problem, graphs: Sequence[cdjax.Topology]) -> Setting:
    start = jnp.zeros(problem.shape)
    optimum = cdjax.replicate(minimise(_objective(problem), start[0]), config.agents)
    smoothness, noise = softmax.smoothness_bound(problem), 0.0
    if config.batch_size:
        gradient_fn = functools.partial(_gradient, problem, config.batch_size)
        key = jax.random.key(config.seed + 1)
        points = (start, optimum)
        noise = max(float(theory.gradient_noise(gradient_fn, x, key=key)) for x in points)
    step_size = config.step_size
    if step_size is None:
        step_size = min(theory.tight_step_limit(graph, smoothness) for graph in graphs) / 2
    decay = {"power": config.decay_power, "offset": config.decay_offset}
    schedule = cdjax.diminishing_schedule(step_size, **decay)
    step_sizes = {
        "fixed": np.full(config.steps, step_size),
        "diminishing": np.asarray(schedule(jnp.arange(config.steps))),
    }
    constants = theory.Constants(smoothness, config.l2, noise)
    return Setting(config, problem, optimum, constants, step_sizes)


def _constants(setting: Setting) -> dict[str, Any]:
    """What all runs share, as numbers for people."""
    problem, optimum, constants = setting.problem, setting.optimum, setting.constants
    start, one = jnp.zeros(problem.shape), optimum[0]
    return {
        "agents": setting.config.agents,
        "parameters of an agent": int(one.size),
        "step size": float(setting.step_sizes["fixed"][0]),
        "gamma": constants.smoothness,
        "gamma at 0": float(softmax.largest_curvature(problem, start)),
        "gamma at the optimum": float(softmax.largest_curvature(problem, optimum)),
        "H": constants.strong_convexity,
        "L at 0": float(jnp.linalg.norm(softmax.gradients(problem, start))),
        "L at the optimum": float(jnp.linalg.norm(softmax.gradients(problem, optimum))),
        "Q": constants.noise,
        "loss at the optimum": float(_objective(problem)(one)),
        "distance of the optimum from 0": float(jnp.linalg.norm(one)),
    }


def _objective(problem: Problem) -> Any:
    return jax.jit(lambda x: softmax.losses(problem, jnp.broadcast_to(x, problem.shape)).mean())


def _gradient(problem: Problem, batch_size: int | None, params: Any, key: jax.Array) -> Any:
    if batch_size:
        problem = softmax.minibatch(problem, key, batch_size)
    return softmax.gradients(problem, params)


def _runs(setting: Setting, topology: cdjax.Topology) -> dict[str, Curves]:
    """Every schedule on one graph, compiled once."""
    losses = functools.partial(softmax.losses, setting.problem)
    value_fn = jax.jit(lambda x, alpha: theory.lyapunov(losses, x, topology, step_size=alpha))
    simulate = jax.jit(functools.partial(_simulate, setting, topology))
    kept = np.unique(np.geomspace(1, setting.config.steps, _RECORDS).astype(int)) - 1
    norms_of = jax.vmap(optax.tree.norm)
    curves = {}
    for schedule, step_sizes in setting.step_sizes.items():
        points, norms = simulate(jnp.asarray(step_sizes), jnp.asarray(kept))
        if not jnp.isfinite(norms).all():
            limit = theory.tight_step_limit(topology, setting.constants.smoothness)
            raise UsageError(
                f"--step-size: {step_sizes[0]:g} diverges on {topology.name}; "
                f"any below {limit:.4g} is stable there"
            )
        gaps, minimum = [], setting.optimum
        for step_size, point in zip(step_sizes[kept], points, strict=True):
            minimum = minimise(value_fn, minimum, step_size)  # from the last one, which is close
            gaps.append(float(value_fn(point, step_size) - value_fn(minimum, step_size)))
        means = jnp.mean(points, axis=1)
        measured = {
            "lyapunov_gap": np.array(gaps),
            "mean_error": np.asarray(norms_of(means - setting.optimum[:1])),
            "disagreement": np.asarray(norms_of(points - means[:, None])),
        }
        first = {"gap": gaps[0], "error": float(measured["mean_error"][0])}
        bounds = _bounds(setting, topology, schedule, norm=float(norms.max()), **first)
        measured |= {name: values[kept] for name, values in bounds.items()}
        curves[schedule] = Curves(topology.name, schedule, step=kept, **measured)
    return curves


def _bounds(
    setting: Setting, graph: cdjax.Topology, schedule: str, *, gap: float, error: float, norm: float
) -> dict[str, np.ndarray]:
    """The bounds at every step, the step size, and where the disagreement ends up."""
    step_sizes, common = setting.step_sizes[schedule], (graph, setting.constants)
    distances = theory.consensus_bound(graph, step_sizes, gradient_bound=norm)
    given = {"step_sizes": step_sizes, "distances": distances}
    rate = theory.disagreement_rate(graph, softmax.gradients(setting.problem, setting.optimum))
    stated = np.full((3, len(step_sizes)), np.nan)
    if schedule == "fixed":  # the paper's own are for fixed steps
        alpha = step_sizes[0]
        fixed = {"step_size": alpha, "num_steps": len(step_sizes)}
        for row, form in enumerate(("definition", "theorem")):
            stated[row] = theory.stated_lyapunov_bound(*common, initial_gap=gap, form=form, **fixed)
        stated[2] = theory.stated_consensus_bound(graph, alpha, gradient_bound=norm)
    return {
        "step_size": step_sizes,
        "lyapunov_bound": theory.lyapunov_bound(*common, initial_gap=gap, **given),
        "stated_lyapunov_bound": stated[0],
        "stated_lyapunov_bound_line_2": stated[1],
        "mean_error_bound": theory.mean_error_bound(*common, initial_error=error, **given),
        "consensus_bound": distances,
        "stated_consensus_bound": stated[2],
        "predicted_disagreement": rate * step_sizes,
    }


def _simulate(
    setting: Setting, topology: cdjax.Topology, step_sizes: jax.Array, kept: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The parameters at the kept steps, and the norm of every gradient taken."""
    tx = cdjax.cdsgd(lambda step: step_sizes[step], mixing.dense(topology))
    gradient_fn = functools.partial(_gradient, setting.problem, setting.config.batch_size)
    key, start = jax.random.key(setting.config.seed), jnp.zeros(setting.problem.shape)

    def step(carry: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        params, state, points = carry
        # Each step writes the row of the next kept step, whose own write is the last.
        points = points.at[jnp.searchsorted(kept, number)].set(params)
        gradient = gradient_fn(params, jax.random.fold_in(key, number))
        updates, state = tx.update(gradient, state, params)
        carry = optax.apply_updates(params, updates), state, points
        return carry, optax.tree.norm(gradient)

    carry = (start, tx.init(start), jnp.zeros((len(kept), *start.shape)))
    (_, _, points), norms = jax.lax.scan(step, carry, jnp.arange(len(step_sizes)))
    return points, norms
