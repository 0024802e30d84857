"""What the convex study shows and leaves: two tables, the curves, the constants."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import cdjax
from cdjax import theory
from experiments.convex.config import Convex
from experiments.report import tables
from experiments.report.convex import Curves

# The lines of the table by graph: a key of the summary, and its label.
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


def summary(
    topology: cdjax.Topology, constants: theory.Constants, *, fixed: Curves, diminishing: Curves
) -> dict[str, Any]:
    """One graph's numbers at the last step; None where there is none."""
    limit = theory.sufficient_step_limit(topology, constants)
    below = fixed.stated_lyapunov_bound < fixed.lyapunov_gap * (1 - 1e-6)
    last_step_size = diminishing.step_size[-1]
    of_fixed = ("disagreement", "stated_consensus_bound", "consensus_bound",
                "predicted_disagreement", "mean_error", "mean_error_bound")  # fmt: skip
    return {
        "graph": topology.name,
        "second_eigenvalue": topology.second_eigenvalue,
        "smallest_eigenvalue": topology.smallest_eigenvalue,
        "sufficient_step_limit": limit if limit > 1e-12 else None,
        "tight_step_limit": theory.tight_step_limit(topology, constants.smoothness),
        "stated_theorem_1_fails_at": int(fixed.step[below][0]) if below.any() else None,
        **{f"fixed_{name}": getattr(fixed, name)[-1] for name in of_fixed},
        "diminishing_disagreement_per_step_size": diminishing.disagreement[-1] / last_step_size,
        "disagreement_rate": diminishing.predicted_disagreement[-1] / last_step_size,
        "diminishing_mean_error": diminishing.mean_error[-1],
        "diminishing_mean_error_bound": diminishing.mean_error_bound[-1],
    }


def show(
    console: Console,
    constants: Mapping[str, Any],
    summaries: Sequence[Mapping[str, Any]],
    *,
    title: str,
) -> None:
    """Prints the table of what all graphs share, and one with a column per graph."""
    shared = {name: f"{v:.6g}" if isinstance(v, float) else str(v) for name, v in constants.items()}
    console.print(tables.pairs(title, shared))
    columns = [each["graph"] for each in summaries]
    heading = "by graph, at the last step; norms over all agents"
    table = Table("", *columns, title=heading, title_justify="left")
    for key, label in _LINES.items():
        table.add_row(label, *(_shown(each[key]) for each in summaries))
    console.print(table)


def write(config: Convex, curves: Sequence[Curves], record: Mapping[str, Any]) -> None:
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
