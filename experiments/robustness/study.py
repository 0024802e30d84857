"""Runs every mixer under every attack, and under every fault; tables and a figure of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.report.plots import bars
from experiments.report.tables import Runs, command, markdown_table, over_seeds, percents
from experiments.report.verdicts import against
from experiments.robustness.config import Robustness
from experiments.run.config import Run, check_choices, run_of
from experiments.run.disturbance import ATTACKS, FAULTS, MIXERS
from experiments.run.errors import UsageError
from experiments.run.job import check
from experiments.run.records import run_all, run_once
from experiments.run.terminal import tracked


def compare(config: Robustness) -> tuple[dict[str, dict[str, Runs]], dict[str, Runs]]:
    """Runs what is missing; writes tables and figure into ``config.out``.

    Returns:
        The records of every seed by mixer and attack, and by fault.

    Raises:
        UsageError: for an option that cannot work.
    """
    attacked, faulty = _checked(config)
    console = Console()

    def named(row: str, column: str, runs: Sequence[Run]) -> list[tuple[Run, Path]]:
        name = f"{row}-{column}-seed-".replace(" ", "-")
        return [(run, config.out / f"{name}{run.training.seed}") for run in runs]

    def done(row: str, column: str, runs: Sequence[Run]) -> Runs:
        return [run_once(*run) for run in named(row, column, runs)]

    cells = [(row, *cell) for row, of_row in attacked.items() for cell in of_row.items()]
    cells += [(row, config.fault_topology, runs) for row, runs in faulty.items()]
    every = [run for cell in cells for run in named(*cell)]
    tracked(console, "runs", run_all(every, jobs=config.jobs), total=len(every))
    by_attack = {
        row: {attack: done(row, attack, runs) for attack, runs in cells.items()}
        for row, cells in attacked.items()
    }
    by_fault = {row: done(row, config.fault_topology, runs) for row, runs in faulty.items()}
    text = _markdown(config, by_attack, by_fault)
    (config.out / "table.md").write_text(text)
    labels = (f"mixer, on {config.network.topology}", f"fault, on {config.fault_topology}")
    title = f"{_setting(config)}, {config.seeds} seeds"
    figure = bars(by_attack, by_fault, title=title, labels=labels)
    figure.savefig(config.out / "robustness.png", dpi=120)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return by_attack, by_fault


def _checked(config: Robustness) -> tuple[dict[str, dict[str, list[Run]]], dict[str, list[Run]]]:
    """The runs of each cell, by mixer and attack, and by fault; all are checked."""
    check_choices(config)
    if min(config.seeds, config.jobs) < 1 or not config.mixers or not config.attacks:
        raise UsageError("--seeds, --jobs: give at least 1; --mixers, --attacks: one or more")
    if config.training.epochs is None:
        raise UsageError("--epochs: give a number")
    lies = {name: _read(config, ATTACKS[name].options) for name in config.attacks}
    attacked = {
        row: {name: _seeds(config, mixer, attack=name, **lie) for name, lie in lies.items()}
        for row, mixer in _mixers(config)
    }
    graph = config.fault_topology
    faulty = {row: _seeds(config, fault, topology=graph) for row, fault in _faults(config)}
    for runs in itertools.chain(*(row.values() for row in attacked.values()), faulty.values()):
        check(runs[0])
    return attacked, faulty


def _mixers(config: Robustness) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mixer's name in the table and its options."""
    tried = {"num_trimmed": (config.num_trimmed,), "clip_radius": config.clip_radii}
    for mixer in config.mixers:
        row = MIXERS[mixer]
        name = mixer.replace("-", " ") if row.build else "weighted mean"
        for values in itertools.product(*(tried[option] for option in row.options)):
            options = dict(zip(row.options, values, strict=True))
            yield " ".join([name, *(f"{value:g}" for value in values)]), {"mixer": mixer, **options}


def _faults(config: Robustness) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each fault's name in the table and its options; the first is none."""
    if config.faults:
        yield "no fault", {}
    for fault in config.faults:
        option = fault.replace("-", "_")
        own = FAULTS[option].options if option in FAULTS else {}
        options = _read(config, [option, *own])
        yield f"{fault} {options[option]:g}", options


def _read(config: Robustness, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _seeds(config: Robustness, own: Mapping[str, Any], **options: Any) -> list[Run]:
    shared = ["algorithm", "learning_rate", "schedule", "decay_power", "decay_offset", "momentum"]
    options |= _read(config, [*shared, "out"]) | own
    first = config.training.seed
    return [run_of(config, **options, seed=first + number) for number in range(config.seeds)]


def _ended(config: Robustness, runs: Runs) -> bool:
    return all(run and run[-1]["epoch"] == config.training.epochs for run in runs)


def _cell(config: Robustness, runs: Runs) -> str:
    return over_seeds(percents(runs), ".2f") if _ended(config, runs) else "diverges"


def _against_first(config: Robustness, rows: Sequence[Runs]) -> list[str]:
    """For each row its paired difference to the first."""
    comparable = [_ended(config, rows[0]) and _ended(config, runs) for runs in rows[1:]]
    others = [percents(runs) if ok else None for runs, ok in zip(rows[1:], comparable, strict=True)]
    return ["", *against(percents(rows[0]), others)]


def _setting(config: Robustness) -> str:
    return f"{config.data.dataset}, {config.model.model}, {config.algorithm}"


def _markdown(
    config: Robustness, by_attack: dict[str, dict[str, Runs]], by_fault: dict[str, Runs]
) -> str:
    agents = config.network.agents
    rows = [[row, *(_cell(config, runs) for runs in of.values())] for row, of in by_attack.items()]
    parts = [
        f"`{command('experiments.robustness')}`\n",
        f"{_setting(config)} with step size {config.learning_rate:g}, {agents} agents, "
        f"{config.training.epochs} epochs; mean ± sample standard deviation over n = "
        f"{config.seeds} seeds.\n",
        f"Test accuracy in % over the honest agents, {config.malicious} of {agents} on "
        f"{config.network.topology} malicious:\n",
        markdown_table(["mixer", *config.attacks], rows),
    ]
    if by_fault:
        head = ["fault", "test %", "of the worst agent", "of the mean parameters", "distance"]
        differences = _against_first(config, [*by_fault.values()])
        rows = [
            [row, *_fault_row(config, of), difference]
            for (row, of), difference in zip(by_fault.items(), differences, strict=True)
        ]
        parts += [
            f"The weighted mean on {config.fault_topology}; absences are drawn every "
            f"{config.absence_duration} steps. The last column is the paired difference of the "
            "test accuracy to that without a fault, with its 95 % interval; it is starred where "
            f"Holm's correction for {len(rows) - 1} comparisons leaves it significant at 5 %:\n",
            markdown_table([*head, "difference to no fault"], rows),
        ]
    return "\n".join(parts)


def _fault_row(config: Robustness, runs: Runs) -> list[str]:
    cell = _cell(config, runs)
    if cell == "diverges":
        return [cell, "", "", ""]
    columns = ("test_accuracy_min", "mean_params_test_accuracy")
    shares = [over_seeds(percents(runs, column), ".2f") for column in columns]
    return [cell, *shares, f"{np.mean([run[-1]['consensus_distance'] for run in runs]):.2g}"]
