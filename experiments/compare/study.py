"""Tunes, runs and compares algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.report import plots
from experiments.run.config import ALGORITHMS, RunConfig, run_config
from experiments.run.display import byte_count
from experiments.run.errors import UsageError
from experiments.run.records import Entry, Records, markdown_table, over_seeds, run_once

if TYPE_CHECKING:
    from experiments.compare.config import Compare

# Table 1 of the paper, with momentum where the system has a form of its own for it.
SYSTEMS = (
    "cdsgd", "cdmsgd", "centralized", "fedavg", "easgd", "eamsgd", "downpour", "gossip-pair",
    "gosgd",
)  # fmt: skip


def compare(config: Compare) -> list[Entry]:
    """Runs what is missing; writes table and figure into ``config.out``.

    Args:
        config: the options.

    Returns:
        An entry for each algorithm.

    Raises:
        UsageError: for an option that cannot work.
    """
    names = SYSTEMS if config.algorithms == ("all",) else config.algorithms
    if unknown := sorted({*names} - {*ALGORITHMS}):
        raise UsageError(f"--algorithms: unknown {unknown}; expected all or of {ALGORITHMS}")
    if config.seeds < 1 or config.tune_epochs < 1 or not config.learning_rates:
        raise UsageError("--seeds, --tune-epochs: give at least 1; --learning-rates: one or more")
    entries = []
    for name in names:
        rate = _tuned(config, name)
        seeds = range(config.seed, config.seed + config.seeds)
        runs = [_run(config, algorithm=name, learning_rate=rate, seed=seed) for seed in seeds]
        if not all(records for _, records in runs):
            raise UsageError(f"--learning-rates: {rate:g} is tuned, but {name} diverges with it")
        entries.append(Entry(name, runs[0][0], [records for _, records in runs]))
    rows = [_row(entry, config.target) for entry in entries]
    first = entries[0].runs[0][0]
    title = f"{first['dataset']}, {config.model}, {len(seeds)} seeds"
    (config.out / "table.md").write_text(
        markdown_table([*rows[0]], [[*row.values()] for row in rows])
    )
    plots.comparison(entries, title).savefig(config.out / "comparison.png", dpi=120)
    Console().print(_screen_table(rows, title))
    return entries


def _screen_table(rows: Sequence[dict[str, str]], title: str) -> Table:
    """The table in 80 columns; table.md tells the spread over the seeds of all accuracies."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in rows[0]:
        side = "left" if column == "algorithm" else "right"
        table.add_column(column.replace(" ", "\n"), justify=side, no_wrap=True)
    for row in rows:
        brief = {c: row[c].partition(" ±")[0] for c in ("model %", "train %")}
        table.add_row(*(row | brief | {"test %": row["test %"].replace(" ", "")}).values())
    return table


def _tuned(config: Compare, algorithm: str) -> float:
    """The step size of the grid with the lowest training loss."""
    epochs = {"epochs": config.tune_epochs, "eval_every": config.tune_epochs}

    def loss(rate: float) -> float:
        _, records = _run(config, algorithm=algorithm, learning_rate=rate, **epochs)
        return records[-1]["train_loss_mean"] if records else np.inf  # it has diverged

    return min(config.learning_rates, key=loss)


def _run(config: Compare, **options: Any) -> tuple[RunConfig, Records]:
    """One of the runs and its records."""
    wanted = run_config(config, **{"dataset": config.wanted_dataset} | options)
    name = f"{wanted.algorithm}-{wanted.learning_rate:g}-epochs-{wanted.epochs}-seed-{wanted.seed}"
    return wanted, run_once(wanted, config.out / name)


def _row(entry: Entry, target: float) -> dict[str, str]:
    last = [records[-1] for records in entry.runs]

    test = [100 * record["test_accuracy_mean"] for record in last]
    train = [100 * record["train_accuracy_mean"] for record in last]
    spread = [100 * (record["test_accuracy_max"] - record["test_accuracy_min"]) for record in last]
    reached = [
        next((r for r in records if r["test_accuracy_mean"] >= target), None)
        for records in entry.runs
    ]
    steps, sent = "never", "never"
    if all(reached):
        steps = f"{np.mean([r['step'] for r in reached if r]):.0f}"
        sent = byte_count(float(np.mean([r["bytes_sent"] for r in reached if r])))
    return {
        "algorithm": entry.label,
        "step size": f"{entry.config.learning_rate:g}",
        "test %": over_seeds(test, ".2f"),
        "model %": over_seeds([100 * r["mean_params_test_accuracy"] for r in last], ".2f"),
        "spread": f"{np.mean(spread):.2f}",
        "train %": over_seeds(train, ".2f"),
        "gap": f"{np.mean(train) - np.mean(test):.2f}",
        "distance": f"{np.mean([r['consensus_distance'] for r in last]):.2g}",
        f"steps to {target:.0%}": steps,
        f"sent to {target:.0%}": sent,
    }
