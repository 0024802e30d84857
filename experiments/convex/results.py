"""What the convex study shows and leaves: two tables, the curves, the constants."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

import cdjax
from cdjax import theory
from cdjax._json import to_json
from experiments.convex.config import Convex
from experiments.report import tables
from experiments.report.convex import Curves


class Number(NamedTuple):
    """A number of a graph: its name in constants.json, in the table, and its value."""

    key: str
    label: str
    value: float | int | None


Summaries: TypeAlias = Mapping[str, Sequence[Number]]  # by graph


def summary(
    topology: cdjax.Topology, constants: theory.Constants, *, fixed: Curves, diminishing: Curves
) -> list[Number]:
    """One graph's numbers at the last step; None where there is none."""
    limit = theory.sufficient_step_limit(topology, constants)
    tight_limit = theory.tight_step_limit(topology, constants.smoothness)
    applies = bool(fixed.step_size[0] <= limit)
    by_definition, by_theorem = (
        _falls_below(fixed, stated)
        for stated in (fixed.stated_lyapunov_bound, fixed.stated_lyapunov_bound_line_2)
    )
    error = np.hypot(
        np.sqrt(topology.num_agents) * diminishing.mean_error, diminishing.disagreement
    )
    powers = [power_of_steps(diminishing.step, y) for y in (error, diminishing.step_size)]
    fixed, diminishing = (
        Curves(*run[:2], *(values[-1] for values in run[2:])) for run in (fixed, diminishing)
    )
    ratio = diminishing.disagreement / diminishing.step_size
    rate = diminishing.predicted_disagreement / diminishing.step_size
    return [
        Number("second_eigenvalue", "λ2", topology.second_eigenvalue),
        Number("smallest_eigenvalue", "λN", topology.smallest_eigenvalue),
        Number("sufficient_step_limit", "step limit, eq. 15", limit if limit > 1e-12 else None),
        Number("tight_step_limit", "step limit, tight", tight_limit),
        Number("theorem_1_applies", "Theorem 1: α within eq. 15", applies),
        Number("stated_theorem_1_fails_at", "  (17) is passed at step", by_definition),
        Number("stated_theorem_1_line_2_fails_at", "  its second line at step", by_theorem),
        Number("fixed_disagreement", "fixed: ‖x − s‖", fixed.disagreement),
        Number("fixed_stated_consensus_bound", "  Proposition 1", fixed.stated_consensus_bound),
        Number("fixed_consensus_bound", "  corrected", fixed.consensus_bound),
        Number("fixed_predicted_disagreement", "  α‖(I−Π)⁺∇F(x*)‖", fixed.predicted_disagreement),
        Number("fixed_mean_error", "fixed: ‖s − x*‖", fixed.mean_error),
        Number("fixed_mean_error_bound", "  bound", fixed.mean_error_bound),
        Number("diminishing_disagreement_per_step_size", "diminishing: ‖x − s‖ / α", ratio),
        Number("disagreement_rate", "  ‖(I−Π)⁺∇F(x*)‖", rate),
        Number("diminishing_mean_error", "diminishing: ‖s − x*‖", diminishing.mean_error),
        Number("diminishing_mean_error_bound", "  bound", diminishing.mean_error_bound),
        Number("diminishing_error_power", "diminishing: ‖x − x*‖ falls as k^", powers[0]),
        Number("step_size_power", "  the step size as k^", powers[1]),
    ]


def power_of_steps(steps: np.ndarray, values: np.ndarray) -> float:
    """The power p of k with which values fall as k^p over the last decade of steps."""
    last = steps + 1 >= (steps[-1] + 1) / 10
    if values[-1] <= 0 or last.sum() < 2:
        return 0.0
    return float(np.polyfit(np.log(steps[last] + 1), np.log(values[last]), 1)[0])


def _falls_below(fixed: Curves, stated: np.ndarray) -> int | None:
    """The first step at which a stated bound is below what is measured, rounding aside."""
    largest = fixed.lyapunov_gap[0]
    below = stated < fixed.lyapunov_gap * (1 - 1e-6) - 1e-14 * largest
    return int(fixed.step[below][0]) if below.any() else None


def show(
    console: Console, constants: Mapping[str, Any], summaries: Summaries, *, title: str
) -> None:
    """Prints the table of what all graphs share, and one with a column per graph."""
    shared = {name: f"{v:.6g}" if isinstance(v, float) else str(v) for name, v in constants.items()}
    console.print(tables.pairs(title, shared))
    heading = "by graph, at the last step; norms over all agents"
    table = Table("", *summaries, title=heading, title_justify="left")
    for numbers in zip(*summaries.values(), strict=True):
        table.add_row(numbers[0].label, *(_shown(number.value) for number in numbers))
    console.print(table)


def write(
    config: Convex, curves: Sequence[Curves], constants: Mapping[str, Any], summaries: Summaries
) -> None:
    """Writes curves.csv and constants.json into ``config.out``."""
    graphs = [
        {"graph": graph, **{number.key: number.value for number in numbers}}
        for graph, numbers in summaries.items()
    ]
    record = {"options": vars(config), **constants, "graphs": graphs}
    text = to_json(record, indent=2, ensure_ascii=False, default=str)
    (config.out / "constants.json").write_text(text + "\n")
    with (config.out / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Curves._fields)
        for curve in curves:
            for values in zip(*curve[2:], strict=True):
                writer.writerow([curve.graph, curve.schedule, *values])


def _shown(value: float | int | None) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value) if isinstance(value, int) else f"{round(value, 9) + 0.0:.4g}"
