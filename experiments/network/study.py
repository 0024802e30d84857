"""Trains each algorithm once per seed, and tells when it is how accurate on every network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.network.config import Networks
from experiments.report.network import over_time
from experiments.report.plots import Line
from experiments.report.tables import Runs, command, markdown_table, percents
from experiments.report.verdicts import with_interval
from experiments.run import clock
from experiments.run.config import Clock, Run, check_choices, run_of
from experiments.run.errors import UsageError
from experiments.run.grids import best_step_sizes, loss_at_end, tuning_seeds
from experiments.run.job import Job, check, prepare
from experiments.run.records import run_all, run_once
from experiments.run.terminal import tracked

# What is compared: the name, the algorithm, the topology.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "CDMSGD, ring": {"algorithm": "cdmsgd", "topology": "ring"},
    "CDMSGD, exponential": {"algorithm": "cdmsgd", "topology": "exponential"},
    "CDMSGD, complete": {"algorithm": "cdmsgd", "topology": "complete"},
    "adapt then combine, ring": {"algorithm": "atc", "topology": "ring"},
    # DiLoCo on the graph, without an optimizer of rounds.
    "local SGD, rounds of 10, ring": {
        "algorithm": "outer", "topology": "ring", "period": 10,
        "outer_learning_rate": 1.0, "outer_momentum": 0.0,
    },
    "FedAvg": {"algorithm": "fedavg", "topology": "complete"},
    "SGD, gradients averaged": {"algorithm": "centralized", "topology": "complete"},
}  # fmt: skip


def compare(config: Networks) -> dict[str, dict[str, Runs]]:
    """Runs what is missing; writes table and figure into ``config.out``.

    Returns:
        The records of every seed by network and algorithm, with their ``simulated_seconds``.

    Raises:
        UsageError: for an option that cannot work.
    """
    _check(config)
    console = Console()
    rates = _tuned(config, console)
    runs = {name: _reported(config, name, rates[name]) for name in ROWS}
    every = [run for of_name in runs.values() for run in of_name]
    tracked(console, "runs", run_all(every, jobs=config.jobs), total=len(every))
    found: dict[str, dict[str, list[Any]]] = {network: {} for network in config.networks}
    for name, of_name in runs.items():
        for run, folder in of_name:
            records = run_once(run, folder)
            job = prepare(run)
            for network in config.networks:
                on_it = _timed(job, _on(config, run, network), records)
                found[network].setdefault(name, []).append(on_it)
    text = _markdown(config, found, rates)
    (config.out / "table.md").write_text(text)
    lines = {
        network: [Line(name, seeds) for name, seeds in rows.items()]
        for network, rows in found.items()
    }
    over_time(lines, _setting(config)).savefig(config.out / "network.png", dpi=120)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return found


def _check(config: Networks) -> None:
    check_choices(config)
    counts = min(config.seeds, config.tune_seeds, config.jobs)
    if counts < 1 or not config.networks or not config.learning_rates:
        raise UsageError(
            "--seeds, --tune-seeds, --jobs: give at least 1; --networks, --learning-rates: some"
        )
    if config.training.epochs is None:
        raise UsageError("--epochs: give a number")
    for name in ROWS:
        for network in config.networks:
            run, _ = _reported(config, name, config.learning_rates[0])[0]
            check(_on(config, run, network))


def _reported(config: Networks, name: str, rate: float) -> list[tuple[Run, Path]]:
    first = config.training.seed
    return _runs(config, name, rate, seeds=range(first, first + config.seeds), eval_every=1)


def _tuning(config: Networks, name: str, rate: float) -> list[tuple[Run, Path]]:
    seeds = tuning_seeds(config.training.seed, config.tune_seeds)
    at_end = config.training.epochs  # all that a step size is chosen by
    return _runs(config, name, rate, seeds=seeds, evaluate_train=True, eval_every=at_end)


def _runs(
    config: Networks, name: str, rate: float, *, seeds: range, **options: Any
) -> list[tuple[Run, Path]]:
    """The runs of an algorithm with their folders, one per seed."""
    options |= {**ROWS[name], "agents": config.agents, "learning_rate": rate}
    options["momentum"] = config.momentum
    folder = name.lower().replace(",", "").replace(" ", "-")
    return [
        (run_of(config, **options, seed=seed, out=config.out),
         config.out / f"{folder}-{rate:g}-seed-{seed}")
        for seed in seeds
    ]  # fmt: skip


def _tuned(config: Networks, console: Console) -> dict[str, float]:
    """The step size of each algorithm."""

    def losses(tried: Sequence[tuple[str, float]]) -> list[float]:
        runs = [run for one in tried for run in _tuning(config, *one)]
        tracked(console, "tuning", run_all(runs, jobs=config.jobs), total=len(runs))
        return [_loss(config, *one) for one in tried]

    return best_step_sizes([*ROWS], config.learning_rates, losses)


def _loss(config: Networks, name: str, rate: float) -> float:
    """What a step size is chosen by."""
    made = (run_once(*run) for run in _tuning(config, name, rate))
    return loss_at_end(records[-1] if records else None for records in made)


def _on(config: Networks, run: Run, network: str) -> Run:
    """The same run on a network."""
    options = {"compute_time": config.compute_time, "stragglers": config.stragglers}
    options |= {"slowdown": config.slowdown} if config.stragglers else {}
    return dataclasses.replace(run, clock=dataclasses.replace(Clock(network=network), **options))


def _timed(job: Job, run: Run, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of a job with the simulated seconds that the run has on its network."""
    timing = clock.timing_of(
        run, job.network, job.algorithm, setting=job.setting, options=job.options,
        message_bytes=job.message_bytes,
    )  # fmt: skip
    now, step, timed = clock.started(run, job.problem, timing), 0, []
    for record in records:
        now, step = clock.later(timing, now, record["step"] - step), record["step"]
        if timing is not None and now is not None:
            seconds = clock.simulated_seconds(timing, now, job.network.honest)
            timed.append({**record, "simulated_seconds": seconds})
    return timed


def seconds_to(records: Sequence[Mapping[str, Any]], target: float) -> float:
    """When test accuracy first is at least the target, in %; infinite if it never is."""
    for record in records:
        if 100 * record["test_accuracy"] >= target:
            return record["simulated_seconds"]
    return np.inf


def _setting(config: Networks) -> str:
    return (
        f"{config.data.dataset}, {config.agents} agents, {config.model.model}, compute "
        f"{config.compute_time}, stragglers {config.stragglers:g}, {config.seeds} seeds"
    )


def _markdown(
    config: Networks, found: Mapping[str, Mapping[str, Runs]], rates: Mapping[str, float]
) -> str:
    head = ["algorithm", "step size", "test accuracy (%)"]
    for network in config.networks:
        head += [f"{network}: s per step", f"s to {config.target:g} %"]
    rows = []
    for name in ROWS:
        any_network = found[config.networks[0]][name]
        row = [name, f"{rates[name]:g}", with_interval(percents(any_network, "test_accuracy"))]
        for network in config.networks:
            runs = [run for run in found[network][name] if run]
            per_step = [run[-1]["simulated_seconds"] / run[-1]["step"] for run in runs]
            row.append(with_interval(per_step, ".3g"))
            times = [seconds_to(run, config.target) for run in runs]
            row.append(with_interval(times, ".3g") if np.all(np.isfinite(times)) else "not reached")
        rows.append(row)
    about = (
        f"{_setting(config)}, momentum {config.momentum:g}; means over n = {config.seeds} seeds ± "
        "half of their 95 % interval (Student's t). Each algorithm has the step size with the "
        "lowest training loss at the end, on seeds that are not reported "
        f"(n = {config.tune_seeds}), of a grid that brackets it."
    )
    text = f"{about}\n\n{markdown_table(head, rows)}"
    return f"{text}\n`{command('experiments.network')}`\n"
