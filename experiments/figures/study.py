"""Runs what the figures show, and draws them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from cdjax._checks import check_choice
from experiments.figures import claims
from experiments.figures.config import Figures
from experiments.figures.curves import PRESETS, Curve, Figure, specifications
from experiments.report import plots
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import PARTITIONS, Run, check_choices, flat, replaced, run_of
from experiments.run.errors import UsageError, blame, flag
from experiments.run.job import check
from experiments.run.records import run_all, run_once
from experiments.run.terminal import tracked


def draw(config: Figures) -> dict[str, claims.Columns]:
    """Runs what is missing; writes figures, curves.csv and claims.md; returns the lines they show.

    Raises:
        UsageError: for an option that cannot work.
    """
    config = _with_preset(config)
    wanted, console = _wanted(config), Console()
    _run_all(console, config, wanted)
    drawn = {
        name: {
            column: [_line(config, curve) for curve in curves]
            for column, curves in figure.columns.items()
        }
        for name, figure in wanted.items()
    }
    write(config, wanted, drawn)
    console.print(f"figures, curves.csv and claims.md in {config.out}", highlight=False)
    return drawn


def write(
    config: Figures, figures: Mapping[str, Figure], drawn: Mapping[str, claims.Columns]
) -> None:
    """Writes figures; curves.csv and claims.md with the lines of every column of all drawn ones."""
    for name, figure in figures.items():
        runs = next(iter(drawn[name].values()))[0].runs
        seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
        title = f"{figure.title} ({runs[0][0]['dataset']}, {config.model}, {seeds})"
        picture = plots.columns(drawn[name], figure.rows, x=figure.x, title=title)
        for form in ("png", "pdf"):
            picture.savefig(config.out / f"{name}.{form}", dpi=120)
    rows = [
        {"figure": figure, "column": column, "curve": line.label, "seed": seed, **record}
        for figure, columns in drawn.items()
        for column, lines in columns.items()
        for line in lines
        for seed, records in enumerate(line.runs, config.training.seed)
        for record in records
    ]
    rows = [{n: f"{v:.7g}" if isinstance(v, float) else v for n, v in row.items()} for row in rows]
    with (config.out / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)
    (config.out / "claims.md").write_text(claims.report(config, drawn))


def _with_preset(config: Figures) -> Figures:
    """The options, the preset's where none is given."""
    check_choices(config)
    preset, given = PRESETS[config.preset]._asdict(), flat(config)
    chosen = {name: preset[name] for name in preset if name in given and given[name] is None}
    config = replaced(config, **chosen, out=config.out / config.preset)
    for name in ("seeds", "jobs"):
        if getattr(config, name) < 1:
            raise UsageError(f"{flag(name)}: {getattr(config, name)} is too few; give at least 1")
    return config


def _wanted(config: Figures) -> dict[str, Figure]:
    """The figures to draw; their runs are checked."""
    momentum = 0.9 if config.momentum is None else config.momentum
    others = PRESETS[config.preset].others
    every = specifications(config.learning_rate, momentum=momentum, others=others)
    with blame("--figures"):
        for name in config.figures:
            check_choice("figure", name, ["all", *every])
    names = every if "all" in config.figures else config.figures
    wanted = {name: every[name] for name in names}
    for curve in _curves(wanted):
        check(_runs(config, curve)[0][0])
    return wanted


def _curves(figures: Mapping[str, Figure]) -> list[Curve]:
    return [c for f in figures.values() for curves in f.columns.values() for c in curves]


def _run_all(console: Console, config: Figures, wanted: Mapping[str, Figure]) -> None:
    runs = [run for curve in _curves(wanted) for run in _runs(config, curve)]
    console.print(f"{config.preset}: {len(wanted)} figures of {len(runs)} runs, some shared")
    tracked(console, "runs", run_all(runs, jobs=config.jobs), total=len(runs))


def _runs(config: Figures, curve: Curve) -> list[tuple[Run, Path]]:
    """A curve's run of each seed, with those of the study's options that it reads; its folder."""
    row = ALGORITHMS[curve.options["algorithm"]]
    names = ["learning_rate", "model", "dtype", "init", "out"]
    options = {name: getattr(config, name) for name in names} | {"evaluate_train": True}
    if row.options.get("momentum"):
        options["momentum"] = config.momentum
    options["size_weighted"] = config.training.size_weighted and row.weighting not in ("", "always")
    if "partition" in curve.options:
        options |= {name: None for read in PARTITIONS.values() for name in read}
    if (name := curve.options.get("dataset", config.data.dataset)) != config.data.dataset:
        options["data_dir"] = None if name == "digits" else config.data.data_dir
        options |= dict.fromkeys(("batch_size", "train_samples", "test_samples"))
    options |= curve.options
    name = "-".join(f"{option}={value}" for option, value in sorted(curve.options.items()))
    folder, first = config.out / "runs", config.training.seed
    return [
        (run_of(config, **options, seed=seed), folder / f"{name}-seed={seed}")
        for seed in range(first, first + config.seeds)
    ]


def _line(config: Figures, curve: Curve) -> plots.Line:
    runs = [run_once(run, folder) for run, folder in _runs(config, curve)]
    if not all(runs):
        raise UsageError(f"--learning-rate: {curve.label} diverges in its first epoch; give less")
    return plots.Line(curve.label, runs)
