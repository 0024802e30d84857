"""Runs every mixer under every attack, and under every fault; tables and a figure of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.run.config import ATTACKS, MIXERS, RunConfig, run_config
from experiments.run.errors import UsageError
from experiments.run.options import build_topology, check_options
from experiments.run.records import Records, markdown_table, over_seeds, run_once

if TYPE_CHECKING:
    from experiments.robustness.config import Robustness

Cells: TypeAlias = dict[str, dict[str, list[Records]]]

FAULTS = ("link-failure", "message-loss", "absence", "lag")
# Where nothing is disturbed.
_CALM: dict[str, Any] = {
    "link_failure": 0.0, "message_loss": 0.0, "absence": 0.0, "lag": 0, "mixer": "auto",
    "attack": "none", "malicious": None, "attack_strength": None,
}  # fmt: skip


def compare(config: Robustness) -> tuple[Cells, Cells]:
    """Runs what is missing; writes tables and figure into ``config.out``.

    Args:
        config: the options.

    Returns:
        The records by mixer and attack, and by fault: of every seed.

    Raises:
        UsageError: for an option that cannot work.
    """
    plans = _plans(config)
    console = Console()
    tables: tuple[Cells, Cells] = ({}, {})
    for table, row, column, wanted in plans:
        name = f"{row}-{column}".replace(" ", "-")
        runs = [run_once(one, config.out / f"{name}-seed-{one.seed}", quiet=True) for one in wanted]
        tables[table].setdefault(row, {})[column] = runs
        console.print(f"{row}, {column}: {_cell(config, runs)}", markup=False, highlight=False)
    (config.out / "table.md").write_text(_markdown(config, *tables))
    title = f"{config.wanted_dataset}, {config.model}, {config.algorithm}, {config.seeds} seeds"
    figure(config, *tables, title=title).savefig(config.out / "robustness.png", dpi=120)
    text = (config.out / "table.md").read_text()
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return tables


def _plans(config: Robustness) -> list[tuple[int, str, str, list[RunConfig]]]:
    """Table, row, column and the runs of each cell; all are checked before the first is run."""
    for option, names, choices in (
        ("--mixers", config.mixers, MIXERS),
        ("--attacks", config.attacks, ATTACKS),
        ("--faults", config.faults, FAULTS),
    ):
        if unknown := sorted({*names} - {*choices}):
            raise UsageError(f"{option}: unknown {unknown}; expected of {', '.join(choices)}")
    for option in ("mixer", "attack"):
        if getattr(config, option) != _CALM[option]:
            raise UsageError(f"--{option}: many are compared here; give --{option}s")
    if config.seeds < 1 or not config.mixers or not config.attacks:
        raise UsageError("--seeds: give at least 1; --mixers, --attacks: one or more")
    if config.epochs is None:
        raise UsageError("--epochs: give a number")
    plans = []
    for row, mixer in _mixers(config):
        for attack in config.attacks:
            chosen = {"malicious": config.malicious, "attack_strength": config.attack_strength}
            options = mixer | {"attack": attack} | (chosen if attack != "none" else {})
            plans.append((0, row, attack, _seeds(config, options)))
    for row, fault in _faults(config):
        options = {"topology": config.fault_topology} | fault
        plans.append((1, row, config.fault_topology, _seeds(config, options)))
    for *_, wanted in plans:
        check_options(wanted[0])
        build_topology(wanted[0])
    return plans


def _mixers(config: Robustness) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mixer's name in the table and its options."""
    for mixer in config.mixers:
        match mixer:
            case "auto":
                yield "weighted mean", {}
            case "trimmed-mean":
                yield f"trimmed mean {config.num_trimmed}", {"mixer": mixer}
            case "clipped":
                for radius in config.clip_radii:
                    yield f"clipped {radius:g}", {"mixer": mixer, "clip_radius": radius}
            case _:
                yield mixer, {"mixer": mixer}


def _faults(config: Robustness) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each fault's name in the table and its option; first comes none."""
    if config.faults:
        yield "no fault", {}
    for fault in config.faults:
        option = fault.replace("-", "_")
        value = getattr(config, option)
        yield f"{fault} {value:g}", {option: value}


def _seeds(config: Robustness, options: Mapping[str, Any]) -> list[RunConfig]:
    calm = {"dataset": config.wanted_dataset, **_CALM}
    seeds = range(config.seed, config.seed + config.seeds)
    return [run_config(config, **calm | {**options, "seed": seed}) for seed in seeds]


def _accuracies(runs: Sequence[Records]) -> list[float]:
    """The last test accuracy of each run in %; NaN of one that diverges before its first."""
    return [100 * run[-1]["test_accuracy_mean"] if run else np.nan for run in runs]


def _cell(config: Robustness, runs: Sequence[Records]) -> str:
    if not all(run and run[-1]["epoch"] == config.epochs for run in runs):
        return "diverges"
    return over_seeds(_accuracies(runs), ".2f")


def _markdown(config: Robustness, by_attack: Cells, by_fault: Cells) -> str:
    parts = [
        f"`{shlex.join(['python', '-m', 'experiments.robustness', *sys.argv[1:]])}`\n",
        f"{config.wanted_dataset}, {config.model}, {config.algorithm} with step size "
        f"{config.learning_rate:g}, {config.agents} agents, {config.epochs} epochs; mean and "
        f"standard deviation over {config.seeds} seeds.\n",
        f"Test accuracy in % over the honest agents, {config.malicious} of {config.agents} on "
        f"{config.topology} malicious:\n",
        markdown_table(
            ["mixer", *config.attacks],
            [
                [row, *(_cell(config, runs) for runs in of.values())]
                for row, of in by_attack.items()
            ],
        ),
    ]
    if by_fault:
        parts += [
            f"The weighted mean on {config.fault_topology}; absences are drawn every "
            f"{config.absence_duration} steps:\n",
            markdown_table(
                ["fault", "test %", "of the worst agent", "of the mean parameters", "distance"],
                [[row, *_fault_row(config, runs)]
                 for row, of in by_fault.items() for runs in of.values()],
            ),
        ]  # fmt: skip
    return "\n".join(parts)


def _fault_row(config: Robustness, runs: Sequence[Records]) -> list[str]:
    cell = _cell(config, runs)
    if cell == "diverges":
        return [cell, "", "", ""]
    last = [run[-1] for run in runs]
    columns = ("test_accuracy_min", "mean_params_test_accuracy")
    shares = [over_seeds([100 * record[name] for record in last], ".2f") for name in columns]
    return [cell, *shares, f"{np.mean([r['consensus_distance'] for r in last]):.2g}"]


def figure(config: Robustness, by_attack: Cells, by_fault: Cells, *, title: str) -> Figure:
    """Bars of the mean test accuracy; lines over them from the worst seed to the best.

    Args:
        config: the options.
        by_attack: the records by mixer and attack.
        by_fault: the records by fault.
        title: the figure's title; it should name the data set.

    Returns:
        The figure, for ``figure.savefig(path)``.
    """
    drawn = Figure(figsize=(12, 4), layout="constrained")
    drawn.suptitle(title)
    attacks, faults = drawn.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    width = 0.8 / len(config.attacks)
    for number, attack in enumerate(config.attacks):
        _bars(attacks, number * width, width, [of[attack] for of in by_attack.values()], attack)
    attacks.set_xticks(np.arange(len(by_attack)) + 0.4 - width / 2, [*by_attack], fontsize="small")
    attacks.set(ylabel="test accuracy, honest agents (%)", xlabel=f"mixer, on {config.topology}")
    attacks.legend(title="attack", fontsize="small", loc="lower left", bbox_to_anchor=(0, 1),
                   ncols=len(config.attacks))  # fmt: skip
    if by_fault:
        _bars(faults, 0, 0.6, [runs for of in by_fault.values() for runs in of.values()], None)
        labels = [row.replace(" ", "\n") for row in by_fault]
        faults.set_xticks(np.arange(len(by_fault)), labels, fontsize="small")
    faults.set(xlabel=f"fault, on {config.fault_topology}")
    for axes in (attacks, faults):
        axes.grid(alpha=0.3, axis="y")
        axes.set_axisbelow(True)
    return drawn


def _bars(
    axes: Any, shift: float, width: float, cells: Sequence[Sequence[Records]], label: str | None
) -> None:
    values = np.array([_accuracies(runs) for runs in cells])
    means = values.mean(axis=1)
    spread = np.stack([means - values.min(axis=1), values.max(axis=1) - means])
    axes.bar(np.arange(len(cells)) + shift, means, width, yerr=spread, label=label)
