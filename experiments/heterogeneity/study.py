"""Tunes and runs every algorithm at every alpha; tables, a figure and results of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from cdjax._json import to_json
from experiments.heterogeneity.config import PRESETS, Heterogeneity
from experiments.report.plots import against_setting
from experiments.report.tables import command, markdown_table
from experiments.report.verdicts import (
    Difference,
    Verdict,
    interval,
    paired,
    verdicts,
    with_interval,
)
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import Run, check_choices, flat, replaced, run_of
from experiments.run.errors import UsageError, flag
from experiments.run.grids import best_step_sizes, loss_at_end, tuning_seeds
from experiments.run.job import check
from experiments.run.records import kept_records, make_together
from experiments.run.terminal import tracked
from experiments.run.together import check_together

# What is compared: its column of the records, and what the tables call it.
MEASURES = {"test_accuracy_mean": "mean agent", "test_accuracy_min": "worst agent"}


class Cell(NamedTuple):
    """An algorithm, and how far the agents' data is from iid."""

    algorithm: str
    alpha: float

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{self.algorithm} at alpha {self.alpha:g}"


class Result(NamedTuple):
    """The step size that was chosen for a cell, and the last record of every seed."""

    learning_rate: float
    records: list[dict[str, Any]]

    @property
    def diverges(self) -> bool:
        """Whether any seed's run does."""
        return any(record["diverged"] for record in self.records)

    def percents(self, column: str) -> list[float]:
        """A share of each seed in %."""
        return [100 * record[column] for record in self.records]


Results = Mapping[Cell, Result]


def compare(config: Heterogeneity) -> dict[Cell, Result]:
    """Runs what is missing; writes tables, figure and results into ``config.out``.

    Raises:
        UsageError: for an option that cannot work.
    """
    config = _with_preset(config)
    cells = _checked(config)
    console = Console()
    rates = _tuned(config, cells, console)
    results = _results(config, rates, console)
    text = _markdown(config, results)
    (config.out / "table.md").write_text(text)
    (config.out / "results.json").write_text(to_json(_described(config, results), indent=1) + "\n")
    means = {
        label: {
            name: [
                np.mean(results[Cell(name, a)].percents(column)) for a in config.dirichlet_alphas
            ]
            for name in config.algorithms
        }
        for column, label in MEASURES.items()
    }
    figure = against_setting(
        config.dirichlet_alphas, means, title=_setting(config), label="Dirichlet's alpha"
    )
    figure.savefig(config.out / "heterogeneity.png", dpi=120)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return results


def _with_preset(config: Heterogeneity) -> Heterogeneity:
    """The options, the preset's where none is given."""
    check_choices(config)
    given = flat(config)
    chosen = {n: v for n, v in PRESETS[config.preset].items() if given[n] is None}
    return replaced(config, **chosen, out=config.out / config.preset)


def _checked(config: Heterogeneity) -> list[Cell]:
    """All cells; their options are checked before the first run."""
    for name in ("seeds", "tune_seeds", "together"):
        if getattr(config, name) < 1:
            raise UsageError(f"{flag(name)}: {getattr(config, name)} is too few; give at least 1")
    for name in ("algorithms", "dirichlet_alphas", "learning_rates"):
        if not getattr(config, name):
            raise UsageError(f"{flag(name)}: give one or more")
    for name in ("algorithms", "dirichlet_alphas"):
        if len({*getattr(config, name)}) < len(getattr(config, name)):
            raise UsageError(f"{flag(name)}: one is given twice; give each once")
    if config.reference not in (None, *config.algorithms):
        raise UsageError(
            f"--reference: {config.reference} is not compared; give one of --algorithms: "
            f"{', '.join(config.algorithms)}"
        )
    cells = [Cell(name, a) for a in config.dirichlet_alphas for name in config.algorithms]
    for cell in cells:
        for rate in config.learning_rates:
            run = _run(config, cell, rate, seed=config.training.seed)
            check(run)
            check_together(run)
    return cells


def _run(config: Heterogeneity, cell: Cell, rate: float, *, seed: int, **options: Any) -> Run:
    """A run of a cell, with those of the study's options that its algorithm reads."""
    row = ALGORITHMS[cell.algorithm]
    shared = ["dataset", "data_dir", "model", "dtype", "init", "out"]
    shared += ["schedule", "decay_power", "decay_offset"]
    own = {name: getattr(config, name) for name in shared}
    if "momentum" in row.options and "period" not in row.options:
        own["momentum"] = config.momentum
    if "period" in row.options:
        own["period"] = config.period
    own |= {"algorithm": cell.algorithm, "learning_rate": rate, "seed": seed}
    own |= {"partition": "dirichlet-equal", "dirichlet_alpha": cell.alpha}
    return run_of(config, **own | options)


def _named(config: Heterogeneity, cell: Cell, run: Run) -> tuple[Run, Path]:
    """A run and the file of its record."""
    rate, seed = run.algorithm.learning_rate, run.training.seed
    name = f"{cell.algorithm}-alpha-{cell.alpha:g}-{rate:g}-seed-{seed}.json"
    return run, config.out / "runs" / name


def _tuning_runs(config: Heterogeneity, cell: Cell, rate: float) -> list[tuple[Run, Path]]:
    """Runs with seeds that are not reported, which tell the training loss."""
    seeds = tuning_seeds(config.training.seed, config.tune_seeds)
    runs = [_run(config, cell, rate, seed=seed, evaluate_train=True) for seed in seeds]
    return [_named(config, cell, run) for run in runs]


def _made(
    config: Heterogeneity,
    groups: Iterable[Sequence[tuple[Run, Path]]],
    *,
    console: Console,
    description: str,
) -> None:
    """Makes what is missing of the runs; those of a group, of one cell, by one program."""
    groups = list(groups)
    made = (done for group in groups for done in make_together(group, at_most=config.together))
    tracked(console, description, made, total=sum(map(len, groups)))


def _tuned(config: Heterogeneity, cells: Sequence[Cell], console: Console) -> dict[Cell, float]:
    """The step size of each cell."""

    def losses(tried: Sequence[tuple[Cell, float]]) -> list[float]:
        groups: dict[Cell, list[tuple[Run, Path]]] = {}
        for cell, rate in tried:
            groups.setdefault(cell, []).extend(_tuning_runs(config, cell, rate))
        _made(config, groups.values(), console=console, description="tuning")
        return [loss_at_end(kept_records(_tuning_runs(config, *one))) for one in tried]

    return best_step_sizes(cells, config.learning_rates, losses, label=lambda cell: cell.label)


def _results(
    config: Heterogeneity, rates: Mapping[Cell, float], console: Console
) -> dict[Cell, Result]:
    """The records of all reported seeds."""
    first = config.training.seed
    seeds = range(first, first + config.seeds)
    groups = {
        cell: [_named(config, cell, _run(config, cell, rate, seed=seed)) for seed in seeds]
        for cell, rate in rates.items()
    }
    _made(config, groups.values(), console=console, description="runs")
    return {cell: Result(rates[cell], kept_records(group)) for cell, group in groups.items()}


def reference(config: Heterogeneity) -> str:
    """The algorithm that the others are compared with."""
    named = (config.reference, "cdmsgd", "cdsgd", config.algorithms[0])
    return next(name for name in named if name in config.algorithms)


def differences(
    config: Heterogeneity, results: Results
) -> dict[tuple[Cell, str], tuple[Difference, Verdict]]:
    """The paired difference of each cell to the reference, and its verdict; all are one family."""
    base, family = reference(config), {}
    for cell, result in results.items():
        other = results[Cell(base, cell.alpha)]
        if cell.algorithm == base or result.diverges or other.diverges:
            continue
        for column in MEASURES:
            pairs = np.subtract(result.percents(column), other.percents(column))
            family[cell, column] = paired(pairs)
    seen = verdicts([*family.values()])
    return {key: (family[key], verdict) for key, verdict in zip(family, seen, strict=True)}


def _setting(config: Heterogeneity) -> str:
    network = config.network
    return (
        f"{config.dataset}, {config.model}, {network.agents} agents on {network.topology}, "
        f"{config.training.epochs} epochs, {config.seeds} seeds"
    )


def _markdown(config: Heterogeneity, results: Results) -> str:
    found = differences(config, results)
    base, alphas = reference(config), config.dirichlet_alphas
    head = ["algorithm", *(f"α = {a:g}, {what}" for a in alphas for what in MEASURES.values())]
    rows = [
        [name, *(_accuracy(results[Cell(name, a)], column) for a in alphas for column in MEASURES)]
        for name in config.algorithms
    ]
    parts = [
        f"`{command('experiments.heterogeneity')}`\n",
        f"{_setting(config)}. Agents have equally many samples, of a mix of classes drawn from "
        f"Dir(α, ..., α). Test accuracy in %, mean over n = {config.seeds} seeds ± the half of its "
        "95 % interval (Student's t). Each algorithm has, at each α, the step size with the lowest "
        f"training loss at the end, on seeds that are not reported (n = {config.tune_seeds}), of a "
        f"grid that brackets it. Momentum is {config.momentum:g} where an algorithm has it, but "
        "for the local steps of algorithms of rounds.\n",
        markdown_table(head, rows),
        f"The paired difference to {base} with its 95 % interval, in points. A verdict is what "
        f"Holm's correction for {len(found)} comparisons leaves significant at 5 %.\n",
    ]
    for alpha in alphas:
        rows = [
            _row(Cell(name, alpha), results[Cell(name, alpha)], found) for name in config.algorithms
        ]
        head = ["algorithm", "step size"]
        head += [text for what in MEASURES.values() for text in (what, f"{what}, verdict")]
        head += ["mean parameters", "distance"]
        parts += [f"α = {alpha:g}:\n", markdown_table(head, rows)]
    return "\n".join(parts)


def _accuracy(result: Result, column: str) -> str:
    return "diverges" if result.diverges else with_interval(result.percents(column))


def _row(
    cell: Cell, result: Result, found: Mapping[tuple[Cell, str], tuple[Difference, Verdict]]
) -> list[str]:
    cells = [cell.algorithm, f"{result.learning_rate:g}"]
    for column in MEASURES:
        if (cell, column) in found:
            difference, verdict = found[cell, column]
            cells += [interval(difference), verdict]
        else:
            cells += ["diverges" if result.diverges else "", ""]
    distance = np.mean([record["consensus_distance"] for record in result.records])
    return [*cells, _accuracy(result, "mean_params_test_accuracy"), f"{distance:.2g}"]


def _described(config: Heterogeneity, results: Results) -> dict[str, Any]:
    """The options, and of every cell its step size, the record of each seed and the verdicts."""
    found = differences(config, results)
    return {
        "command": command("experiments.heterogeneity"),
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in flat(config).items()
        },
        "reference": reference(config),
        "results": [
            {
                **cell._asdict(),
                "learning_rate": result.learning_rate,
                "records": result.records,
                "against_reference": {
                    column: {**found[cell, column][0]._asdict(), "verdict": found[cell, column][1]}
                    for column in MEASURES
                    if (cell, column) in found
                },
            }
            for cell, result in results.items()
        ],
    }
