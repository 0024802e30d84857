"""What the convex experiment shows and leaves: two tables, the curves, the constants."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from cdjax import theory, topology

if TYPE_CHECKING:
    from experiments.convex.config import Convex

# The lines of the table by graph: a key of the summary, and what people read.
_LINES = {
    "second_eigenvalue": "λ2",
    "smallest_eigenvalue": "λN",
    "sufficient_step_limit": "step limit, eq. 15",
    "tight_step_limit": "step limit, tight",
    "stated_theorem_1_fails_at": "Theorem 1 fails at step",
    "fixed_disagreement": "fixed: ‖x − s‖",
    "fixed_stated_consensus_bound": "  Proposition 1",
    "fixed_consensus_bound": "  corrected",
    "fixed_predicted_disagreement": "  α‖(I−Π)⁺∇F(x*)‖",
    "fixed_mean_error": "fixed: ‖s − x*‖",
    "fixed_mean_error_bound": "  bound",
    "diminishing_disagreement_per_step_size": "diminishing: ‖x − s‖ / α",
    "disagreement_rate": "  ‖(I−Π)⁺∇F(x*)‖",
    "diminishing_mean_error": "diminishing: ‖s − x*‖",
    "diminishing_mean_error_bound": "  bound",
}


class Curves(NamedTuple):
    """One run beside its bounds: arrays over the recorded steps, NaN where there is no bound.

    Norms are over all agents together. ``stated`` bounds are the paper's letter, the others hold.
    """

    graph: str
    schedule: str
    step: np.ndarray
    step_size: np.ndarray
    lyapunov_gap: np.ndarray
    lyapunov_bound: np.ndarray
    stated_lyapunov_bound: np.ndarray
    mean_error: np.ndarray
    mean_error_bound: np.ndarray
    disagreement: np.ndarray
    consensus_bound: np.ndarray
    stated_consensus_bound: np.ndarray
    predicted_disagreement: np.ndarray


def summary(
    graph: topology.Topology, constants: theory.Constants, fixed: Curves, diminishing: Curves
) -> dict[str, Any]:
    """One graph's numbers at the last step; None where there is none."""
    limit = theory.sufficient_step_limit(graph, constants)
    below = fixed.stated_lyapunov_bound < fixed.lyapunov_gap * (1 - 1e-6)
    return {
        "graph": graph.name,
        "second_eigenvalue": graph.second_eigenvalue,
        "smallest_eigenvalue": graph.smallest_eigenvalue,
        "sufficient_step_limit": limit if limit > 1e-12 else None,
        "tight_step_limit": theory.tight_step_limit(graph, constants.smoothness),
        "stated_theorem_1_fails_at": int(fixed.step[below][0]) if below.any() else None,
        "fixed_disagreement": fixed.disagreement[-1],
        "fixed_stated_consensus_bound": fixed.stated_consensus_bound[-1],
        "fixed_consensus_bound": fixed.consensus_bound[-1],
        "fixed_predicted_disagreement": fixed.predicted_disagreement[-1],
        "fixed_mean_error": fixed.mean_error[-1],
        "fixed_mean_error_bound": fixed.mean_error_bound[-1],
        "diminishing_disagreement_per_step_size": (
            diminishing.disagreement[-1] / diminishing.step_size[-1]
        ),
        "disagreement_rate": diminishing.predicted_disagreement[-1] / diminishing.step_size[-1],
        "diminishing_mean_error": diminishing.mean_error[-1],
        "diminishing_mean_error_bound": diminishing.mean_error_bound[-1],
    }


def print_constants(console: Console, title: str, constants: dict[str, Any]) -> None:
    """Prints the table of what all graphs share."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in constants.items():
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    console.print(table)


def print_summaries(console: Console, summaries: Sequence[dict[str, Any]]) -> None:
    """Prints the table with a column a graph."""
    title = "by graph, at the last step; norms over all agents"
    columns = [each["graph"] for each in summaries]
    table = Table("", *columns, title=title, title_justify="left")
    for key, label in _LINES.items():
        table.add_row(label, *(_shown(each[key]) for each in summaries))
    console.print(table)


def write(config: Convex, curves: Sequence[Curves], record: dict[str, Any]) -> None:
    """Writes curves.csv and constants.json into ``config.out``."""
    options = {name: str(v) if isinstance(v, Path) else v for name, v in vars(config).items()}
    text = json.dumps({"options": options, **record}, indent=2, ensure_ascii=False)
    (config.out / "constants.json").write_text(text + "\n")
    with (config.out / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Curves._fields)
        for curve in curves:
            for values in zip(*curve[2:], strict=True):
                writer.writerow([curve.graph, curve.schedule, *values])


def _shown(value: float | int | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{round(value, 9) + 0.0:.4g}"
