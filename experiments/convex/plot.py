"""One page: measured curves and bounds, a column a graph, a row a quantity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from experiments.convex.study import Curves

_MEASURED, _STATED = {"linewidth": 1.8}, {"color": "C3", "linestyle": ":", "linewidth": 1.8}
_COLORS = {"fixed": "C0", "diminishing": "C1"}
_ROWS = (
    ("lyapunov_gap", "lyapunov_bound", "stated_lyapunov_bound", "V − V*"),
    ("mean_error", "mean_error_bound", None, "‖s − x*‖"),
    ("disagreement", "consensus_bound", "stated_consensus_bound", "‖x − s‖, all agents"),
)


def page(curves: Sequence[Curves], title: str) -> Figure:
    """V − V*, the mean's distance from the optimum and the disagreement, on every graph.

    Args:
        curves: of every graph with every schedule.
        title: the figure's title; it should name the data set.

    Returns:
        The figure, for ``figure.savefig(path)``.
    """
    graphs = list(dict.fromkeys(curve.graph for curve in curves))
    figure = Figure(figsize=(max(7.0, 3 * len(graphs)), 9), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(_ROWS), len(graphs), sharex=True, sharey="row", squeeze=False)
    for curve in curves:
        for axes, (measured, bound, stated, _) in zip(
            grid[:, graphs.index(curve.graph)], _ROWS, strict=True
        ):
            color, step = _COLORS[curve.schedule], curve.step + 1
            axes.plot(step, _positive(getattr(curve, bound)), color=color, linestyle="--",
                      label=f"{curve.schedule} steps, bound")  # fmt: skip
            axes.plot(step, _positive(getattr(curve, measured)), color=color, **_MEASURED,
                      label=f"{curve.schedule} steps, measured")  # fmt: skip
            if stated and curve.schedule == "fixed":
                axes.plot(step, _positive(getattr(curve, stated)), **_STATED,
                          label="fixed steps, the paper's bound")  # fmt: skip
                if np.any(getattr(curve, stated) < 0):
                    axes.text(0.04, 0.04, "the paper's bound is negative", color="C3",
                              fontsize="small", transform=axes.transAxes)  # fmt: skip
            if measured == "disagreement":
                axes.plot(step, curve.predicted_disagreement, color="0.4", linestyle="-.",
                          linewidth=1, label="α‖(I−Π)⁺∇F(x*)‖")  # fmt: skip
    for row, (measured, bound, _, label) in zip(grid, _ROWS, strict=True):
        values = _positive(np.concatenate([getattr(curve, measured) for curve in curves]))
        bounds = _positive(np.concatenate([getattr(curve, bound) for curve in curves]))
        row[0].set(ylabel=label, xscale="log", yscale="log")
        if not np.isnan(values).all():  # one agent never disagrees
            top, bottom = np.nanmax(values), np.nanmin(values)
            bottom, top = max(bottom, 1e-9 * top), min(np.nanmax(bounds), 100 * top)
            row[0].set_ylim(bottom / 3, 3 * top)
        for axes in row:
            axes.grid(alpha=0.3)
    for axes, name in zip(grid[0], graphs, strict=True):
        axes.set_title(name)
    for axes in grid[-1]:
        axes.set_xlabel("step k + 1")
    handles = {}
    for axes in grid[:, 0]:
        handles.update(
            {label: h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        )
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def _positive(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show: below rounding, NaN."""
    return np.where(values > 1e-14, values, np.nan)
