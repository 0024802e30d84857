"""Tunes, runs and compares algorithms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from experiments.compare.config import Compare
from experiments.report import plots
from experiments.report.tables import markdown_table, over_seeds, percents
from experiments.report.verdicts import against
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import Run, check_choices, run_of
from experiments.run.errors import UsageError, flag
from experiments.run.grids import best_step_sizes, loss_at_end, tuning_seeds
from experiments.run.job import check
from experiments.run.records import Records, kept_records, make_together, run_all, run_once
from experiments.run.terminal import tracked
from experiments.run.together import check_together, is_made_alone

# Table 1 of the paper, with momentum where the system has its own form of it; and the order of
# step and mixing that most of its successors take.
SYSTEMS = (
    "cdsgd", "cdmsgd", "atc", "centralized", "fedavg", "easgd", "eamsgd", "downpour",
    "gossip-pair", "gosgd",
)  # fmt: skip


class System(NamedTuple):
    """An algorithm and the momentum that it is given; None is its own or none."""

    algorithm: str
    momentum: float | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.algorithm}, momentum" if self.momentum else self.algorithm


class Result(NamedTuple):
    """A system, the step size that was chosen for it, and the records of every seed."""

    system: System
    learning_rate: float
    runs: list[Records]


def compare(config: Compare) -> list[Result]:
    """Runs what is missing; writes table and figure into ``config.out``.

    Raises:
        UsageError: for an option that cannot work.
    """
    check_choices(config)
    systems = _systems(config)
    _check(config, systems)
    console = Console()
    rates = _tuned(config, systems, console)
    results = _results(config, rates, console)
    rows = _rows(results, config.target)
    table = markdown_table([*rows[0]], [[*row.values()] for row in rows])
    (config.out / "table.md").write_text(f"{_preamble(config, results)}\n{table}")
    title = f"{results[0].runs[0][0]['dataset']}, {config.model.model}, {config.seeds} seeds"
    lines = [plots.Line(f"{system.label} ({rate:g})", runs) for system, rate, runs in results]
    figure = plots.comparison(lines, title=title, legend="algorithm (step size)")
    figure.savefig(config.out / "comparison.png", dpi=120)
    console.print(_screen_table(rows, title))
    return results


def _systems(config: Compare) -> list[System]:
    """Those that are asked for; with momentum and without where it is an addition."""
    names = SYSTEMS if "all" in config.algorithms else config.algorithms
    found = []
    for name in names:
        momentum = ALGORITHMS[name].options.get("momentum")
        found.append(System(name))
        if momentum == 0 and config.momentum:
            found.append(System(name, config.momentum))
    return found


def _check(config: Compare, systems: Sequence[System]) -> None:
    """Raises for an option that cannot work, before the first run."""
    for name in ("seeds", "tune_seeds", "tune_epochs", "jobs", "together"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"{flag(name)}: {value} is too few; give at least 1")
    if not systems or not config.learning_rates:
        raise UsageError("--algorithms, --learning-rates: give one or more")
    for system in systems:
        check(_options(config, system, config.learning_rates[0]))
        if _by_one_program(config, system):
            check_together(_options(config, system, config.learning_rates[0]))
    for rate in config.learning_rates:
        check(_options(config, systems[0], rate))


def _options(config: Compare, system: System, rate: float, **options: Any) -> Run:
    """A run of a system, with those of the study's options that it reads.

    Options that the study lacks, which only one algorithm reads, have their defaults.
    """
    row = ALGORITHMS[system.algorithm]
    names = [*row.options, "schedule", "decay_power", "decay_offset", "out"]
    own = {name: getattr(config, name) for name in names if hasattr(config, name)}
    if row.options.get("momentum") == 0:
        own["momentum"] = system.momentum
    weighted = config.training.size_weighted and row.weighting not in ("", "always")
    own |= {"algorithm": system.algorithm, "learning_rate": rate, "size_weighted": weighted}
    return run_of(config, **own | {"evaluate_train": True} | options)


def _named(config: Compare, run: Run) -> tuple[Run, Path]:
    """A run and its folder."""
    algorithm, training = run.algorithm, run.training
    parts = [algorithm.algorithm, f"{algorithm.learning_rate:g}"]
    if algorithm.momentum and not ALGORITHMS[algorithm.algorithm].options["momentum"]:
        parts.append(f"momentum-{algorithm.momentum:g}")
    name = "-".join([*parts, f"epochs-{training.epochs}", f"seed-{training.seed}"])
    return run, config.out / name


def _tuning_runs(config: Compare, system: System, rate: float) -> list[tuple[Run, Path]]:
    """Runs that are evaluated at their end only, with seeds that are not reported."""
    epochs = config.tune_epochs or config.training.epochs
    options = {"epochs": epochs, "eval_every": epochs or 10**6}
    seeds = tuning_seeds(config.training.seed, config.tune_seeds)
    return [_named(config, _options(config, system, rate, seed=s, **options)) for s in seeds]


def _by_one_program(config: Compare, system: System) -> bool:
    """Whether the runs that choose a system's step size are made together."""
    return config.together > 1 and not is_made_alone(system.algorithm)


def _kept(config: Compare, system: System, rate: float) -> list[tuple[Run, Path]]:
    """Those runs, and the file of the record of each."""
    runs = _tuning_runs(config, system, rate)
    return [(run, folder.with_name(f"{folder.name}.json")) for run, folder in runs]


def _tuned(config: Compare, systems: Sequence[System], console: Console) -> dict[System, float]:
    """The step size of each system.

    Raises a UsageError if the best is at an end of the grid, however far it grows.
    """

    def made(tried: Sequence[tuple[System, float]]) -> Iterator[None]:
        shared: dict[System, list[tuple[Run, Path]]] = {}
        alone = []
        for system, rate in tried:
            if _by_one_program(config, system):
                shared.setdefault(system, []).extend(_kept(config, system, rate))
            else:
                alone += _tuning_runs(config, system, rate)
        for runs in shared.values():
            yield from make_together(runs, at_most=config.together)
        yield from run_all(alone, jobs=config.jobs)

    def losses(tried: Sequence[tuple[System, float]]) -> list[float]:
        tracked(console, "tuning", made(tried), total=len(tried) * config.tune_seeds)
        return [_loss(config, *one) for one in tried]

    return best_step_sizes(systems, config.learning_rates, losses, label=lambda s: s.label)


def _loss(config: Compare, system: System, rate: float) -> float:
    """What a step size is chosen by."""
    if _by_one_program(config, system):
        return loss_at_end(kept_records(_kept(config, system, rate)))
    made = (run_once(*run) for run in _tuning_runs(config, system, rate))
    return loss_at_end(records[-1] if records else None for records in made)


def _results(config: Compare, rates: Mapping[System, float], console: Console) -> list[Result]:
    """The runs of all reported seeds."""
    first = config.training.seed
    seeds = range(first, first + config.seeds)
    runs = {
        system: [_named(config, _options(config, system, rate, seed=seed)) for seed in seeds]
        for system, rate in rates.items()
    }
    every = [run for of_system in runs.values() for run in of_system]
    tracked(console, "runs", run_all(every, jobs=config.jobs), total=len(every))
    results = [
        Result(system, rates[system], [run_once(*run) for run in of_system])
        for system, of_system in runs.items()
    ]
    for system, rate, records in results:
        if not all(records):
            raise UsageError(f"--learning-rates: {system.label} diverges with {rate:g}, its best")
    return results


def _preamble(config: Compare, results: Sequence[Result]) -> str:
    reference, epochs = results[_reference(results)].system.label, results[0].runs[0][-1]["epoch"]
    return (
        f"{epochs} epochs, n = {config.seeds} seeds, ± their sample standard deviation. Each "
        "system has the step size with the lowest training loss at the end, on seeds that are not "
        f"reported ({config.tune_seeds} for each step size). *Test* is the accuracy of what is "
        "trained: the server's parameters, or the mean over the agents. "
        f"*Against {reference}* is the paired difference with its 95 % interval (Student's t); it "
        f"is starred where Holm's correction for {len(results) - 1} comparisons leaves it "
        "significant at 5 %. *Model* is the accuracy of the agents' mean parameters, *spread* the "
        "best agent's minus the worst's, *gap* train minus test.\n"
    )


def _reference(results: Sequence[Result]) -> int:
    """The system that the others are compared with: CDMSGD, or else the first."""
    names = [result.system.algorithm for result in results]
    return names.index("cdmsgd") if "cdmsgd" in names else 0


def _rows(results: Sequence[Result], target: float) -> list[dict[str, str]]:
    return [
        _row(result, target, difference)
        for result, difference in zip(results, _against(results), strict=True)
    ]


def _against(results: Sequence[Result]) -> list[tuple[str, str]]:
    """For each row, the head and the cell of the comparison with the reference."""
    number = _reference(results)
    finals = [percents(runs, "test_accuracy") for _, _, runs in results]
    others = [None if row == number else final for row, final in enumerate(finals)]
    head = f"against {results[number].system.label}"
    return [(head, cell) for cell in against(finals[number], others)]


def _row(result: Result, target: float, difference: tuple[str, str]) -> dict[str, str]:
    runs = result.runs
    test, train = percents(runs, "test_accuracy"), percents(runs, "train_accuracy")
    spread = np.subtract(percents(runs, "test_accuracy_max"), percents(runs, "test_accuracy_min"))
    reached = [[r for r in run if r["test_accuracy"] >= target] for run in runs]
    steps, sent = "never", "never"
    if all(reached):
        steps = f"{np.mean([records[0]['step'] for records in reached]):.0f}"
        sent = decimal(int(np.mean([records[0]["bytes_sent"] for records in reached])))
    return {
        "algorithm": result.system.label,
        "step size": f"{result.learning_rate:g}",
        "test %": over_seeds(test, ".2f"),
        difference[0]: difference[1],
        "model %": over_seeds(percents(runs, "mean_params_test_accuracy"), ".2f"),
        "spread": f"{np.mean(spread):.2f}",
        "train %": over_seeds(train, ".2f"),
        "gap": f"{np.mean(train) - np.mean(test):.2f}",
        "distance": f"{np.mean([run[-1]['consensus_distance'] for run in runs]):.2g}",
        f"steps to {target:.0%}": steps,
        f"sent to {target:.0%}": sent,
    }


def _screen_table(rows: Sequence[dict[str, str]], title: str) -> Table:
    """What of the table fits into 80 columns."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    left_out = ("against", "model", "train", "distance")
    shown = [name for name in rows[0] if not name.startswith(left_out)]
    for column in shown:
        side = "left" if column == "algorithm" else "right"
        table.add_column(column.replace(" ", "\n"), justify=side, no_wrap=True)
    for row in rows:
        cells = row | {"test %": row["test %"].replace(" ", "")}
        table.add_row(*(cells[name] for name in shown))
    return table
