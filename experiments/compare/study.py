"""Tunes, runs and compares algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from experiments.compare.config import Compare
from experiments.report import plots
from experiments.report.tables import markdown_table, over_seeds, percents
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import Run, check_choices, run_of
from experiments.run.errors import UsageError
from experiments.run.job import check
from experiments.run.records import Records, run_once

# Table 1 of the paper, with momentum where the system has its own form of it.
SYSTEMS = (
    "cdsgd", "cdmsgd", "centralized", "fedavg", "easgd", "eamsgd", "downpour", "gossip-pair",
    "gosgd",
)  # fmt: skip


class Result(NamedTuple):
    """An algorithm, the step size that was chosen for it, and the records of every seed."""

    algorithm: str
    learning_rate: float
    runs: list[Records]


def compare(config: Compare) -> list[Result]:
    """Runs what is missing; writes table and figure into ``config.out``.

    Raises:
        UsageError: for an option that cannot work.
    """
    names = SYSTEMS if "all" in config.algorithms else config.algorithms
    _check(config, names)
    results = [_result(config, name) for name in names]
    rows = [_row(result, config.target) for result in results]
    table = markdown_table([*rows[0]], [[*row.values()] for row in rows])
    (config.out / "table.md").write_text(table)
    dataset = results[0].runs[0][0]["dataset"]
    title = f"{dataset}, {config.model.model}, {config.seeds} seeds"
    lines = [plots.Line(f"{name} ({rate:g})", runs) for name, rate, runs in results]
    figure = plots.comparison(lines, title=title, legend="algorithm (step size)")
    figure.savefig(config.out / "comparison.png", dpi=120)
    Console().print(_screen_table(rows, title))
    return results


def _check(config: Compare, names: Sequence[str]) -> None:
    """Raises for an option that cannot work, before the first run."""
    check_choices(config)
    if min(config.seeds, config.tune_epochs) < 1:
        raise UsageError("--seeds, --tune-epochs: give at least 1")
    if not names or not config.learning_rates:
        raise UsageError("--algorithms, --learning-rates: give one or more")
    for name in names:
        check(_options(config, name, config.learning_rates[0]))
    for rate in config.learning_rates:
        check(_options(config, names[0], rate))


def _options(config: Compare, algorithm: str, rate: float, **options: Any) -> Run:
    """A run of an algorithm, with those of the study's options that it reads."""
    row = ALGORITHMS[algorithm]
    names = [*row.options, "schedule", "decay_power", "decay_offset", "out"]
    options = {name: getattr(config, name) for name in names} | options
    weighted = config.training.size_weighted and row.weighting != "always"
    own = {"algorithm": algorithm, "learning_rate": rate, "size_weighted": weighted}
    return run_of(config, **own, **options)


def _run(config: Compare, algorithm: str, rate: float, **options: Any) -> Records:
    run = _options(config, algorithm, rate, **options)
    name = f"{algorithm}-{rate:g}-epochs-{run.training.epochs}-seed-{run.training.seed}"
    return run_once(run, config.out / name)


def _result(config: Compare, algorithm: str) -> Result:
    """The runs with the step size of the grid that has the lowest training loss."""

    def loss(rate: float) -> float:
        epochs = {"epochs": config.tune_epochs, "eval_every": config.tune_epochs}
        records = _run(config, algorithm, rate, **epochs)
        return records[-1]["train_loss_mean"] if records else np.inf  # it has diverged

    rate = min(config.learning_rates, key=loss)
    first = config.training.seed
    runs = [_run(config, algorithm, rate, seed=first + number) for number in range(config.seeds)]
    if not all(runs):
        raise UsageError(f"--learning-rates: {algorithm} diverges with {rate:g}, its best one")
    return Result(algorithm, rate, runs)


def _row(result: Result, target: float) -> dict[str, str]:
    runs = result.runs
    test, train = percents(runs, "test_accuracy_mean"), percents(runs, "train_accuracy_mean")
    spread = np.subtract(percents(runs, "test_accuracy_max"), percents(runs, "test_accuracy_min"))
    reached = [[r for r in run if r["test_accuracy_mean"] >= target] for run in runs]
    steps, sent = "never", "never"
    if all(reached):
        steps = f"{np.mean([records[0]['step'] for records in reached]):.0f}"
        sent = decimal(int(np.mean([records[0]["bytes_sent"] for records in reached])))
    return {
        "algorithm": result.algorithm,
        "step size": f"{result.learning_rate:g}",
        "test %": over_seeds(test, ".2f"),
        "model %": over_seeds(percents(runs, "mean_params_test_accuracy"), ".2f"),
        "spread": f"{np.mean(spread):.2f}",
        "train %": over_seeds(train, ".2f"),
        "gap": f"{np.mean(train) - np.mean(test):.2f}",
        "distance": f"{np.mean([run[-1]['consensus_distance'] for run in runs]):.2g}",
        f"steps to {target:.0%}": steps,
        f"sent to {target:.0%}": sent,
    }


def _screen_table(rows: Sequence[dict[str, str]], title: str) -> Table:
    """The table in 80 columns; table.md has the spread over the seeds of all accuracies."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in rows[0]:
        side = "left" if column == "algorithm" else "right"
        table.add_column(column.replace(" ", "\n"), justify=side, no_wrap=True)
    for row in rows:
        brief = {c: row[c].partition(" ±")[0] for c in ("model %", "train %")}
        table.add_row(*(row | brief | {"test %": row["test %"].replace(" ", "")}).values())
    return table
